"""Number losses on Hugging Face's `labels`: supervised positions, their numbers, and the counts of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ntil.distributed.zero3 import gathered
from ntil.losses.base import NumberLoss
from ntil.losses.step import IGNORE, LossParts, StepInfo, places_in_step
from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import NumberVocab


@dataclass(frozen=True)
class Supervised:
    """The supervised positions of a micro-batch.

    Attributes:
        positions: [N] indices into the flattened [B * T] hidden states, each the one that predicts its target.
        targets: [N]. spans: their numbers, None for a loss without terms.
        samples: how many samples there are. shape: (B, T).
    """

    positions: Tensor
    targets: Tensor
    spans: NumberSpans | None
    samples: int
    shape: tuple[int, int]

    @classmethod
    def of(cls, batch: Mapping[str, Any], loss: NumberLoss) -> Supervised:
        """Find them in `labels` (of the same positions as the inputs), or in `shift_labels` (of the ones before).

        A row of several packed samples, whose `position_ids` start anew, counts as that many.

        Raises:
            ValueError: there are no labels [B, T], or they hold tokens with several digits.
        """
        shifted = batch.get("shift_labels")
        labels = batch.get("labels") if shifted is None else shifted
        if labels is None or labels.dim() != 2:
            raise ValueError("a number loss needs `labels` [B, T] in every batch, -100 where nothing is supervised")
        targets = targets_of(labels) if shifted is None else labels
        keep = targets != IGNORE
        sample, samples = _samples(targets, batch.get("position_ids"))
        spans = None
        if loss.has_terms:
            assert loss.vocab is not None
            spans = NumberSpans.find(targets, loss.vocab, loss.number_style)
            spans = (spans if sample is None else _in_samples(spans, sample, samples)).select(keep.flatten())
        rows, length = targets.shape
        return cls(keep.flatten().nonzero()[:, 0], targets[keep], spans, samples, (rows, length))

    def to(self, device: torch.device | str) -> Supervised:
        spans = None if self.spans is None else self.spans.to(device)
        return replace(self, positions=self.positions.to(device), targets=self.targets.to(device), spans=spans)

    def counts(self) -> Tensor:
        """Tokens, samples, digits and numbers, [4] float32 on the labels' device."""
        none = self.targets.new_zeros(())
        of_spans = (none, none) if self.spans is None else (self.spans.is_digit.sum(), self.spans.is_number.sum())
        return torch.stack([none + self.targets.numel(), none + self.samples, *of_spans]).float()


def targets_of(labels: Tensor) -> Tensor:
    """Labels [B, T] as targets of the position before each; the last position has none."""
    return torch.cat([labels[:, 1:], torch.full_like(labels[:, :1], IGNORE)], dim=1)


def _samples(targets: Tensor, position_ids: Tensor | None) -> tuple[Tensor | None, int]:
    """Sample of each position [B * T] where rows are packed (else None: a row is one), and how many there are."""
    if position_ids is None or position_ids.shape != targets.shape:
        return None, len(targets)
    starts = torch.zeros_like(targets, dtype=torch.bool)
    starts[:, 1:] = (position_ids[:, 1:] == 0) & (position_ids[:, :-1] > 0)
    starts[:, 0] = True
    number = starts.flatten().cumsum(0) - 1
    # Padding may begin at 0, too: what has nothing supervised is no sample, unless it is a row of its own.
    present = torch.zeros(int(starts.sum()), dtype=torch.bool, device=targets.device)
    present[number[(targets != IGNORE).flatten()]] = True
    present[number.view_as(targets)[:, 0]] = True
    return (present.cumsum(0) - 1).clamp(min=0)[number], int(present.sum())


def _in_samples(spans: NumberSpans, sample: Tensor, samples: int) -> NumberSpans:
    """The same numbers in other samples than rows."""
    number_sample = spans.number_sample.clone()
    number_sample[spans.number[spans.is_digit]] = sample[spans.is_digit].to(number_sample.dtype)
    return replace(spans, sample=sample.to(spans.sample.dtype), number_sample=number_sample, samples=samples)


def step_infos(
    micro_batches: Sequence[Supervised], loss: NumberLoss, draw: int, device: torch.device
) -> list[StepInfo]:
    """What each micro-batch of this rank is to know of its optimizer step: counts over micro-batches and ranks.

    Args:
        draw: the step's number, which noise depends on.
    """
    if not micro_batches:
        return []
    counts = torch.stack([part.counts() for part in micro_batches]).sum(0).to(device)
    tokens, samples, digits, numbers = sum_over_ranks(counts)
    step = StepInfo(tokens, samples, digits.clamp(min=1), numbers.clamp(min=1), draw)
    if not loss.uses_noise:
        return [step] * len(micro_batches)
    dealt = gather_over_ranks([part.targets.numel() for part in micro_batches])
    places = places_in_step(dealt, rank())
    return [replace(step, first_token=first, step_tokens=total) for first, total in places]


def rank() -> int:
    """Index of this process among its ranks."""
    return dist.get_rank() if rank_count() > 1 else 0


def rank_count() -> int:
    """Number of ranks."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of every rank's tensor."""
    if rank_count() == 1:
        return tensor
    summed = tensor.clone()
    dist.all_reduce(summed)
    return summed


def gather_over_ranks(value: Any) -> list[Any]:
    """The value of every rank, in the order of ranks."""
    if rank_count() == 1:
        return [value]
    values: list[Any] = [None] * rank_count()
    dist.all_gather_object(values, value)
    return values


def loss_parts(
    loss: NumberLoss, model: Any, logits: Tensor, part: Supervised, info: StepInfo
) -> tuple[LossParts, Tensor | None]:
    """Parts of the loss from logits [N, V] at the supervised positions.

    Args:
        model: without wrappers, whose output embeddings some losses see.

    Returns:
        The parts, and what a step's factors come from (`NumberLoss.reference`), which adds up over the step; None for
        a loss without such factors.
    """
    part = part.to(logits.device)
    embeddings = [model.get_output_embeddings().weight] if loss.uses_embeddings else []
    with gathered(embeddings):
        info = replace(info, output_embeddings=embeddings[0]) if embeddings else info
        parts = loss.parts(logits, part.targets, part.spans, info)
        if not loss.needs_reference:
            return parts, None
        return parts, loss.reference(parts, logits, part.targets, part.spans, info)


def make_loss(loss: Any, tokenizer: Any = None, **options: Any) -> NumberLoss:
    """A loss from itself, its class or the class's name, with the digits of a tokenizer (or of a processor's).

    Raises:
        ValueError: no such name, options beside a finished loss, a tokenizer that isn't there, or a loss on boxes,
            which labels alone don't show.
    """
    if isinstance(loss, str):
        loss = _named(loss)
    if isinstance(loss, NumberLoss):
        if options:
            raise ValueError(f"{type(loss).__name__} is made already: give {', '.join(options)} to its constructor")
        made_loss = loss
    else:
        if tokenizer is None:
            raise ValueError("no tokenizer to find the digits in: give the loss itself, made with a NumberVocab")
        made_loss = loss(NumberVocab.from_tokenizer(getattr(tokenizer, "tokenizer", tokenizer)), **options)
    if made_loss.needs_shapes:
        raise ValueError(f"{type(made_loss).__name__} is on boxes, which labels alone don't show: use `ntil train`")
    if made_loss.reads_numbers:
        raise ValueError(f"{type(made_loss).__name__} has its answers read by a head: use `ntil train` and `ntil eval`")
    if not made_loss.trains:
        raise ValueError(f"{type(made_loss).__name__} stands for no training at all: choose a loss")
    return made_loss


def _named(name: str) -> type[NumberLoss]:
    import difflib

    from ntil import losses

    classes = {n: c for n in losses.__all__ if isinstance(c := getattr(losses, n), type) and issubclass(c, NumberLoss)}
    if name not in classes:
        near = difflib.get_close_matches(name.upper(), classes, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(classes))}"
        raise ValueError(f"no loss {name!r}; {hint}")
    return classes[name]
