"""A number loss in Hugging Face's Trainer, and in trainers derived from it.

    from ntil import NTIL
    from ntil.integrations.hf_trainer import use_loss

    use_loss(trainer, NTIL, lam=0.3)  # after the Trainer is made, before trainer.train()

Logits are computed at supervised positions only, means are over the whole optimizer step (accumulation and ranks), the
parts of the loss are logged as `loss/<part>`, and a rescaled loss takes CE / aux of the whole step, for which the
forward runs twice under accumulation. In an evaluation that asks for logits (`compute_metrics`) all of them are there.

`number_loss_func(loss)` is a plain `compute_loss_func`, which is given all logits and the number of tokens of a step:
exact for losses that are means over tokens, and for any where the step is one batch; otherwise it refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ntil.integrations.labels import (
    Supervised,
    loss_parts,
    make_loss,
    rank_count,
    step_infos,
    sum_over_ranks,
    targets_of,
)
from ntil.losses.base import NumberLoss
from ntil.losses.step import IGNORE, WHOLE_STEP, LossOutput, StepInfo, is_factor
from ntil.models.head import SupervisedHead

KEY = "number_loss_step"  # of a batch, between `get_batch_samples` and `compute_loss`


@dataclass(frozen=True)
class MicroBatch:
    """A micro-batch as the loss sees it, and what it is to know of its step."""

    part: Supervised
    info: StepInfo


def use_loss(trainer: Any, loss: Any, **options: Any) -> TrainerLoss:
    """Let a Trainer train with a number loss.

    Args:
        trainer: a transformers.Trainer, or one derived from it that calls the model in its `compute_loss`.
        loss: a `NumberLoss`, or its class (or the class's name), made with `options` and the digits of the trainer's
            `processing_class`.

    Raises:
        ValueError: a loss that can't be used, or settings of the trainer that the loss would replace or can't follow.
    """
    return TrainerLoss(trainer, make_loss(loss, getattr(trainer, "processing_class", None), **options)).installed()


class TrainerLoss:
    """A number loss in one Trainer: its `compute_loss_func`, and what goes around its `compute_loss`.

    Args:
        supervised_only: compute logits at supervised positions only; false for a trainer that reads them itself.
    """

    def __init__(self, trainer: Any, loss: NumberLoss, supervised_only: bool = True) -> None:
        self.trainer, self.loss, self.supervised_only = trainer, loss, supervised_only
        self._head: SupervisedHead | None = None
        self._now: MicroBatch | None = None
        self._references: list[Tensor] | None = None
        self._sums: dict[str, Tensor] = {}
        self._summed = self._steps = 0  # micro-batches and steps since the last log

    def installed(self) -> TrainerLoss:
        """Install it in the trainer.

        Raises:
            ValueError: see `use_loss`.
        """
        check_trainer(self.trainer)
        self.trainer.compute_loss_func = self
        self.wrap()
        return self

    def wrap(self) -> None:
        """Put this loss around the trainer's methods that make steps, losses and logs."""
        trainer = self.trainer
        self._get_batches, trainer.get_batch_samples = trainer.get_batch_samples, self.get_batch_samples
        self._compute, trainer.compute_loss = trainer.compute_loss, self.compute_loss
        self._log, trainer.log = trainer.log, self.log

    @property
    def model(self) -> Any:
        """The model without wrappers of accelerate."""
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    @property
    def head(self) -> SupervisedHead:
        if self._head is None:
            self._head = SupervisedHead(self.model)
        return self._head

    def get_batch_samples(self, epoch_iterator: Iterator[Any], num_batches: int, device: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, each with what it is to know of the step."""
        batches, items = self._get_batches(epoch_iterator, num_batches, device)
        self._steps += bool(batches)
        parts = [Supervised.of(batch, self.loss) for batch in batches]
        infos = step_infos(parts, self.loss, self.trainer.state.global_step, self.trainer.args.device)
        for batch, part, info in zip(batches, parts, infos, strict=True):
            batch[KEY] = MicroBatch(part, info)
        if self.loss.needs_reference and len(batches) > 1:
            reference = self._reference_of_step(batches, items)
            for batch in batches:
                batch[KEY] = replace(batch[KEY], info=replace(batch[KEY].info, reference=reference))
        return batches, items

    @torch.no_grad()
    def _reference_of_step(self, batches: list[Any], items: Any) -> Tensor:
        """CE and aux of the step, [2]: a forward of all micro-batches, with the dropout that they will have."""
        trainer, self._references = self.trainer, []
        model = trainer.model_wrapped
        model.train()
        devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices):
                for batch in batches:
                    with trainer.compute_loss_context_manager():
                        self.compute_loss(model, trainer._prepare_inputs(dict(batch)), num_items_in_batch=items)
            return sum_over_ranks(torch.stack(self._references).sum(0))
        finally:
            self._references = None

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The trainer's own `compute_loss`, in which this object is the loss function."""
        self._now = inputs.pop(KEY, None) or MicroBatch(Supervised.of(inputs, self.loss), WHOLE_STEP)
        part = self._now.part
        try:
            with self._selecting(part) if self.supervised_only and not return_outputs else nullcontext():
                return self._compute(model, inputs, return_outputs, num_items_in_batch)
        finally:
            self._now = None

    def _selecting(self, part: Supervised) -> Any:
        return self.head.selecting(part.positions.to(self.trainer.args.device), part.shape)

    def __call__(self, outputs: Any, labels: Any, num_items_in_batch: Any = None, **_: Any) -> Tensor:
        """The loss of the micro-batch in progress, from the model's outputs."""
        assert self._now is not None
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
        if logits.dim() == 3:
            logits = _at_supervised(logits, labels, self._now.part)
        total = self.total(logits, self._now)
        return total * (self.ranks_to_sum / (rank_count() if self.multiplies(num_items_in_batch) else 1))

    def multiplies(self, num_items_in_batch: Any) -> bool:
        """Whether the trainer multiplies the loss by the number of ranks itself, in evaluation, too."""
        return getattr(self.trainer.args, "average_tokens_across_devices", False) and num_items_in_batch is not None

    @property
    def ranks_to_sum(self) -> int:
        """Ranks whose gradients are averaged and must be summed, since every term is divided by global counts."""
        return rank_count() if self.model.training else 1

    def total(self, logits: Tensor, micro_batch: MicroBatch) -> Tensor:
        """Total of a micro-batch from logits [N, V], divided by the counts of the step."""
        info = micro_batch.info
        parts, of_part = loss_parts(self.loss, self.model, logits, micro_batch.part, info)
        if self._references is not None:
            assert of_part is not None
            self._references.append(of_part)
            return parts.ce
        in_step = info is not WHOLE_STEP
        reference = info.reference
        if reference is None and of_part is not None:
            reference = sum_over_ranks(of_part) if in_step else of_part
        output = self.loss.join(parts, reference)
        if in_step:
            self._add(output)
        return output.total

    def _add(self, output: LossOutput) -> None:
        for name, value in output.components.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + value
        self._summed += 1

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The trainer's own `log`, with the parts of the loss as means over the steps since the last."""
        if "loss" in logs and self._summed:
            sums = sum_over_ranks(torch.stack([value.float() for value in self._sums.values()])).tolist()
            micro = self._summed * rank_count()
            means = {n: v / (micro if is_factor(n) else self._steps) for n, v in zip(self._sums, sums, strict=True)}
            logs = {**logs, **{f"loss/{name}": value for name, value in means.items()}}
            self._sums, self._summed, self._steps = {}, 0, 0
        self._log(logs, *args, **kwargs)


def _at_supervised(logits: Tensor, labels: Any, part: Supervised) -> Tensor:
    """Logits [N, V] from [B, T, V]; labels may have been cut with the logits, but not their supervised ones."""
    positions = part.positions
    if labels is not None and tuple(labels.shape) != part.shape:
        positions = (targets_of(labels) != IGNORE).flatten().nonzero()[:, 0]
    if len(positions) != len(part.targets):
        raise ValueError(
            f"{len(positions)} supervised positions of {len(part.targets)} are left in the logits: a number loss needs "
            "all of them (no sequence parallelism, no labels dropped between collator and loss)"
        )
    return logits.flatten(0, 1).index_select(0, positions.to(logits.device))


def check_trainer(trainer: Any) -> None:
    """Check that a number loss neither replaces another setting of the trainer nor meets one that it can't follow.

    Raises:
        ValueError: it does; names the setting.
    """
    args = trainer.args
    parallel = [n for n in ("tp", "cp", "sp") if getattr(trainer, f"get_{n}_size", lambda: 1)() > 1]
    refusals = {
        "the trainer has a compute_loss_func already; make it without": trainer.compute_loss_func is not None,
        "label_smoothing_factor would do nothing beside a number loss; set it to 0": bool(args.label_smoothing_factor),
        "a number loss can't be used with torch's DataParallel; start one process a GPU (torchrun)": args.n_gpu > 1,
        f"a number loss can't be used with {', '.join(parallel)} parallelism, whose ranks share rows": bool(parallel),
    }
    for sentence, holds in refusals.items():
        if holds:
            raise ValueError(sentence)


def number_loss_func(loss: NumberLoss) -> Callable[..., Tensor]:
    """A `compute_loss_func` for `Trainer(compute_loss_func=...)`, from all logits; see the module's docstring.

    Raises (when called):
        ValueError: the step has more tokens than the batch, and the loss needs other counts of it than that of tokens.
    """

    def compute(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        tokens = (labels[:, 1:] != IGNORE).sum()
        items = tokens if num_items_in_batch is None else torch.as_tensor(num_items_in_batch, device=tokens.device)
        by_tokens = not loss.has_terms or (loss.reduction == "token" and not loss.needs_reference)
        if not by_tokens and int(items) != int(tokens):
            raise ValueError(
                f"the step has {int(items)} supervised tokens and this batch {int(tokens)}: {type(loss).__name__} is "
                "no mean over tokens, so accumulation and ranks need use_loss(trainer, loss) of the same module"
            )
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs.logits
        return loss(logits, labels, info=StepInfo(tokens=items), shift=True).total

    return compute
