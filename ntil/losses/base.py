"""Base class of all losses: cross-entropy joined with per-token, per-digit and per-number terms.

    total = ce_weight * CE + factor * aux        aux = sum of weight * term over the terms of the subclass

`factor` is lam, or lam * (CE / aux).detach() where a paper rescales its term to the size of cross-entropy.

A loss keeps no state between calls. `parts` is a function of logits, labels and the `StepInfo` of the step that a batch
is part of; `join` makes the total of them, for which a rescaled loss needs CE and aux of the whole step.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntil.losses.digit_logits import DigitLogits
from ntil.losses.mass import MassUse, digit_log_mass, number_log_mass, with_mass
from ntil.losses.reduction import at_least_one, mean_per_sample
from ntil.losses.step import IGNORE, WHOLE_STEP, Counts, LossInputs, LossOutput, LossParts, StepInfo, Term
from ntil.numbers.spans import STYLES, NumberSpans, NumberStyle
from ntil.numbers.vocab import NumberVocab

Reduction = Literal["sample", "batch", "token"]
REDUCTIONS = ("sample", "batch", "token")


class NumberLoss(nn.Module):
    """Cross-entropy on every supervised token, plus the terms of a subclass (none here: plain cross-entropy).

    Maths is float32 whatever the logits' type (float64 stays float64), values of numbers are float64.

    Args:
        vocab: which ids are digits; None only for losses without number terms.
        lam: weight of `aux`.
        rescale: multiply lam with (CE / aux).detach().
        reduction: of the terms. `sample`: the mean of each sample, then the mean over samples, a sample without numbers
            counting as 0 (the NTIL paper's code; a number weighs less in a sample with many). `batch`: the mean over
            all digits, numbers or boxes (ntloss). `token`: their sum over the count of supervised tokens (a cost that
            replaces cross-entropy on some tokens).
        ce_weight: weight of cross-entropy.
        smoothing: label smoothing of cross-entropy.
        number_style: how digits group to numbers, see `NumberSpans.find`.
        replace_ce: leave digits out of cross-entropy.
        mass, mass_weight: what mass off the digits costs, see `ntil.losses.mass`.

    Attributes:
        has_terms: there are terms besides cross-entropy. needs_numbers: they depend on numbers, so a run whose answers
            have none is an error. needs_shapes: likewise for boxes, which `spans` must name. trains: there is a
            training (`Untrained` has none). weighs_places: digits weigh by their place. uses_noise, uses_embeddings:
            the terms use these parts of `StepInfo`. uses_mass: they use `LossInputs.log_mass` by themselves. mass_uses:
            what `mass` may be. any_style: how digits group to numbers changes no term. reads_numbers: answers are read
            from the logits at the ends of prompts by `read`, not generated.
    """

    has_terms: ClassVar[bool] = False
    needs_numbers: ClassVar[bool] = False
    needs_shapes: ClassVar[bool] = False
    trains: ClassVar[bool] = True
    weighs_places: ClassVar[bool] = False
    uses_noise: ClassVar[bool] = False
    uses_embeddings: ClassVar[bool] = False
    uses_mass: ClassVar[bool] = False
    mass_uses: ClassVar[tuple[MassUse, ...]] = get_args(MassUse)
    any_style: ClassVar[bool] = False
    reads_numbers: ClassVar[bool] = False
    digit_ids: Tensor

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "terms" in vars(cls) and not cls.has_terms:
            raise TypeError(f"{cls.__name__} defines terms(), so it needs `has_terms = True` (and `needs_numbers`)")

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
        replace_ce: bool = False,
        mass: MassUse | None = None,
        mass_weight: float | None = None,
    ) -> None:
        super().__init__()
        if not (lam >= 0 and ce_weight >= 0 and 0 <= smoothing < 1):
            raise ValueError(f"need lam >= 0, ce_weight >= 0, 0 <= smoothing < 1; got {lam}, {ce_weight}, {smoothing}")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}; got {reduction!r}")
        if number_style not in STYLES:
            raise ValueError(f"number style must be one of {', '.join(STYLES)}; got {number_style!r}")
        if mass is not None and mass not in self.mass_uses:
            raise ValueError(f"{type(self).__name__}: mass must be {' or '.join(self.mass_uses)}, got {mass!r}")
        if mass_weight is not None and (mass is None or not mass_weight >= 0):
            raise ValueError(f"mass_weight={mass_weight} needs a `mass`, and must be >= 0")
        if smoothing and (mass is not None or self.uses_mass):
            raise ValueError("mass off the digits is not computed beside label smoothing; leave one of them out")
        if rescale and replace_ce:
            raise ValueError(
                "rescale takes its factor from cross-entropy, from which replace_ce takes the digits: the number terms "
                "would fade with the rest of the answer; leave one of them out"
            )
        self.vocab, self.number_style, self.replace_ce = vocab, number_style, replace_ce
        self.mass, self.mass_weight = mass, 1.0 if mass_weight is None else mass_weight
        self.lam, self.rescale, self.reduction = lam, rescale, reduction
        self.ce_weight, self.smoothing = ce_weight, smoothing
        digit_ids = torch.tensor(vocab.digit_ids if vocab else [], dtype=torch.long)
        self.register_buffer("digit_ids", digit_ids, persistent=False)

    @property
    def sees_mass(self) -> bool:
        """Whether terms need `LossInputs.log_mass`."""
        return self.mass is not None or self.uses_mass

    @property
    def needs_reference(self) -> bool:
        """Whether factors come from means of the whole step, see `reference`."""
        return self.rescale

    def read(self, logits: Tensor) -> Tensor:
        """Numbers [B, K] of answers that are read (`reads_numbers`), from the logits [B, V] at the ends of prompts."""
        raise NotImplementedError(f"{type(self).__name__} has its answers generated")

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        """Named terms of this loss; those switched off have weight 0 and are still logged."""
        return {}

    def position_weight(self, spans: NumberSpans) -> Tensor:
        """Weight of a digit by its place, [N] float32."""
        return torch.ones_like(spans.digit, dtype=torch.float32)

    def position_weights(self, spans: NumberSpans) -> dict[str, Tensor]:
        """`position_weight` as `weight`, of a sum as `<part>/weight`; empty where digits don't weigh by their place."""
        return {"weight": self.position_weight(spans)} if self.weighs_places else {}

    def token_loss(self, logits: Tensor, labels: Tensor, spans: NumberSpans | None) -> Tensor:
        """Summed cross-entropy over the supervised positions."""
        if self.replace_ce and spans is not None:
            labels = torch.where(spans.is_digit, IGNORE, labels)
        return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum", label_smoothing=self.smoothing)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None = None,
        info: StepInfo = WHOLE_STEP,
        *,
        shift: bool = False,
    ) -> LossOutput:
        """Total loss of a batch, and its components.

        Args:
            logits: [B, T, V], or [N, V] at already selected positions.
            labels: [B, T] or [N], aligned with `logits` (no shift inside); -100 is ignored.
            spans: numbers of the positions; found from `labels` when not given (then [N] is taken as one sample).
            info: of the step that the batch is part of.
            shift: the Hugging Face convention, position t predicts label t + 1; needs [B, T, V].

        Raises:
            ValueError: shapes that do not fit.
        """
        logits, labels = _aligned(logits, labels, shift)
        parts = self.parts(logits, labels, spans, info)
        reference = info.reference
        if reference is None and self.needs_reference:
            reference = self.reference(parts, logits, labels, spans, info)
        return self.join(parts, reference)

    def parts(
        self, logits: Tensor, labels: Tensor, spans: NumberSpans | None = None, info: StepInfo = WHOLE_STEP
    ) -> LossParts:
        """Mean cross-entropy, and mean and weight of every term. Arguments as of `forward`, aligned.

        With the counts of a step in `info`, the parts of its micro-batches add up to those of the step.

        Raises:
            ValueError: shapes that do not fit.
        """
        _aligned(logits, labels, shift=False)
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
            return self._full_precision_parts(logits, labels, spans, info)

    def _full_precision_parts(
        self, logits: Tensor, labels: Tensor, spans: NumberSpans | None, info: StepInfo
    ) -> LossParts:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        tokens = at_least_one(info.tokens, labels != IGNORE)
        if spans is None or not self.has_terms:
            return LossParts(self.token_loss(logits, labels, spans) / tokens, {})
        logits, digit_logits = DigitLogits.apply(logits, self.digit_ids, spans.is_digit)
        log_mass = None
        if self.sees_mass:
            costs = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="none")
            log_mass = digit_log_mass(costs, digit_logits, spans)
            ce = (costs.masked_fill(spans.is_digit, 0) if self.replace_ce else costs).sum() / tokens
        else:
            ce = self.token_loss(logits, labels, spans) / tokens
        counts = Counts(
            tokens,
            at_least_one(info.samples, spans.samples),
            at_least_one(info.digits, spans.is_digit),
            at_least_one(info.numbers, spans.is_number),
            at_least_one(info.shapes, spans.shape[:, 0] >= 0),
        )
        means = self.means(LossInputs(logits, labels, digit_logits, spans, info, log_mass), counts)
        return LossParts(ce, {name: (mean.to(ce.dtype), weight) for name, (mean, weight) in means.items()})

    def means(self, inputs: LossInputs, counts: Counts) -> dict[str, tuple[Tensor, float]]:
        """Mean and weight of every term."""
        terms = self.costs(inputs)
        return {n: (self._reduce(t, inputs.labels, inputs.spans, counts), t.weight) for n, t in terms.items()}

    def number_log_mass(self, log_mass: Tensor, spans: NumberSpans) -> Tensor:
        """Log of the mass m of each number, [M], from those of the digits, [N]."""
        return number_log_mass(log_mass, spans)

    def costs(self, inputs: LossInputs) -> dict[str, Term]:
        """The terms, mass off the digits included."""
        terms = self.terms(inputs)
        log_mass = inputs.log_mass
        if self.mass is None or log_mass is None:
            return terms
        if self.mass == "gate":
            return {**terms, "gate": Term(-log_mass, "digit", self.mass_weight)}
        return {name: self._term_with_mass(term, log_mass, inputs.spans) for name, term in terms.items()}

    def _term_with_mass(self, term: Term, log_mass: Tensor, spans: NumberSpans) -> Term:
        if term.largest is None:
            raise ValueError(f"{type(self).__name__} has a term without a largest cost, so mass must not be 'largest'")
        if term.per != "digit":
            log_mass = self.number_log_mass(log_mass, spans)
        if term.per == "shape":
            log_mass = log_mass[spans.shape].sum(-1)
        return term._replace(cost=with_mass(term.cost, term.largest, log_mass, self.mass_weight))

    def reference(
        self,
        parts: LossParts,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None = None,
        info: StepInfo = WHOLE_STEP,
    ) -> Tensor:
        """What the factors of a step come from: [2], CE and aux, detached. Those of a step's parts add up to its own.

        Args:
            parts: of the other arguments, which are as of `parts`.
        """
        return torch.stack((parts.ce.detach(), parts.aux.detach()))

    def join(self, parts: LossParts, reference: Tensor | None = None) -> LossOutput:
        """The total and its components.

        Args:
            reference: of the whole step, from which a rescaled loss takes its factor; the parts' own by default.
        """
        if not parts.terms:
            return LossOutput(parts.ce, {"ce": parts.ce.detach()})
        aux = parts.aux
        factor = self.factor(parts.ce.detach(), aux.detach()) if reference is None else self.factor(*reference)
        total = (self.ce_weight * parts.ce if self.ce_weight != 1 else parts.ce) + factor * aux
        means = {name: mean for name, (mean, _) in parts.terms.items()}
        components = {"ce": parts.ce, **means, "aux": aux, "factor": factor}
        return LossOutput(total, {name: value.detach() for name, value in components.items()})

    def aux_terms(self, parts: LossParts) -> dict[str, Tensor]:
        """The weighted sum of the terms as `aux`, of a sum as `<part>/aux`; empty of a loss without terms."""
        return {"aux": parts.aux} if parts.terms else {}

    @property
    def on_shapes_alone(self) -> bool:
        """Whether it is plain cross-entropy where answers have no boxes."""
        return self.needs_shapes

    def factor(self, ce: Tensor, aux: Tensor) -> Tensor:
        """Factor of aux, from detached CE and aux: lam, or under `rescale` lam * CE / aux (0 where aux is 0)."""
        if not self.rescale:
            return torch.full_like(ce, self.lam)
        return torch.where(aux > 0, self.lam * ce / (aux + 1e-10), 0.0)

    def weighted(self, parts: LossParts, reference: Tensor) -> dict[str, Tensor]:
        """The summands of the total by name: weighted cross-entropy, and every term times its weight and factor."""
        factor = self.factor(*reference)
        terms = {name: factor * weight * mean for name, (mean, weight) in parts.terms.items()}
        return {"ce": self.ce_weight * parts.ce, **terms}

    def gradient_norms(
        self,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None = None,
        info: StepInfo = WHOLE_STEP,
        reference: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Norm of the gradient on the logits of every weighted part of the total, detached.

        Costs one backward through the loss (not the model) per part. Arguments as of `parts` and `join`.
        """
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            parts = self.parts(leaf, labels, spans, info)
            if reference is None:
                reference = self.reference(parts, leaf, labels, spans, info)
            return {name: gradient_norm(part, leaf) for name, part in self.weighted(parts, reference).items()}

    @torch.no_grad()
    def step_info(self, micro_batches: Iterable[Tensor], *, shift: bool = False, draw: int = 0) -> StepInfo:
        """The counts over all label tensors, [B, T] or [N] of one sample, of an optimizer step.

        They go to `loss(logits, labels, info=info)`.

        With them the losses (and gradients) of the micro-batches add up to those of the whole batch, each divided once
        by the whole. Sum the counts over ranks too, where gradients are summed over ranks. They are not enough for a
        rescaled loss, which also needs CE and aux of the step, see `join`, nor for one with noise (`uses_noise`), whose
        micro-batches need their places in the step, `StepInfo.first_token` and `step_tokens`.
        """
        total: Tensor | None = None
        for labels in micro_batches:
            labels = labels[..., 1:] if shift else labels
            spans = self._find(labels) if self.has_terms else None
            none, samples = labels.new_zeros(()), 1 if labels.dim() == 1 else len(labels)
            digits_and_numbers = (none, none) if spans is None else (spans.is_digit.sum(), spans.is_number.sum())
            counts = torch.stack(((labels != IGNORE).sum(), none + samples, *digits_and_numbers))
            total = counts if total is None else total + counts
        if total is None:
            raise ValueError("no micro-batch to count")
        tokens, count, digits, numbers = total
        return StepInfo(tokens, count, digits, numbers, draw)

    def _find(self, labels: Tensor) -> NumberSpans:
        if self.vocab is None:
            raise ValueError(f"{type(self).__name__} needs to know the digits: give it a NumberVocab")
        if self.needs_shapes:
            raise ValueError(
                f"{type(self).__name__} is on boxes, which labels alone don't show: give it spans with shapes "
                "(ntil.numbers.shapes.with_shapes), and the count of a step's boxes as StepInfo.shapes"
            )
        return NumberSpans.find(labels, self.vocab, self.number_style)

    def _reduce(self, term: Term, labels: Tensor, spans: NumberSpans, counts: Counts) -> Tensor:
        present, sample, count = {
            "token": (labels != IGNORE, spans.sample, counts.tokens),
            "digit": (spans.is_digit, spans.sample, counts.digits),
            "number": (spans.is_number, spans.number_sample, counts.numbers),
            "shape": (spans.shape[:, 0] >= 0, spans.shape_sample, counts.shapes),
        }[term.per]
        if self.reduction == "sample":
            return mean_per_sample(term.cost, present, sample, spans.samples).sum() / counts.samples
        total = torch.where(present, term.cost, 0).sum()
        return total / (counts.tokens if self.reduction == "token" else count)


def check_weights(**weights: float) -> None:
    """Check the weights of a loss's terms.

    Raises:
        ValueError: one is below 0, so that what is wrong would be rewarded, or all are 0, so that there are no terms.
    """
    if not all(weight >= 0 for weight in weights.values()) or not any(weights.values()):
        *others, last = (f"{name}={weight}" for name, weight in weights.items())
        raise ValueError(f"{', '.join(others)} and {last} must be >= 0, and one of them above 0")


def gradient_norm(part: Tensor, leaf: Tensor) -> Tensor:
    """Norm of the gradient of a part of a loss on the logits, detached; the graph stays."""
    if not part.requires_grad:
        return torch.zeros_like(part)
    gradient = torch.autograd.grad(part, leaf, retain_graph=True, allow_unused=True)[0]
    return torch.zeros_like(part) if gradient is None else gradient.float().norm()


def _aligned(logits: Tensor, labels: Tensor, shift: bool) -> tuple[Tensor, Tensor]:
    if logits.dim() not in (2, 3) or logits.shape[:-1] != labels.shape:
        raise ValueError(f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}")
    if shift and logits.dim() != 3:
        raise ValueError(f"shift=True needs logits [B, T, V], got {tuple(logits.shape)}")
    return (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
