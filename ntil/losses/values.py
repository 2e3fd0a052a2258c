"""Value terms: how far the number read from the digit logits is from the true number."""

from __future__ import annotations

import torch
from torch import Tensor

from ntil.numbers import NumberSpans


def straight_through_values(
    digit_logits: Tensor,
    spans: NumberSpans,
    temperature: float,
    noise: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Absolute values of the numbers as predicted: argmax digits forward, softmax(logits / temperature) backward.

    Gumbel noise, scaled by `noise`, is added to the logits first (arXiv 2505.13077; the released code draws it from the
    global generator, here it has a generator of its own so that data order and noise are seeded apart).

    Returns:
        [M] float64.
    """
    logits = digit_logits
    if noise > 0:
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device, dtype=torch.float32)
        logits = logits - noise * torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))
    soft = torch.softmax(logits / temperature, dim=-1)
    hard = torch.zeros_like(soft).scatter(-1, soft.argmax(-1, keepdim=True), 1.0)
    onehot = (hard - soft).detach() + soft
    values = torch.arange(soft.shape[-1], device=soft.device, dtype=torch.float64)
    places = torch.pow(float(spans.base), spans.power.double())
    terms = (onehot.double() * values).sum(-1) * places * spans.is_digit
    return torch.zeros_like(spans.value).index_add(0, spans.number, terms)


def relative_deviation(predicted: Tensor, true: Tensor) -> Tensor:
    """|X - Y| / (max(X, Y) + 1), [M] float64; the released code's +1 stands for the paper's eps."""
    return (predicted - true).abs() / (torch.maximum(predicted, true) + 1)


def magnitude_deviation(predicted: Tensor, true: Tensor) -> Tensor:
    """log((max(X, Y) + 1) / (min(X, Y) + 1)), [M] float64; +1 as in the released code keeps zero finite."""
    return torch.log((torch.maximum(predicted, true) + 1) / (torch.minimum(predicted, true) + 1))
