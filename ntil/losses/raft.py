"""Regression-aware fine-tuning: the squared error of the mean number."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch

from ntil.losses.base import NumberLoss, Reduction
from ntil.losses.mass import number_log_mass
from ntil.losses.step import LossInputs, Term
from ntil.losses.value_emd import LARGEST
from ntil.losses.values import expected_values, largest_values
from ntil.numbers.spans import NumberStyle
from ntil.numbers.vocab import NumberVocab

LARGEST_ERROR = LARGEST**0.5


class RAFT(NumberLoss):
    """CE off the numbers + lam * mean over numbers of (Y - sum over a grid of p(k) k)^2.

    p is the softmax over the whole vocabulary, so the grid's probabilities need not add up to one, and mass off the
    numbers pulls the sum to 0. The mean is the Bayes-optimal answer under squared error (arXiv 2403.04182, RAIL); RAFT
    trains what that rule reads (Lukasik et al., ICLR 2025); TRACT (arXiv 2503.04381) adds cross-entropy on the tokens
    before the number, as here, with the sum of both (lam 1); REAL (arXiv 2603.17145) has it within reinforcement
    learning. The term is that of TRACT's code on its scores of one token 1..5 (`compute_raft_loss_with_pairwise`),
    which divides its mean by the count of sequences once more.

    Numbers of several digits are this project's extension, since the authors' grids are of one token: the grid is all
    numbers of that length, p(k) the product of its digits' probabilities given the true ones before them. The sum over
    that grid has a closed form, m E[X], with m the product of the masses on digits and E[X] that of `expected_values`,
    whose bias it shares. It is not proper: 4 or 6 with probability 1/2 each is as good as 5. Read such a model by its
    mean. Signs and lengths are left to CE. Errors above 1e15, of numbers of 16 digits and more, cost
    1e30 (1 + 2 log(error / 1e15)), so that float32 holds value and gradient.

    Args:
        vocab: the digits.
        form: `absolute`, in the numbers' own unit, as published; `range`: the error in parts of the largest number of
            that length, 999 for three digits (ours: of coordinates the published one is up to a million).
        lam: weight of the term.
        replace_ce: false keeps cross-entropy on digits too.
        number_style, reduction: see `NumberLoss`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    uses_mass: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        form: Literal["absolute", "range"] = "absolute",
        lam: float = 1.0,
        replace_ce: bool = True,
        number_style: NumberStyle = "decimal",
        reduction: Reduction = "batch",
    ) -> None:
        super().__init__(vocab, lam=lam, reduction=reduction, number_style=number_style, replace_ce=replace_ce)
        if form not in ("absolute", "range"):
            raise ValueError(f"form must be 'absolute' or 'range', got {form!r}")
        self.form = form

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        spans = inputs.spans
        assert inputs.log_mass is not None
        mass = number_log_mass(inputs.log_mass, spans).exp()
        error = mass * expected_values(inputs.digit_logits, spans) - spans.value.abs()
        if self.form == "range":
            error = error / torch.maximum(largest_values(spans), spans.unit)
        size = error.abs()
        # The square is of the part that float32 can hold: that of a number of 200 digits overflows float64 too.
        beyond = 2 * LARGEST * (size / LARGEST_ERROR).clamp(min=1).log()
        return {"squared": Term(size.clamp(max=LARGEST_ERROR).square() + beyond, "number")}
