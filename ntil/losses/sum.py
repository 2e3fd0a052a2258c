"""Losses added: one cross-entropy, and the number terms of every part."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from ntil.losses.base import NumberLoss
from ntil.losses.step import WHOLE_STEP, Counts, LossInputs, LossOutput, LossParts, StepInfo
from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import NumberVocab

Value = TypeVar("Value")
# Below this share of cross-entropy's gradient norm a part is balanced no further: there its gradient is rounding.
LEAST_SHARE = 1e-6
ANY_PART = ("needs_numbers", "needs_shapes", "uses_noise", "uses_embeddings")


class Sum(NumberLoss):
    """CE + sum over the parts of weight * factor * aux, where each part has its terms, its `reduction` and its factor.

    A part on boxes adds nothing where answers have none, so that one sum may serve tasks with and without.

    A factor is lam, or lam * (CE / aux).detach() of a part that rescales, as in the part alone. Cross-entropy is there
    once, however many parts there are. Components are `<part>/<term>`, `<part>/aux` and `<part>/factor`.

    `balance="grad_norm"` makes every factor lam * (|dCE/dz| / |daux/dz|).detach() instead, z the logits at all
    supervised positions of the step: each part's pull is lam * weight times that of cross-entropy, in any unit and
    however far the softmax has saturated (down to a millionth). It is GradNorm's aim (Chen et al., ICML 2018,
    arXiv 1711.02257), equal gradient norms by one scalar a task. Deviations: norms are on the logits, not on the last
    shared weights, so that they cost no backward through the model; and the scalar follows from the step alone instead
    of being trained beside the model, so there is nothing to resume and the cut into micro-batches changes nothing.

    Args:
        vocab: the digits.
        parts: losses by name. Their cross-entropy is not used.
        weights: of the parts by name; 1 where none is given.
        lam: of every part in place of its own; null: each its own.
        balance: `grad_norm`, see above; null: each part's own lam and rescaling.
        ce_weight, smoothing, replace_ce: of the one cross-entropy, see `NumberLoss`; null: as the parts have it, which
            then must agree.

    Raises:
        ValueError: parts that don't fit each other; the message names them and what to set.
    """

    has_terms: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        parts: dict[str, NumberLoss],
        weights: dict[str, float] | None = None,
        lam: float | None = None,
        balance: Literal["grad_norm"] | None = None,
        ce_weight: float | None = None,
        smoothing: float | None = None,
        replace_ce: bool | None = None,
    ) -> None:
        _check(vocab, parts, weights or {}, lam, balance)
        super().__init__(
            vocab,
            number_style=_agreed({n: p.number_style for n, p in parts.items() if not p.any_style} or {"": "decimal"}),
            ce_weight=_shared("ce_weight", ce_weight, {name: part.ce_weight for name, part in parts.items()}),
            smoothing=_shared("smoothing", smoothing, {name: part.smoothing for name, part in parts.items()}),
            replace_ce=_shared("replace_ce", replace_ce, {name: part.replace_ce for name, part in parts.items()}),
        )
        if self.replace_ce and (balance or any(part.needs_reference for part in parts.values())):
            raise ValueError(
                "parts that are rescaled or balanced take their factor from cross-entropy, from which replace_ce takes "
                "the digits: they would fade with the rest of the answer; set replace_ce=false"
            )
        # Sorted, so that the order in which they were named changes no sum.
        self.part_of = {name: parts[name] for name in sorted(parts)}
        self.registered = nn.ModuleDict(self.part_of)
        self.weights = {name: float((weights or {}).get(name, 1.0)) for name in self.part_of}
        self.scales = {name: 1.0 if lam is None else _scale(name, part, lam) for name, part in self.part_of.items()}
        self.balance = balance
        for flag in ANY_PART:
            setattr(self, flag, any(getattr(part, flag) for part in parts.values()))
        if self.smoothing and self.sees_mass:
            raise ValueError("mass off the digits is not computed beside label smoothing; leave one of them out")

    @property
    def sees_mass(self) -> bool:
        return any(part.sees_mass for part in self.part_of.values())

    def position_weights(self, spans: NumberSpans) -> dict[str, Tensor]:
        of_parts = {name: part.position_weights(spans) for name, part in self.part_of.items()}
        return {f"{name}/{key}": weight for name, weights in of_parts.items() for key, weight in weights.items()}

    def aux_terms(self, parts: LossParts) -> dict[str, Tensor]:
        return {f"{name}/aux": value for name, value in self._aux(parts).items()}

    @property
    def on_shapes_alone(self) -> bool:
        return all(part.on_shapes_alone for part in self.part_of.values())

    @property
    def needs_reference(self) -> bool:
        return self.balance is not None or any(part.needs_reference for part in self.part_of.values())

    def means(self, inputs: LossInputs, counts: Counts) -> dict[str, tuple[Tensor, float]]:
        """Mean and weight of every term of every part, as `<part>/<term>`."""
        of_parts = {name: part.means(inputs, counts) for name, part in self.part_of.items()}
        return {f"{name}/{term}": mean for name, means in of_parts.items() for term, mean in means.items()}

    def reference(
        self,
        parts: LossParts,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None = None,
        info: StepInfo = WHOLE_STEP,
    ) -> Tensor:
        """Cross-entropy and aux of every part, [1 + K], detached; under `balance` then their squared gradient norms.

        Norms are of the logits of all positions together, and each position is in one micro-batch, so that squares add
        up as the means do. Under `balance` it is float64, since squares overflow float32.
        """
        means = torch.stack([parts.ce, *self._aux(parts).values()]).detach()
        if self.balance is None:
            return means
        leaf = logits.detach().requires_grad_()
        with torch.enable_grad():
            again = self.parts(leaf, labels, spans, info)
            squares = [_squared_norm(part, leaf) for part in (again.ce, *self._aux(again).values())]
        return torch.cat((means.double(), torch.stack(squares)))

    def join(self, parts: LossParts, reference: Tensor | None = None) -> LossOutput:
        """The total and its components.

        Args:
            reference: of the whole step; the parts' own by default, which has no gradient norms.

        Raises:
            ValueError: no reference, and `balance` is on.
        """
        aux = self._aux(parts)
        factors = self._factors(torch.stack([parts.ce, *aux.values()]).detach() if reference is None else reference)
        total = self.ce_weight * parts.ce if self.ce_weight != 1 else parts.ce
        for name, value in aux.items():
            total = total + self.weights[name] * factors[name].to(value.dtype) * value
        means = {name: mean for name, (mean, _) in parts.terms.items()}
        components = {
            "ce": parts.ce,
            **means,
            **{f"{name}/aux": value for name, value in aux.items()},
            **{f"{name}/factor": value.to(parts.ce.dtype) for name, value in factors.items()},
        }
        return LossOutput(total, {name: value.detach() for name, value in components.items()})

    def weighted(self, parts: LossParts, reference: Tensor) -> dict[str, Tensor]:
        factors = self._factors(reference)
        summands = {"ce": self.ce_weight * parts.ce}
        for key, (mean, weight) in parts.terms.items():
            name = key.partition("/")[0]
            summands[key] = self.weights[name] * factors[name].to(mean.dtype) * weight * mean
        return summands

    def _aux(self, parts: LossParts) -> dict[str, Tensor]:
        """The weighted sum of each part's terms."""
        aux = {name: torch.zeros_like(parts.ce) for name in self.part_of}
        for key, (mean, weight) in parts.terms.items():
            name = key.partition("/")[0]
            aux[name] = aux[name] + weight * mean
        return aux

    def _factors(self, reference: Tensor) -> dict[str, Tensor]:
        count = len(self.part_of)
        if self.balance is None:
            return {
                name: self.scales[name] * part.factor(reference[0], aux)
                for (name, part), aux in zip(self.part_of.items(), reference[1:], strict=True)
            }
        if len(reference) != 2 * (1 + count):
            raise ValueError(
                "balance=grad_norm needs the gradient norms of the step: loss.join(parts, loss.reference(parts, "
                "logits, labels, spans, info))"
            )
        of_ce, *of_parts = reference[1 + count :].sqrt().unbind()
        return {
            name: torch.where(norm > 0, self.scales[name] * part.lam * of_ce / (norm + LEAST_SHARE * of_ce), 0.0)
            for (name, part), norm in zip(self.part_of.items(), of_parts, strict=True)
        }


def _squared_norm(part: Tensor, leaf: Tensor) -> Tensor:
    """Squared norm of the gradient of a part on the logits, float64."""
    if not part.requires_grad:
        return torch.zeros_like(part, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(part, leaf, retain_graph=True)
    return torch.linalg.vector_norm(gradient, dtype=torch.float64).square()


def _scale(name: str, part: NumberLoss, lam: float) -> float:
    """What makes the part's lam the given one."""
    if not part.lam:
        raise ValueError(f"{name} has lam={part.lam}, which the sum's lam={lam} can't scale; give it one above 0")
    return lam / part.lam


def _check(
    vocab: NumberVocab,
    parts: Mapping[str, NumberLoss],
    weights: Mapping[str, float],
    lam: float | None,
    balance: object,
) -> None:
    """Check parts by themselves: their names, classes, digits and weights."""
    if not parts:
        raise ValueError("a sum needs at least one part, as in loss.parts=[emd,value_emd]")
    if balance not in (None, "grad_norm"):
        raise ValueError(f"balance must be 'grad_norm' or null, got {balance!r}")
    for name, part in parts.items():
        if not re.fullmatch(r"\w+", name):
            raise ValueError(f"the part {name!r} of a sum needs a name of letters, digits and underscores")
        if isinstance(part, Sum):
            raise ValueError(f"the part {name!r} is a sum itself; name its parts instead")
        if not part.has_terms:
            raise ValueError(f"{name} has no terms to add: cross-entropy is in a sum anyway; leave it out")
        if part.reads_numbers:
            raise ValueError(f"{name} is no loss on tokens: its answers are read, not generated; it can't be a part")
        if part.vocab is not None and part.vocab.digit_ids != vocab.digit_ids:
            raise ValueError(f"the part {name!r} has other digits than the sum; give both one NumberVocab")
    if lam is not None and not lam >= 0:
        raise ValueError(f"lam must be >= 0, or null for each part's own; got {lam}")
    for name, weight in weights.items():
        if name not in parts or not weight >= 0:
            raise ValueError(f"weights must be >= 0, each of one of {', '.join(parts)}; got {name}: {weight}")
    if not any(weights.get(name, 1.0) for name in parts):
        raise ValueError("all parts have the weight 0, which leaves cross-entropy alone; give one a weight above 0")


def _shared(key: str, value: Value | None, of_parts: Mapping[str, Value]) -> Value:
    """The setting of the one cross-entropy: as it was set, or as all parts have it."""
    if value is not None:
        return value
    (first, usual), *others = of_parts.items()
    for name, other in others:
        if other != usual:
            raise ValueError(
                f"{first} has {key}={usual} and {name} {key}={other}, and a sum has one cross-entropy; "
                f"say which with loss.{key}=..."
            )
    return usual


def _agreed(styles: Mapping[str, Value]) -> Value:
    (first, usual), *others = styles.items()
    for name, other in others:
        if other != usual:
            raise ValueError(
                f"{first} reads numbers as {usual!r} and {name} as {other!r}, and a sum reads them once; give both one "
                f"style, as in loss.options.{first}.number_style={other}"
            )
    return usual
