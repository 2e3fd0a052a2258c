"""The one shape that every loss here has: cross-entropy joined with per-token, per-digit and per-number terms.

    total = ce_weight * CE + factor * aux        aux = sum of weight * term over the terms of the subclass

`factor` is lam, or lam * (CE / aux).detach() where a paper rescales its term to the size of cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntil.numbers import STYLES, NumberSpans, NumberStyle, NumberVocab

IGNORE = -100

Reduction = Literal["sample", "batch", "token"]
REDUCTIONS = ("sample", "batch", "token")


class LossOutput(NamedTuple):
    """`total` is the scalar to call backward on; `components` are detached scalars for the log."""

    total: Tensor
    components: dict[str, Tensor]


class Seen(NamedTuple):
    """What the terms may look at: float32 (or float64) logits [N, V], labels [N], digit logits [N, base], numbers."""

    logits: Tensor
    labels: Tensor
    digit_logits: Tensor
    spans: NumberSpans


class Term(NamedTuple):
    """A cost for every token or digit ([N]) or number ([M]), and its weight in `aux`."""

    cost: Tensor
    per: Literal["token", "digit", "number"]
    weight: float = 1.0


class Counts(NamedTuple):
    """What the sums are divided by."""

    tokens: Tensor | float
    samples: Tensor | float
    digits: Tensor | float
    numbers: Tensor | float


class NumberLoss(nn.Module):
    """Cross-entropy on every supervised token, plus the terms of a subclass (none here: plain cross-entropy).

    Maths is float32 whatever the logits' type (float64 stays float64), values of numbers are float64.

    Args:
        vocab: which ids are digits; None only for losses without number terms.
        lam: weight of `aux`.
        rescale: multiply lam with (CE / aux).detach().
        reduction: of the terms. `sample`: the mean of each sample, then the mean over samples, a sample without numbers
            counting as 0 (the NTIL paper's code; a number weighs less in a sample with many). `batch`: the mean over
            all digits or numbers (ntloss). `token`: their sum over the count of supervised tokens (a cost that replaces
            cross-entropy on some tokens).
        ce_weight: weight of cross-entropy.
        smoothing: label smoothing of cross-entropy.
        number_style: how digits group to numbers, see `NumberSpans.find`.

    Attributes:
        gather: set it to sum (CE, aux) over ranks, so that a rescaled loss has one factor on all of them: with
            `num_tokens` and the other counts given for the whole batch, every rank holds only its share of both.
    """

    digit_ids: Tensor

    def __init__(
        self,
        vocab: NumberVocab | None,
        *,
        lam: float = 0.0,
        rescale: bool = False,
        reduction: Reduction = "sample",
        ce_weight: float = 1.0,
        smoothing: float = 0.0,
        number_style: NumberStyle = "decimal",
    ) -> None:
        super().__init__()
        if lam < 0 or ce_weight < 0 or not 0 <= smoothing < 1:
            raise ValueError(f"need lam >= 0, ce_weight >= 0, 0 <= smoothing < 1; got {lam}, {ce_weight}, {smoothing}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
        if number_style not in STYLES:
            raise ValueError(f"number style must be one of {', '.join(STYLES)}; got {number_style!r}")
        self.vocab, self.number_style = vocab, number_style
        self.lam, self.rescale, self.reduction = lam, rescale, reduction
        self.ce_weight, self.smoothing = ce_weight, smoothing
        self.gather: Callable[[Tensor], Tensor] | None = None
        digit_ids = torch.tensor(vocab.digit_ids if vocab else [], dtype=torch.long)
        self.register_buffer("digit_ids", digit_ids, persistent=False)

    def at_draw(self, number: int, first: int = 0, whole: int = 0) -> None:
        """Called before a micro-batch of step `number`, with its place among the `whole` step's supervised tokens.

        Noise must depend neither on where a run was resumed nor on how a step is cut into ranks and micro-batches.
        """

    def bind(self, model: Any) -> None:
        """Called once with the Hugging Face model that is trained, for losses that look at its parameters."""

    def terms(self, seen: Seen) -> dict[str, Term]:
        """The named terms of this loss, switched-off ones with weight 0, so that the log has them."""
        return {}

    def position_weight(self, spans: NumberSpans) -> Tensor:
        """[N] float32: how much a digit weighs by its place."""
        return torch.ones_like(spans.digit, dtype=torch.float32)

    def token_loss(self, logits: Tensor, labels: Tensor, spans: NumberSpans | None) -> Tensor:
        """Summed cross-entropy over the supervised positions."""
        return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=self.smoothing)

    def factor(self, ce: Tensor, aux: Tensor) -> Tensor:
        """What multiplies aux, from detached CE and aux; 0 where there is no number."""
        if not self.rescale:
            return torch.full_like(ce, self.lam)
        if self.gather is not None:
            ce, aux = self.gather(torch.stack((ce, aux))).unbind()
        return torch.where(aux > 0, self.lam * ce / (aux + 1e-10), 0.0)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None = None,
        *,
        shift: bool = False,
        num_tokens: Tensor | float | None = None,
        num_samples: Tensor | float | None = None,
        num_digits: Tensor | float | None = None,
        num_numbers: Tensor | float | None = None,
    ) -> LossOutput:
        """
        Args:
            logits: [B, T, V], or [N, V] at already selected positions.
            labels: [B, T] or [N], aligned with `logits` (no shift inside); -100 is ignored.
            spans: numbers of the positions; found from `labels` when not given (then [N] is taken as one sample).
            shift: the Hugging Face convention, position t predicts label t + 1; needs [B, T, V].
            num_tokens, num_samples, num_digits, num_numbers: what the sums over supervised tokens, samples, digits and
                numbers are divided by, when the batch is part of a larger one (other ranks, accumulation).

        Raises:
            ValueError: shapes that do not fit.
        """
        given = (num_tokens, num_samples, num_digits, num_numbers)
        ce, terms = self._means(logits, labels, spans, shift, given)
        if not terms:
            return LossOutput(ce, {"ce": ce.detach()})
        return self._join(ce, terms)

    def gradient_norms(
        self,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None = None,
        *,
        num_tokens: Tensor | float | None = None,
        num_samples: Tensor | float | None = None,
        num_digits: Tensor | float | None = None,
        num_numbers: Tensor | float | None = None,
    ) -> dict[str, Tensor]:
        """Norm of the gradient on the logits of every weighted part of the total, detached: who pulls how hard.

        Costs one backward through the loss (not the model) per part. Arguments as of `forward`.
        """
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            ce, terms = self._means(leaf, labels, spans, False, (num_tokens, num_samples, num_digits, num_numbers))
            aux = sum((weight * mean for mean, weight in terms.values()), torch.zeros_like(ce))
            factor = self.factor(ce.detach(), aux.detach())
            parts = {"ce": self.ce_weight * ce, **{n: factor * weight * mean for n, (mean, weight) in terms.items()}}
            return {name: self._gradient_norm(part, leaf) for name, part in parts.items()}

    @staticmethod
    def _gradient_norm(part: Tensor, leaf: Tensor) -> Tensor:
        if not part.requires_grad:
            return torch.zeros_like(part)
        gradient = torch.autograd.grad(part, leaf, retain_graph=True, allow_unused=True)[0]
        return torch.zeros_like(part) if gradient is None else gradient.float().norm()

    def _means(
        self,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None,
        shift: bool,
        given: tuple[Tensor | float | None, ...],
    ) -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
        """Mean cross-entropy, and mean and weight of every term."""
        logits, labels = _aligned(logits, labels, shift)
        if self.digit_ids.device != logits.device:
            self.to(logits.device)
        if self.has_terms and spans is None:
            spans = self._find(labels)
        logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        if spans is not None and spans.digit.shape != labels.shape:
            raise ValueError(f"spans of {spans.digit.numel()} positions do not fit {labels.numel()} labels")
        kind = logits.device.type
        # Autocast would put the matrix products of some terms into half precision.
        full = torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
        with full:
            return self._full_precision_means(logits, labels, spans, given)

    def _full_precision_means(
        self, logits: Tensor, labels: Tensor, spans: NumberSpans | None, given: tuple[Tensor | float | None, ...]
    ) -> tuple[Tensor, dict[str, tuple[Tensor, float]]]:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        num_tokens, num_samples, num_digits, num_numbers = given
        tokens = _count(num_tokens, labels != IGNORE)
        if spans is None or not self.has_terms:
            return self.token_loss(logits, labels, spans) / tokens, {}
        logits, digit_logits = _DigitLogits.apply(logits, self.digit_ids, spans.is_digit)
        ce = self.token_loss(logits, labels, spans) / tokens
        samples = spans.samples if num_samples is None else num_samples
        counts = Counts(tokens, samples, _count(num_digits, spans.is_digit), _count(num_numbers, spans.is_number))
        terms = self.terms(Seen(logits, labels, digit_logits, spans))
        return ce, {n: (self._reduce(t, labels, spans, counts).to(ce.dtype), t.weight) for n, t in terms.items()}

    @property
    def has_terms(self) -> bool:
        return type(self).terms is not NumberLoss.terms

    @property
    def on_numbers(self) -> bool:
        """Whether it looks at numbers at all; if so, a run whose answers have none is a mistake."""
        return self.has_terms

    @torch.no_grad()
    def counts(self, micro_batches: Iterable[Tensor], *, shift: bool = False) -> dict[str, Tensor]:
        """What `forward` divides by, over all label tensors [B, T] of one optimizer step: `loss(..., **counts)`.

        With them the losses (and gradients) of the micro-batches add up to those of the whole batch, each divided once
        by the whole. Sum the counts over ranks too, where gradients are summed over ranks. One thing they can't make
        whole: a rescaled loss (`factor`) needs CE and aux of the step itself, see `gather`.
        """
        total: Tensor | None = None
        for labels in micro_batches:
            labels = labels[:, 1:] if shift else labels
            spans = self._find(labels) if self.has_terms else None
            none = labels.new_zeros(())
            seen = (none, none) if spans is None else (spans.is_digit.sum(), spans.is_number.sum())
            own = torch.stack(((labels != IGNORE).sum(), none + len(labels), *seen))
            total = own if total is None else total + own
        if total is None:
            raise ValueError("no micro-batch to count")
        return dict(zip(("num_tokens", "num_samples", "num_digits", "num_numbers"), total, strict=True))

    def _find(self, labels: Tensor) -> NumberSpans:
        if self.vocab is None:
            raise ValueError(f"{type(self).__name__} needs to know the digits: give it a NumberVocab")
        return NumberSpans.find(labels, self.vocab, self.number_style)

    def _join(self, ce: Tensor, terms: dict[str, tuple[Tensor, float]]) -> LossOutput:
        components = {"ce": ce, **{name: mean for name, (mean, _) in terms.items()}}
        total = self.ce_weight * ce if self.ce_weight != 1 else ce
        if terms:
            aux = sum((weight * mean for mean, weight in terms.values()), torch.zeros_like(ce))
            components["aux"], components["factor"] = aux, self.factor(ce.detach(), aux.detach())
            total = total + components["factor"] * aux
        return LossOutput(total, {name: value.detach() for name, value in components.items()})

    def _reduce(self, term: Term, labels: Tensor, spans: NumberSpans, counts: Counts) -> Tensor:
        present, sample, count = {
            "token": (labels != IGNORE, spans.sample, counts.tokens),
            "digit": (spans.is_digit, spans.sample, counts.digits),
            "number": (spans.is_number, spans.number_sample, counts.numbers),
        }[term.per]
        if self.reduction == "sample":
            return mean_per_sample(term.cost, present, sample, spans.samples).sum() / counts.samples
        total = torch.where(present, term.cost, 0).sum()
        return total / (counts.tokens if self.reduction == "token" else count)


class _DigitLogits(torch.autograd.Function):
    """The logits as they are, and the digits' among them, [N, base]; 0 where no digit is.

    Its gradient adds the digits' into that of cross-entropy, which is there anyway. An indexing of its own would make
    (and add) one more gradient of [N, V], a fifth of the whole step at a vocabulary of 150,000. Positions without a
    digit are blanked: whatever stands there (-inf too) must not reach a gradient as 0 * inf.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, is_digit: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids, is_digit)
        return logits.view_as(logits), torch.where(is_digit[:, None], logits.index_select(-1, ids), 0.0)

    @staticmethod
    def backward(ctx: Any, whole: Tensor, digits: Tensor) -> tuple[Tensor, None, None]:
        ids, is_digit = ctx.saved_tensors
        own = torch.where(is_digit[:, None], digits, 0.0)
        # In place: `whole` is fresh from cross-entropy's softmax. Not where the gradient is itself differentiated.
        if torch.is_grad_enabled() or not whole.is_contiguous():
            return whole.index_add(-1, ids, own), None, None
        return whole.index_add_(-1, ids, own), None, None


def mean_per_sample(value: Tensor, present: Tensor, sample: Tensor, samples: int) -> Tensor:
    """Mean of `value` where `present`, within each sample; a sample without any counts as 0 (the released rule)."""
    total = torch.zeros(max(samples, 1), dtype=value.dtype, device=value.device)
    total = total.index_add(0, sample, torch.where(present, value, 0))
    count = torch.zeros_like(total).index_add(0, sample, present.to(value.dtype))
    return total / count.clamp(min=1)


def _aligned(logits: Tensor, labels: Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    if logits.dim() not in (2, 3) or logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}")
    if shift and logits.dim() != 3:
        raise ValueError(f"shift=True needs logits [B, T, V], got {tuple(logits.shape)}")
    return (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)


def _count(given: Tensor | float | None, present: Tensor) -> Tensor | float:
    count = present.sum() if given is None else given
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
