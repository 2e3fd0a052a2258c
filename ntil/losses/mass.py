"""Probability mass off the number tokens, and what the terms of a digit loss make of it.

A term over digits sees p, the softmax over the digits alone: mass that leaves the digits for a comma or a letter costs
it nothing, and only cross-entropy holds the mass where it is. With m the mass of all digits under the softmax over the
whole vocabulary, `mass=` is one of

    largest: m * cost + mass_weight * (1 - m) * largest cost. For a cost that is linear in p, sum_k p_k |k - y|, this is
        the expectation under the whole softmax, every other token as far away as the farthest digit. With mass_weight
        1.01 it is `reweigh=True` of PyPI `ntloss` (`AbstractNTLoss.reweigh_fn` of 0.3.2).
    gate: one more term, mass_weight * mean over digits of -log m, the gate of CoordExp
        (github.com/Pein2017/CoordExp, `coord_vocab_gate_loss`; its clamps of logits and gate are left out). KL(q, p)
        with the gate is KL(q, softmax over the whole vocabulary), so this is the extension of costs without a largest.

The m of a number is the product over its digits, that of a shape the product over its numbers: as everywhere here,
digits are independent given the true ones before them.
"""

from __future__ import annotations

from typing import Literal, TypedDict

import torch
from torch import Tensor

from ntil.numbers.spans import NumberSpans

MassUse = Literal["largest", "gate"]
Largest = Tensor | float


class MassOptions(TypedDict, total=False):
    """Options that every loss over digits has: `**mass: Unpack[MassOptions]`, given on to `NumberLoss`.

    mass: see this module; null: mass off the digits costs nothing. mass_weight: null is 1.
    """

    mass: MassUse | None
    mass_weight: float | None


def digit_log_mass(token_costs: Tensor, digit_logits: Tensor, spans: NumberSpans) -> Tensor:
    """Log of the probability of all digits together under the whole softmax, [N]; 0 where no digit is.

    It is log p(y) - log p(y | digits). Cross-entropy has the first already: a second log-sum-exp over the vocabulary,
    with its gradient of [N, V], would cost more than cross-entropy does.

    Args:
        token_costs: [N], cross-entropy of every position.
    """
    true = digit_logits.gather(1, spans.digit.clamp(min=0)[:, None])
    return torch.where(spans.is_digit, (digit_logits - true).logsumexp(-1) - token_costs, 0.0)


def number_log_mass(log_mass: Tensor, spans: NumberSpans) -> Tensor:
    """Sum over the digits of each number, [M] float64; 0 for unused slots."""
    return torch.zeros_like(spans.value).index_add(0, spans.number, log_mass.double())


def with_mass(cost: Tensor, largest: Largest, log_mass: Tensor, weight: float) -> Tensor:
    """Cost m * cost + weight * (1 - m) * largest."""
    log_mass = log_mass.to(cost.dtype)
    return log_mass.exp() * cost - weight * log_mass.expm1() * largest
