"""Number Token Loss (ICML 2025, arXiv 2411.02083), by the paper and as its package `ntloss` computes it."""

from __future__ import annotations

from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor

from ntil.losses import costs
from ntil.losses.base import NumberLoss, Reduction
from ntil.losses.mass import MassOptions
from ntil.losses.step import LossInputs, Term
from ntil.losses.values import expected_values
from ntil.numbers.spans import NumberSpans, NumberStyle
from ntil.numbers.vocab import NumberVocab


class NTL(NumberLoss):
    """Number Token Loss: CE + lam * mean over digits of the cost.

    `was` is sum_k p_k |k - y|, `mse` is (y - sum_k p_k k)^2. Equal to PyPI `ntloss` 0.3.2: `NTLoss`, `NTLossDotProduct`
    with `reweigh=False` (the paper's definition); with `mass=largest mass_weight=1.01` they are what users of the
    package get by default (`reweigh=True`). Deviation: digits only, where the package calls -1..9 numbers, which is the
    same for every tokenizer whose tokens are single characters there.

    Args:
        vocab: the digits.
        cost: `was` or `mse`.
        lam: weight of the cost.
        squash: the package's `squash_factor`, of `was` only: how many times farther than the nearest wrong digit the
            farthest is. A wrong digit costs 1 + (|k - y| - 1) (squash - 1) / (base - 2); near 1 all cost the same.
            Null: |k - y|, so 9 times for ten digits.
        reduction, mass, mass_weight: see `NumberLoss`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    any_style: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        cost: Literal["was", "mse"] = "was",
        lam: float = 0.3,
        squash: float | None = None,
        reduction: Reduction = "batch",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, reduction=reduction, **mass)
        if cost not in ("was", "mse"):
            raise ValueError(f"cost must be 'was' or 'mse', got {cost!r}")
        if squash is not None and (cost != "was" or squash <= 1 or vocab.base < 3):
            raise ValueError(f"squash={squash} must be > 1, with cost=was and three digits or more")
        self.cost, self.squash = cost, squash

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        digit_logits, digit = inputs.digit_logits, inputs.spans.digit
        farthest = digit_logits.shape[-1] - 1
        if self.cost == "mse":
            return {"digit": Term(costs.squared_error(digit_logits, digit), "digit", largest=farthest**2)}
        if self.squash is not None:
            cost = costs.squashed_distance(digit_logits, digit, self.squash)
            return {"digit": Term(cost, "digit", largest=self.squash)}
        return {"digit": Term(costs.expected_distance(digit_logits, digit), "digit", largest=farthest)}


class NTLNumber(NumberLoss):
    """Number-level NTL: CE + lam * mean over numbers of |X - Y| / (|X| + |Y| + eps), X the mean digits put together.

    Equal to `NumberLevelLoss` of PyPI `ntloss` 0.3.2, with `mass=null` to its `reweigh=False`, with `mass=largest
    mass_weight=1.01` to its default, where m is that of the number's first digit and the largest cost 1. Like the
    package, 3.5 is compared as 35: the cost is free of the unit. Deviations: values are float64; digits beyond the
    twentieth have their place value (the package's stays at 1e19); of `1.2.3` the package makes one number with
    `float_level=True`, here it is 1.2 and 3, as everywhere.

    Args:
        vocab: the digits.
        lam: weight of the cost.
        number_style: `released` is the package's `float_level=False` (3 and 5), `decimal` its `float_level=True`.
        reduction, mass, mass_weight: see `NumberLoss`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    eps: ClassVar[float] = torch.finfo(torch.float32).eps

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 0.3,
        number_style: NumberStyle = "released",
        reduction: Reduction = "batch",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, reduction=reduction, number_style=number_style, **mass)

    def number_log_mass(self, log_mass: Tensor, spans: NumberSpans) -> Tensor:
        return super().number_log_mass(torch.where(spans.place == 0, log_mass, 0.0), spans)

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        spans = inputs.spans
        predicted, true = expected_values(inputs.digit_logits, spans) / spans.unit, spans.value.abs() / spans.unit
        cost = (predicted - true).abs() / (predicted + true + self.eps)
        return {"number": Term(cost, "number", largest=1.0)}
