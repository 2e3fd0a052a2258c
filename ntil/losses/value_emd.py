"""Exact value-level Earth Mover's Distance, this project's own loss."""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from ntil.losses.base import NumberLoss, Reduction
from ntil.losses.costs import expected_distance
from ntil.losses.mass import MassOptions
from ntil.losses.step import LossInputs, Term
from ntil.losses.values import expected_value_distance, largest_values, slowed
from ntil.numbers.spans import NumberSpans, NumberStyle
from ntil.numbers.vocab import NumberVocab

# Costs above it grow as their logarithm does (float32 ends at 3.4e38).
LARGEST = 1e30
USUAL_EPS = 1.0


class ValueEMD(NumberLoss):
    """CE + lam * mean over numbers of a function of E|X-Y|, exact: no sampling, no temperature, no saturation.

    X is the number whose digits are drawn from the digit softmaxes (independent given the true ones before them, as
    under teacher forcing), so E|X-Y| is the Wasserstein-1 distance between the predicted distribution over the numbers
    of that length and the true number. See `expected_value_distance` for the closed form. Signs and lengths are left
    to CE.

    Forms, with u the place value of the number's last digit (1 for integers):
        absolute: E|X-Y|. In the numbers' own unit: the first digit of 877 weighs a hundred times its last. Above 1e30
            it grows as its logarithm does (`slowed`), so that float32 holds it.
        relative: E|X-Y| / (Y + eps u), the expected counterpart of the paper's L_relative.
        log: log(1 + E|X-Y| / (eps u)), for numbers of any size: an error of 1 in the last place counts about 0.7, one
            of 1000 about 7.

    Args:
        vocab: the digits.
        form: `absolute`, `relative` or `log`.
        lam: weight of the term.
        eps: see the forms; of `relative` and `log` only.
        digit_weight: adds that much of the token EMD, sum_k p_k |k-y|.
        rescale: multiply lam with (CE / aux).detach(), as the released NTIL does.
        number_style, reduction, mass, mass_weight: see `NumberLoss`. Under `mass=largest` an unreadable number is off
            by the largest of that length, 999 for three digits: the expectation over readable and unreadable numbers.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        form: Literal["absolute", "relative", "log"] = "absolute",
        lam: float = 0.3,
        eps: float = USUAL_EPS,
        digit_weight: float = 0.0,
        rescale: bool = False,
        number_style: NumberStyle = "decimal",
        reduction: Reduction = "sample",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, rescale=rescale, reduction=reduction, number_style=number_style, **mass)
        if form not in ("absolute", "relative", "log"):
            raise ValueError(f"form must be 'absolute', 'relative' or 'log', got {form!r}")
        if eps <= 0 or digit_weight < 0:
            raise ValueError(f"need eps > 0 and digit_weight >= 0, got {eps} and {digit_weight}")
        if form == "absolute" and eps != USUAL_EPS:
            raise ValueError(f"eps={eps} does nothing with form=absolute; leave one of them out")
        self.form, self.eps, self.digit_weight = form, eps, digit_weight

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        spans = inputs.spans
        cost = self._cost(expected_value_distance(inputs.digit_logits, spans), spans)
        terms = {"value": Term(cost, "number", largest=self._cost(largest_values(spans), spans))}
        if self.digit_weight > 0:
            digit = expected_distance(inputs.digit_logits, spans.digit)
            terms["digit"] = Term(digit, "digit", self.digit_weight, spans.base - 1)
        return terms

    def _cost(self, distance: Tensor, spans: NumberSpans) -> Tensor:
        """The cost of distances [M] in the loss's form."""
        if self.form == "relative":
            distance = distance / (spans.value.abs() + self.eps * spans.unit)
        elif self.form == "log":
            distance = torch.log1p(distance / (self.eps * spans.unit))
        return slowed(distance, LARGEST)
