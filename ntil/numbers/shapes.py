"""Numbers that form one box, from what the task says of its answers' characters (`Task.shapes`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import torch

from ntil.numbers.measured import tokens_of
from ntil.numbers.spans import NumberSpans


class BoxInText(Protocol):
    """Where a text writes a box (`tasks.answers.coordinates.WrittenBox`)."""

    @property
    def ranges(self) -> Sequence[tuple[int, int]]:
        """Characters of x1, y1, x2, y2, each the first and the one after the last."""

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height of the picture in the unit of these numbers."""


class TokenBox(NamedTuple):
    """A box by indices of positions: the first and the last digit of x1, y1, x2, y2, and the picture's extent."""

    first: tuple[int, ...]
    last: tuple[int, ...]
    extent: tuple[float, float]


def token_boxes(tokens: Sequence[str], text: str, boxes: Sequence[BoxInText], offset: int = 0) -> Iterator[TokenBox]:
    """Boxes of a text by its tokens.

    Args:
        tokens: of `text`, as `convert_ids_to_tokens` gives them.
        offset: position of the first token.

    Raises:
        ValueError: the tokens' digits aren't those of the text.
    """
    of_ranges = tokens_of(tokens, text, [r for box in boxes for r in box.ranges])
    for i, box in enumerate(boxes):
        coordinates = of_ranges[4 * i : 4 * i + 4]
        if all(coordinates):
            first, last = (tuple(offset + c[end] for c in coordinates) for end in (0, -1))
            yield TokenBox(first, last, box.extent)


def with_shapes(spans: NumberSpans, boxes: Sequence[TokenBox]) -> NumberSpans:
    """The spans with the boxes each of whose coordinates is one number there."""
    if not boxes:
        return spans
    first, last = torch.tensor([b.first for b in boxes]), torch.tensor([b.last for b in boxes])
    numbers = spans.number[first]
    single = spans.is_digit[first] & spans.is_digit[last] & (spans.number[last] == numbers) & (spans.place[first] == 0)
    keep = single.all(1)
    extent = torch.tensor([b.extent for b in boxes], dtype=torch.float64)
    return replace(spans, shape=numbers[keep], extent=extent[keep])
