"""Answers of least expected distance under distributions of their numbers: mean, median, box, and the best of several.

What a distribution leaves out is stated with it (`NumberDistribution.covered`). The coordinates of a box are taken as
independent, each given the generated answer before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from ntil.evaluation.number_trees import NumberDistribution, Tokens, text_of, tokens_of_number
from ntil.numbers.vocab import NumberVocab

POINTS = (
    16  # ours: values of a coordinate that a box is chosen by; more are put together in groups of equal probability
)
EXHAUSTIVE = 1296  # boxes: up to so many are all tried
FIXED = 0.99  # of the probability: from which a number's width is a fixed one, as the hour's in 09:05

Answer = TypeVar("Answer")


def median_way(distribution: NumberDistribution) -> Tokens:
    """The number at which half of the probability is reached, in its most probable writing."""
    return _way_of(distribution, weighted_median(distribution.values, distribution.chances))


def weighted_median(values: np.ndarray, chances: np.ndarray) -> float:
    """The smallest value with at least half of the probability up to it."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(chances[order])
    return float(values[order][np.searchsorted(reached, 0.5 * reached[-1] - 1e-12)])


def mean_way(distribution: NumberDistribution, decimals: int, vocab: NumberVocab) -> Tokens | None:
    """The mean, rounded to so many decimals; None where the vocabulary can't write it. A single number is itself."""
    if len(distribution.ways) == 1:
        return distribution.ways[0]  # float64 would round one of more than 15 digits
    return way_of_value(distribution, float(distribution.values @ distribution.chances), decimals, vocab)


def way_of_value(distribution: NumberDistribution, value: float, decimals: int, vocab: NumberVocab) -> Tokens | None:
    """Tokens that write a value as the distribution's numbers are written."""
    if vocab.one_place:
        return (vocab.digit_ids[round(value)],)
    text = f"{abs(value):.{decimals}f}".zfill(_fixed_width(distribution, vocab) + (decimals + 1 if decimals else 0))
    shown_sign = value < 0 and any("-" in text_of(way, vocab) for way in distribution.ways)
    return tokens_of_number(f"-{text}" if shown_sign and float(text) else text, vocab)


def _fixed_width(distribution: NumberDistribution, vocab: NumberVocab) -> int:
    """Digits before the point that nearly all of the distribution has; 0 where they differ."""
    chances: dict[int, float] = {}
    for way, chance in zip(distribution.ways, distribution.chances.tolist(), strict=True):
        width = len(text_of(way, vocab).lstrip("-").partition(".")[0])
        chances[width] = chances.get(width, 0.0) + chance
    width, chance = max(chances.items(), key=lambda item: item[1])
    return width if chance >= FIXED else 0


def _way_of(distribution: NumberDistribution, value: float) -> Tokens:
    at = np.flatnonzero(distribution.values == value)
    return distribution.ways[int(at[np.argmax(distribution.chances[at])])]


def nearest_to_all(
    answers: Sequence[Answer], chances: Sequence[float], distance: Callable[[Answer, Answer], float]
) -> int:
    """Index of the answer of least expected distance to all (minimum Bayes risk); the first of several."""
    apart = np.zeros((len(answers), len(answers)))
    for i, first in enumerate(answers):
        for j in range(i):
            apart[i, j] = apart[j, i] = distance(first, answers[j])
    # Sums in other orders differ in their last bits: what is as near is the first.
    return int(np.argmin(np.round(apart @ np.asarray(chances, dtype=float), 12)))


def best_box(corners: Sequence[NumberDistribution], generated: Sequence[float]) -> tuple[float, ...]:
    """The box x1, y1, x2, y2 of least expected 1 - IoU, its corners among values of their distributions.

    All such boxes are tried where they are few. Else corner after corner is moved to its best value, from several
    starts, until none moves: never worse than the generated box, the means or the medians.

    Args:
        generated: the answer's own box, a start.
    """
    grouped = [grouped_values(d.values, d.chances) for d in corners]
    medians = [weighted_median(d.values, d.chances) for d in corners]
    candidates = [
        np.unique(np.round([*values, median, from_answer], 6))
        for (values, _), median, from_answer in zip(grouped, medians, generated, strict=True)
    ]
    if np.prod([len(c) for c in candidates]) <= EXHAUSTIVE:
        boxes = np.stack(np.meshgrid(*candidates, indexing="ij"), -1).reshape(-1, 4)
        overlaps = expected_overlaps(boxes, grouped)
        return tuple(boxes[int(np.argmax(np.round(overlaps, 12)))].tolist())
    means = [float(d.values @ d.chances) for d in corners]
    ends = [_climbed(np.array(start), candidates, grouped) for start in (generated, means, medians)]
    return tuple(max(ends, key=lambda end: round(end[1], 12))[0].tolist())


def _climbed(
    box: np.ndarray, candidates: Sequence[np.ndarray], grouped: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, float]:
    """Move a corner's coordinate at a time to where the expected overlap is largest; the box, and that overlap."""
    best = float(expected_overlaps(box[None], grouped)[0])
    moved = True
    while moved:
        moved = False
        for axis, values in enumerate(candidates):
            boxes = np.repeat(box[None], len(values), 0)
            boxes[:, axis] = values
            overlaps = expected_overlaps(boxes, grouped)
            if overlaps.max() > best + 1e-12:
                box, best, moved = boxes[int(overlaps.argmax())], float(overlaps.max()), True
    return box, best


def expected_overlaps(boxes: np.ndarray, grouped: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Expected IoU of each box [C, 4] with one whose four coordinates have these values and probabilities, [C].

    Boxes whose corners are out of order have no area.
    """
    sides = []
    for low, high in ((0, 2), (1, 3)):
        (starts, of_starts), (ends, of_ends) = grouped[low], grouped[high]
        start, end = (a.reshape(-1) for a in np.meshgrid(starts, ends, indexing="ij"))
        shared = np.minimum(boxes[:, high, None], end) - np.maximum(boxes[:, low, None], start)
        length = np.maximum(end - start, 0.0)
        sides.append((np.maximum(shared, 0.0) * (length > 0), length, np.outer(of_starts, of_ends).reshape(-1)))
    (across, width, of_width), (down, height, of_height) = sides
    area = np.maximum(boxes[:, 2] - boxes[:, 0], 0.0) * np.maximum(boxes[:, 3] - boxes[:, 1], 0.0)
    overlaps = np.empty(len(boxes))
    for i in range(len(boxes)):  # all at once would be POINTS**4 values for every box
        inside = np.outer(across[i], down[i])
        united = area[i] + np.outer(width, height) - inside
        ratio = np.divide(inside, united, out=np.zeros_like(inside), where=inside > 0)
        overlaps[i] = of_width @ ratio @ of_height
    return overlaps


def grouped_values(values: np.ndarray, chances: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Values that have a probability, rising, and these; more than `points` as means of groups of equal probability."""
    values, where = np.unique(values, return_inverse=True)
    chances = np.bincount(where, weights=chances)
    values, chances = values[chances > 0], chances[chances > 0] / chances.sum()
    if len(values) <= points:
        return values, chances
    group = np.minimum(((np.cumsum(chances) - chances / 2) * points).astype(int), points - 1)
    total = np.bincount(group, weights=chances, minlength=points)
    sums = np.bincount(group, weights=chances * values, minlength=points)
    return sums[total > 0] / total[total > 0], total[total > 0]
