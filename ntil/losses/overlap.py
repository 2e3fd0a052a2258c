"""Expected overlap of boxes whose four coordinates are independent, without sampling.

IoU doesn't change when an axis is shifted or stretched, so the true box may be taken to be the unit square. A
coordinate is then its distance o outward from the true one, in true sides: the left edge lies at -o, the right one at
1 + o, and for o <= -1 nothing is shared. With s = o for o < 0 and o / (1 + o) else, s is in [-1, 1), and the IoU is a
function of four such s alone, the same for all boxes: nearly linear in each (exactly, where the other three are 0). It
is tabulated at evenly spaced nodes and read between them by linear interpolation in every coordinate, which for
independent coordinates is a product of vectors and one matrix: E[IoU] = w_x' T w_y, with w_x the outer product of the
expected interpolation weights of the left and the right edge.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ntil.numbers.spans import NumberSpans

# Digits of a number whose values are told apart; the rest are at their mean. An alphabet of bins is taken as it is.
PLACES, LARGEST_BASE = 3, 32
FAR = 1e6  # true sides: where the last node stands for infinitely far


def overlap_table(nodes: int) -> Tensor:
    """IoU with the unit square of boxes at the nodes, [G * G, G * G] float32, G = 2 nodes + 1.

    Row: left and right edge, the left one first; column: top and bottom. Corners out of order have 0.
    """
    s = torch.linspace(-1, 1, 2 * nodes + 1, dtype=torch.float64)
    outward = torch.where(s < 0, s, s / (1 - s).clamp(min=1 / FAR))
    low, high = -outward[:, None], 1 + outward
    length = (high - low).clamp(min=0).reshape(-1)
    shared = (high.clamp(max=1) - low.clamp(min=0)).clamp(min=0).reshape(-1)
    inside = shared[:, None] * shared
    return (inside / (length[:, None] * length + 1 - inside)).float()


def expected_overlap(digit_logits: Tensor, spans: NumberSpans, table: Tensor) -> Tensor:
    """Expected IoU of each box with the true one, [S], in the type of the logits.

    Coordinates of one token have the softmax over the tokens. Of several digits, numbers are drawn digit by digit given
    the true ones before, as in `expected_value_distance`; digits after the third are at their mean. A true box without
    width or height is taken to be one unit of the last place wide.

    Args:
        digit_logits: [N, base]. table: of `overlap_table`.
    """
    size = math.isqrt(table.shape[0])
    values, chances = coordinate_distributions(torch.softmax(digit_logits.double(), -1), spans)
    weights = _node_weights(values, chances, spans, size).to(digit_logits.dtype)
    left, top, right, bottom = weights.unbind(1)
    across = (left[:, :, None] * right[:, None]).flatten(1)
    down = (top[:, :, None] * bottom[:, None]).flatten(1)
    return ((across @ table.to(across)) * down).sum(-1)


def coordinate_distributions(p: Tensor, spans: NumberSpans) -> tuple[Tensor, Tensor]:
    """Values and probabilities of every box's x1, y1, x2, y2, each [S, 4, K] float64, K = base ** places.

    Args:
        p: [N, base] float64, of the digits.
    """
    base, places = spans.base, PLACES if spans.base <= LARGEST_BASE else 1
    positions = _positions(spans, places)[spans.shape]
    present = positions >= 0
    positions = positions.clamp(min=0)
    digits = torch.arange(base, device=p.device, dtype=p.dtype)
    of_places = torch.where(present[..., None], p[positions], (digits == 0).double())  # a missing digit is 0
    scale = torch.where(present, spans.scale[positions], 0.0)
    values = _tails(p, spans, places)[spans.shape][..., None]
    chances = torch.ones_like(values)
    for place in range(places):
        values = (values[..., None] + (scale[..., place, None] * digits)[..., None, :]).flatten(-2)
        chances = (chances[..., None] * of_places[..., place, None, :]).flatten(-2)
    return values, chances


def _positions(spans: NumberSpans, places: int) -> Tensor:
    """Position of the digit of each number at each of its first places, [M, places]; -1 where it has none."""
    slots = spans.value.shape[0] * places
    counted = spans.is_digit & (spans.place < places)
    slot = torch.where(counted, spans.number * places + spans.place, slots)
    order = torch.arange(slot.shape[0], device=slot.device)
    table = torch.full((slots + 1,), -1, dtype=torch.long, device=slot.device).scatter(0, slot, order)
    return table[:slots].reshape(-1, places)


def _tails(p: Tensor, spans: NumberSpans, places: int) -> Tensor:
    """Mean value of the digits after the first `places` of each number, [M] float64."""
    mean = (p * torch.arange(p.shape[-1], device=p.device, dtype=p.dtype)).sum(-1)
    tail = torch.where(spans.place >= places, mean, 0.0) * spans.scale
    return torch.zeros_like(spans.value).index_add(0, spans.number, tail)


def _node_weights(values: Tensor, chances: Tensor, spans: NumberSpans, size: int) -> Tensor:
    """Expected weights of linear interpolation between the nodes, [S, 4, size], each summing to one."""
    true = spans.value[spans.shape]
    side = torch.maximum(true[:, 2:] - true[:, :2], spans.unit[spans.shape[:, :2]]).repeat(1, 2)
    direction = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=true.dtype, device=true.device)
    outward = ((values - true[..., None]) * (direction / side)[..., None]).clamp(min=-1)
    s = torch.where(outward < 0, outward, outward / (1 + outward.clamp(min=0)))
    at = (s + 1) * ((size - 1) / 2)
    lower = at.detach().floor().clamp(0, size - 2)
    upper_share = at - lower
    weights = torch.zeros(*values.shape[:2], size, dtype=values.dtype, device=values.device)
    weights = weights.scatter_add(-1, lower.long(), chances * (1 - upper_share))
    return weights.scatter_add(-1, lower.long() + 1, chances * upper_share)
