"""Candidates for the four numbers of a box among the numbers that stand together in a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import pairwise

from tasks.answers.number_groups import Group

_SIDES = re.compile(r"(?<![A-Za-z])(?:left|right|top|bottom|[xy] ?(?:min|max|[0-3])?)(?![A-Za-z])", re.IGNORECASE)


def box_candidates(together: list[Group], text: str) -> Iterator[tuple[str, ...]]:
    """What may be a box, the likeliest first; the order is that of `Coords.find_box`.

    Args:
        text: the one that the groups are of.
    """
    fours = [group for group in together if len(group) == 4]
    yield from (group.corners() for group in sorted(fours, key=lambda group: (not group.bracketed, group.joined)))
    for a, b in pairwise(group for group in together if len(group) > 1):  # numbers of a list may stand between points
        if len(a) == len(b) == 2:
            yield Group(a.numbers + b.numbers, a.names + b.names, bracketed=False).corners()
    for group in together:
        if len(group) > 4:
            yield from of_more(group)
    if [len(group) for group in together] == [1] * 4 and _are_sides(together, text):
        numbers, names = zip(*((group.numbers[0], group.names[0]) for group in together), strict=True)
        yield Group(numbers, names, bracketed=False).corners()


def _are_sides(singles: list[Group], text: str) -> bool:
    """Whether single numbers have words for sides with them, or no words between them (`<1><2><3><4>`)."""
    between = text[text.index(singles[0].numbers[0]) : text.rindex(singles[-1].numbers[0])]
    return len(_SIDES.findall(text)) >= 4 or not re.search(r"[^\W\d_]", between)


def of_more(group: Group) -> Iterator[tuple[str, ...]]:
    """The box of more than four numbers: around points, or the first four before a score or another box."""
    if len(group) % 2 == 0 and (group.joined or group.bracketed):
        yield _enclosing(group.numbers)
    elif (group.bracketed and _is_score(group.numbers[-1])) or len(group) % 4 == 0:
        yield group.numbers[:4]


def _is_score(number: str) -> bool:
    return not number.lstrip("+-").isdigit() and 0 <= Decimal(number) <= 1


def _enclosing(numbers: Sequence[str]) -> tuple[str, ...]:
    """The corners of the box around points."""
    xs, ys = sorted(numbers[::2], key=Decimal), sorted(numbers[1::2], key=Decimal)
    return xs[0], ys[0], xs[-1], ys[-1]
