"""Value terms: distances between the number predicted by digit logits and the true one. All are [M] float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ntil.numbers.spans import NumberSpans

Combine = Callable[[Tensor, Tensor], Tensor]


def straight_through_values(
    digit_logits: Tensor, spans: NumberSpans, temperature: float, noise: Tensor | None
) -> Tensor:
    """Absolute values of the numbers as predicted: argmax digits forward, softmax(logits / temperature) backward.

    `noise` is added to the logits first (the Gumbel-softmax relaxation of arXiv 2505.13077). The forward value is
    exact, as it is in the released code: its one-hot hard - soft + soft is exactly one or zero for every float32.
    """
    logits = digit_logits if noise is None else digit_logits + noise
    soft = torch.softmax(logits / temperature, dim=-1)
    values = torch.arange(soft.shape[-1], device=soft.device, dtype=torch.float64)
    mean = (soft.double() * values).sum(-1)
    digits = soft.argmax(-1).double() + (mean - mean.detach())
    return torch.zeros_like(spans.value).index_add(0, spans.number, digits * spans.scale)


def expected_values(digit_logits: Tensor, spans: NumberSpans) -> Tensor:
    """Mean E[X] of the absolute value of numbers whose digits are drawn independently from the softmax of their logits.

    For numbers of one token it is the model's mean over numbers. Of more digits it is biased: what would follow a wrong
    digit is not known under teacher forcing, and is taken to be what follows the right one. If the model wavers between
    499 and 500 and the truth is 499, its mean is 499.5, and this one 549 (4 or 5, then 9, 9).
    """
    p = torch.softmax(digit_logits.double(), -1)
    mean = (p * torch.arange(p.shape[-1], device=p.device, dtype=p.dtype)).sum(-1)
    return torch.zeros_like(spans.value).index_add(0, spans.number, mean * spans.scale)


def largest_values(spans: NumberSpans) -> Tensor:
    """The largest number of as many digits as each has, 99.9 for 12.5; 0 for unused slots."""
    return torch.zeros_like(spans.value).index_add(0, spans.number, (spans.base - 1) * spans.scale)


def slowed(cost: Tensor, largest: float) -> Tensor:
    """The cost up to `largest`, and largest * (1 + log(cost / largest)) beyond it, with the same slope there.

    So float32, which ends at 3.4e38, holds the costs of numbers of any length, and none is without a gradient.
    """
    return cost.clamp(max=largest) + largest * (cost / largest).clamp(min=1).log()


def relative_deviation(predicted: Tensor, true: Tensor, eps: Tensor | float = 1.0) -> Tensor:
    """Relative deviation |X - Y| / (max(X, Y) + eps); the released code has eps = 1."""
    return (predicted - true).abs() / (torch.maximum(predicted, true) + eps)


def magnitude_deviation(predicted: Tensor, true: Tensor, eps: Tensor | float = 1.0) -> Tensor:
    """Log ratio log((max(X, Y) + eps) / (min(X, Y) + eps)); eps keeps zero finite, 1 as in the released code."""
    return torch.log((torch.maximum(predicted, true) + eps) / (torch.minimum(predicted, true) + eps))


def expected_value_distance(digit_logits: Tensor, spans: NumberSpans) -> Tensor:
    """Exact E|X - Y| for numbers X whose digits are drawn independently from the softmax of their logits.

    X > Y or X < Y is decided by the first digit i that differs from Y's: up to it X's digits are Y's, after it they are
    free, so with s_i the place value, sum over i of

        prod_{j<i} p_j(y_j) * sum_{k != y_i} p_i(k) * sign(k - y_i) * ((k - y_i) * s_i + E[X_{>i}] - Y_{>i})

    The product over the digits left of i and the sum over those right of it are scans within each number.
    """
    p = torch.softmax(digit_logits.double(), -1)
    offsets = torch.arange(p.shape[-1], device=p.device, dtype=p.dtype) - spans.digit[:, None].double()
    right = (p * (offsets == 0)).sum(-1)
    tail = _exclusive_scan(((p * offsets).sum(-1) * spans.scale).flip(0), spans.number.flip(0), torch.add, 0.0).flip(0)
    head = _exclusive_scan(torch.where(spans.is_digit, right, 1.0), spans.number, torch.mul, 1.0)
    # sum_k p_k |k-y| s + (P(k > y) - P(k < y)) * tail
    decided = (p * offsets.abs()).sum(-1) * spans.scale + (p * offsets.sign()).sum(-1) * tail
    cost = torch.where(spans.is_digit, head * decided, 0.0)
    return torch.zeros_like(spans.value).index_add(0, spans.number, cost)


def _exclusive_scan(x: Tensor, segment: Tensor, combine: Combine, identity: float) -> Tensor:
    """Exclusive scan with `combine` within each run of equal `segment`, in log2(N) steps.

    A cumulative sum over all positions minus its value at the number's start would lose small numbers beside large
    ones.
    """
    starts = torch.ones_like(segment, dtype=torch.bool)
    starts[1:] = segment[1:] != segment[:-1]
    x = torch.where(starts, identity, x.roll(1))
    step, size = 1, x.shape[0]
    while step < size:
        before = torch.full_like(x, identity)
        before[step:] = torch.where(segment[step:] == segment[:-step], x[:-step], identity)
        x = combine(x, before)
        step *= 2
    return x
