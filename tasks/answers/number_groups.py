"""Numbers that stand together in free text: the candidates for boxes and polygons of a lenient reading.

A group is a run of numbers with nothing but commas, blanks, quotes, `and`, `to` or names of coordinates (`x1=`,
`"top":`) between them; inside brackets line ends and semicolons too. Points in brackets of their own, one after another
(`[[1, 2], [3, 4]]`, `(1,2),(3,4)`), are one group. A digit inside a word (`bbox_2d`, `x1`), a time, a fraction, a
percentage or a date is no number here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

# Times, so that their halves aren't taken for numbers, or a number.
NUMBER = re.compile(
    r"(?<![\w.])[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?\b"
    r"|(?<![\w./])(?<!\w-)(?P<number>[-+]?(?:[0-9]{1,9}(?:\.[0-9]{1,40})?|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,2})?)"
    r"(?![\w%/]|\.?[0-9]|-\w|:[0-9]|\s?(?:%|px\b|pixels?\b|percent\b))",
    re.ASCII,
)
LOCATION = re.compile(r"<loc(?P<number>[0-9]{4})>")

_KEY = (
    r"(?:[xy][ _-]?(?:min|max|[0-3])|(?:[xy]|top|left|bottom|right)[ _-]?(?:start|end|corner)?|c[ _-]?[xy]"
    r"|cent(?:er|re)[ _-]?[xy]|[xy][ _-]?cent(?:er|re)|w|h|width|height)"
)
_LINK = r"(?:=|:|\b(?:is|at|from|between|ranges?(?: from)?)\b)?"
_NAMED = rf"[\"'*`]*(?:\b(?P<key>{_KEY})[\"'*`]*\s*{_LINK}\s*)?[\"'*`]*"
_BETWEEN = re.compile(rf"[\"'*`\s]*(?:[,;|]|\band\b|\bto\b)?\s*{_NAMED}\s*", re.IGNORECASE)
_BEFORE = re.compile(rf"(?<![A-Za-z0-9])(?P<key>{_KEY})[\"'*`]*\s*{_LINK}\s*[\"'*`\[(]*$", re.IGNORECASE)
_NEXT_POINT = re.compile(rf"[\"'\s]*[\])}}][\"'\s]*,?\s*[\[({{]\s*{_NAMED}\s*", re.IGNORECASE)
_LONGEST_GAP = 40  # characters between two numbers of a group

_CORNERS = ("x1", "y1", "x2", "y2")
# What the names of four numbers say: two corners, or one and a size, or the centre and a size.
_FORMS = (
    _CORNERS, ("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"), ("left", "top", "right", "bottom"),
    ("xstart", "ystart", "xend", "yend"),
)  # fmt: skip
_SIZED = (("x", "y"), ("x1", "y1"), ("x0", "y0"), ("xmin", "ymin"), ("left", "top"), ("cx", "cy"))
_RANGES = (("x", "x", "y", "y"), ("x", "", "y", ""))  # `x from 1 to 2, y from 3 to 4`


@dataclass(frozen=True)
class Group:
    """Numbers that stand together, as they are written, with the names before them (empty: none)."""

    numbers: tuple[str, ...]
    names: tuple[str, ...]
    bracketed: bool
    joined: bool = False  # of points in brackets of their own

    def __len__(self) -> int:
        return len(self.numbers)

    def corners(self) -> tuple[str, ...]:
        """Four numbers as x1, y1, x2, y2, in the order that their names say; without names as they are."""
        if self.names in _RANGES:
            x1, x2, y1, y2 = self.numbers
            return x1, y1, x2, y2
        values = dict(zip(self.names, self.numbers, strict=True))
        for form in _FORMS:
            if set(form) == set(values):
                return tuple(values[name] for name in form)
        for x, y in _SIZED:
            for wide, high in (("w", "h"), ("width", "height")):
                if {x, y, wide, high} == set(values):
                    return _sized([Decimal(values[name]) for name in (x, y, wide, high)], centred=x == "cx")
        return self.numbers


def groups(text: str, pattern: re.Pattern[str]) -> list[Group]:
    """Groups of the numbers that a pattern finds, in order, points joined.

    Args:
        text: free text in plain ASCII punctuation (`tasks.answers.characters`).
        pattern: `NUMBER` or `LOCATION`.
    """
    joined: list[Group] = []
    for group, next_point in _runs(text, pattern):
        if next_point and len(joined[-1]) % 2 == 0 and len(group) == 2:
            last = joined.pop()
            group = replace(last, numbers=last.numbers + group.numbers, names=last.names + group.names, joined=True)
        joined.append(group)
    return joined


def _runs(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[Group, bool]]:
    """Runs of numbers, and whether each is the next point of the run before it."""
    end = depth = row = 0  # `row`: numbers since the run's last semicolon
    run: list[tuple[str, str]] = []
    bracketed = next_point = False
    for match in pattern.finditer(text):
        gap, end = text[end : match.start()], match.end()
        depth = _depth(gap, depth)
        number, near = match["number"], len(gap) <= _LONGEST_GAP
        joint = _BETWEEN.fullmatch(gap) if run and near and number else None
        if joint and (gap or pattern is LOCATION) and _goes_on(gap, depth, row):
            row = 1 if ";" in gap else row + 1
            run.append((number, _name(joint["key"])))
            continue
        if run:
            yield _group(run, bracketed), next_point
        point = _NEXT_POINT.fullmatch(gap) if near else None
        # Without a comma a line's end is the end of a shape, unless a bracket is around both.
        next_point = point is not None and len(run) == 2 and ("," in gap or "\n" not in gap or depth > 1)
        before = point or _BEFORE.search(gap[-_LONGEST_GAP:])
        run = [(number, _name(before["key"] if before else None))] if number else []
        row = len(run)
        bracketed = depth > 0 or gap.endswith(">")
    if run:
        yield _group(run, bracketed), next_point


def _goes_on(gap: str, depth: int, row: int) -> bool:
    """Whether a group goes on behind a gap: `[[1,2,3,4;5,6,7,8]]` are two boxes, `[1, 2; 3, 4; 5, 6]` is one shape."""
    return not (";" in gap and row == 4) if depth else not re.search(r"[;\n]", gap)


def _group(run: list[tuple[str, str]], bracketed: bool) -> Group:
    numbers, names = zip(*run, strict=True)
    return Group(numbers, names, bracketed)


def _depth(gap: str, depth: int) -> int:
    for character in re.findall(r"[\[\](){}]", gap):
        depth = depth + 1 if character in "[({" else max(0, depth - 1)
    return depth


def _name(key: str | None) -> str:
    name = re.sub(r"[ _-]", "", key or "").lower()
    centre = re.fullmatch(r"cent(?:er|re)([xy])|([xy])cent(?:er|re)", name)
    return f"c{centre[1] or centre[2]}" if centre else name


def _sized(box: list[Decimal], centred: bool) -> tuple[str, ...]:
    x, y, wide, high = box
    left, top = (x - wide / 2, y - high / 2) if centred else (x, y)
    return tuple(f"{v:f}" for v in (left, top, left + wide, top + high))
