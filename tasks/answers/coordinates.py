"""Text formats of boxes and polygons; each model family was pre-trained on one of them.

| format | a box | steps across the picture |
|---|---|---|
| `int1000` | `[12, 34, 567, 890]` | 999 |
| `qwen` | `<|box_start|>(12,34),(567,890)<|box_end|>` | 1000 |
| `unit` | `[0.012, 0.034, 0.567, 0.890]` | 1000 |
| `loc` | `<loc0034><loc0012><loc0890><loc0567>` (y before x) | 1023 |

A coordinate v in a picture of w pixels is written as round(v / w * steps), so both edges are exact and any other value
comes back within half a step. Some models see a picture in a larger frame (padded to a square): `Coords.within` writes
and reads fractions of that frame, while boxes stay in pixels of the picture. Polygons are the same with any number of
points from 3 up; `qwen` uses its quad tokens. Several shapes follow one another, with `; ` between them (nothing in
`qwen`). No shape at all is the word `none`.

Reading is strict: exactly what writing could have written, with whitespace allowed around it. The lenient reading takes
numbers that stand together anywhere in the text (`tasks.answers.number_groups`), in the format's own scale; it never
guesses another scale from their size. What lies a little beyond the picture (`reach`) is moved to its edge. Where this
differs from the readers of lmms-eval and VLMEvalKit is in docs/tasks.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import pairwise

from data.common.errors import InvalidOption
from tasks.answers.characters import ascii_variants
from tasks.answers.number_groups import LOCATION, NUMBER, Group, groups

Size = tuple[int, int]  # width, height
Frame = tuple[float, float, float, float]  # width and height of what a model sees; left and top of the picture in it
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Polygon = tuple[Point, ...]

NONE = "none"
FRACTIONS = 1.5  # numbers up to here, not all of them whole, are parts of the picture's sides, as VLMEvalKit has it
LONGEST = 20_000  # characters: limit of a text that is read, so that no reading takes long


def unframed(size: Size) -> Frame:
    """Frame of a model that sees the picture itself."""
    return (*size, 0.0, 0.0)


@dataclass(frozen=True)
class Coords:
    """Format of coordinates.

    Attributes:
        number: pattern of a number within a shape, as writing writes it.
        loose: pattern of a number anywhere in a text, in its group `number`.
        unit: steps that a written 1 stands for.
        reach: the largest number, in either direction, that the lenient reading takes for one of this scale.
    """

    name: str
    steps: int
    write: Callable[[int], str]
    read: Callable[[str], int]
    number: re.Pattern[str]
    loose: re.Pattern[str]
    box_form: Callable[[list[str]], str]
    polygon_form: Callable[[list[str]], str]
    separator: str = "; "
    y_first: bool = False
    unit: int = 1
    reach: float = 1000
    frame: Callable[[Size], Frame] = unframed

    def within(self, frame: Callable[[Size], Frame]) -> Coords:
        """The same format for a model that sees pictures in a frame of its own."""
        return replace(self, frame=frame)

    def box(self, box: Sequence[float], size: Size) -> str:
        """A box in pixels as text. Points outside the picture are moved to its edge."""
        return self.box_form(self._write([(box[0], box[1]), (box[2], box[3])], size))

    def polygon(self, points: Sequence[Sequence[float]], size: Size) -> str:
        """A polygon in pixels as text."""
        return self.polygon_form(self._write(points, size))

    def boxes(self, boxes: Sequence[Sequence[float]], size: Size) -> str:
        return self.separator.join(self.box(b, size) for b in boxes) or NONE

    def polygons(self, polygons: Sequence[Sequence[Sequence[float]]], size: Size) -> str:
        return self.separator.join(self.polygon(p, size) for p in polygons) or NONE

    def parse_box(self, text: str, size: Size) -> Box | None:
        """Strictly one box, corners in order."""
        points = self._strict(text.strip(), size, self.box_form)
        return _ordered(points) if points is not None and len(points) == 2 else None

    def parse_polygon(self, text: str, size: Size) -> Polygon | None:
        """Strictly one polygon of 3 points or more."""
        points = self._strict(text.strip(), size, self.polygon_form)
        return tuple(points) if points is not None and len(points) >= 3 else None

    def parse_boxes(self, text: str, size: Size) -> list[Box] | None:
        """Strictly a list of boxes, perhaps empty."""
        read = [self.parse_box(part, size) for part in self._parts(text)]
        return None if None in read else read  # type: ignore[return-value]

    def parse_polygons(self, text: str, size: Size) -> list[Polygon] | None:
        """Strictly a list of polygons, perhaps empty."""
        read = [self.parse_polygon(part, size) for part in self._parts(text)]
        return None if None in read else read  # type: ignore[return-value]

    def find_box(self, text: str, size: Size) -> Box | None:
        """Four numbers of the format's scale, corners put in order.

        The first there is of: four numbers together, in brackets or after a token; four together without; two points
        one after another; the box around more points; the first four before a score or another box; four single
        numbers, if alone and with words for sides or none. Five without brackets are none: the first may be of a label.
        """
        together = groups(self._plain(text), self.loose)
        for candidate in _box_candidates(together, text):
            steps = self._steps(candidate)
            if steps is not None:
                (x1, y1), (x2, y2) = self._points(steps, size)
                return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
        return None

    def find_shapes(self, text: str, size: Size) -> list[Polygon]:
        """Every group of four numbers or more in the format's scale as a shape, cut to whole points.

        Four numbers are a box, which is returned as its four corners. Without such a group it is the box of `find_box`.
        """
        shapes = []
        for group in groups(self._plain(text), self.loose):
            numbers = group.corners() if len(group) == 4 else group.numbers
            if len(group) == 5:
                numbers = next(_of_more(group), ())
            steps = self._steps(numbers) if numbers else None
            points = self._points(steps, size) if steps is not None else []
            if len(points) == 2:
                points = list(corners((*points[0], *points[1])))
            if len(points) >= 3:
                shapes.append(tuple(points))
        box = None if shapes else self.find_box(text, size)
        return shapes if box is None else [corners(box)]

    def _plain(self, text: str) -> str:
        # A number that the limit cuts would be read as another one.
        return ascii_variants(text if len(text) <= LONGEST else text[:LONGEST].rstrip("0123456789.<loc"))

    def _steps(self, numbers: Sequence[str]) -> list[float] | None:
        """Numbers in steps, moved into the picture; None unless all are of the format's scale."""
        values = [Decimal(n) for n in numbers]
        largest = max(map(abs, values))
        fractions = self.unit == 1 and largest <= FRACTIONS and any(not n.lstrip("+-").isdigit() for n in numbers)
        if largest > self.reach or fractions:
            return None
        return [min(max(float(v * self.unit), 0.0), self.steps) for v in values]

    def _write(self, points: Sequence[Sequence[float]], size: Size) -> list[str]:
        values = []
        wide, high, left, top = self.frame(size)
        for x, y in points:
            inside = (min(max(x, 0.0), size[0]) + left) / wide, (min(max(y, 0.0), size[1]) + top) / high
            steps = [round(v * self.steps) for v in inside]
            values += steps[::-1] if self.y_first else steps
        return [self.write(v) for v in values]

    def _strict(self, text: str, size: Size, form: Callable[[list[str]], str]) -> list[Point] | None:
        if len(text) > LONGEST:
            return None
        # Strict by construction: the text must be what writing its own numbers gives.
        numbers = self.number.findall(text)
        if not numbers or len(numbers) % 2 or form(numbers) != text:
            return None
        values = [self.read(n) for n in numbers]
        if max(values) > self.steps or [self.write(v) for v in values] != numbers:
            return None
        return self._points(values, size)

    def _parts(self, text: str) -> list[str]:
        text = text.strip()
        if text == NONE:
            return []
        if len(text) > LONGEST:
            return [""]
        if self.separator:
            return text.split(self.separator)
        return re.split(r"(?<=_end\|>)(?!$)", text)

    def _points(self, values: Sequence[float], size: Size) -> list[Point]:
        pairs = list(zip(values[::2], values[1::2], strict=False))
        if self.y_first:
            pairs = [(x, y) for y, x in pairs]
        wide, high, left, top = self.frame(size)
        return [(x / self.steps * wide - left, y / self.steps * high - top) for x, y in pairs]


def corners(box: Sequence[float]) -> Polygon:
    """The four corners of a box, clockwise from the top left."""
    x1, y1, x2, y2 = box
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def around(points: Sequence[Sequence[float]]) -> Box:
    """The smallest box around points."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)


def _ordered(points: list[Point]) -> Box | None:
    (x1, y1), (x2, y2) = points
    return (x1, y1, x2, y2) if x1 <= x2 and y1 <= y2 else None


def _in_brackets(numbers: list[str]) -> str:
    return f"[{', '.join(numbers)}]"


def _qwen(kind: str) -> Callable[[list[str]], str]:
    def form(numbers: list[str]) -> str:
        pairs = ",".join(f"({x},{y})" for x, y in zip(numbers[::2], numbers[1::2], strict=False))
        return f"<|{kind}_start|>{pairs}<|{kind}_end|>"

    return form


def _box_candidates(together: list[Group], text: str) -> Iterator[tuple[str, ...]]:
    fours = [group for group in together if len(group) == 4]
    yield from (group.corners() for group in sorted(fours, key=lambda group: (not group.bracketed, group.joined)))
    for a, b in pairwise(group for group in together if len(group) > 1):  # numbers of a list may stand between points
        if len(a) == len(b) == 2:
            yield Group(a.numbers + b.numbers, a.names + b.names, bracketed=False).corners()
    for group in together:
        if len(group) > 4:
            yield from _of_more(group)
    if [len(group) for group in together] == [1] * 4 and _are_sides(together, text):
        numbers, names = zip(*((group.numbers[0], group.names[0]) for group in together), strict=True)
        yield Group(numbers, names, bracketed=False).corners()


def _are_sides(singles: list[Group], text: str) -> bool:
    """Whether single numbers have words for sides with them, or no words between them (`<1><2><3><4>`)."""
    between = text[text.index(singles[0].numbers[0]) : text.rindex(singles[-1].numbers[0])]
    return len(_SIDES.findall(text)) >= 4 or not re.search(r"[^\W\d_]", between)


def _of_more(group: Group) -> Iterator[tuple[str, ...]]:
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


def _thousandths(text: str) -> int:
    return round(float(text) * 1000)


_SIDES = re.compile(r"(?<![A-Za-z])(?:left|right|top|bottom|[xy] ?(?:min|max|[0-3])?)(?![A-Za-z])", re.IGNORECASE)
_INTEGER = re.compile(r"[0-9]{1,9}")
_FRACTION = re.compile(r"[0-9]\.[0-9]{3}")
_LOC = re.compile(r"(?<=<loc)[0-9]{4}(?=>)")

FORMATS = {
    "int1000": Coords("int1000", 999, str, int, _INTEGER, NUMBER, _in_brackets, _in_brackets),
    "qwen": Coords("qwen", 1000, str, int, _INTEGER, NUMBER, _qwen("box"), _qwen("quad"), separator=""),
    "unit": Coords(
        "unit",
        1000,
        lambda v: f"{v // 1000}.{v % 1000:03d}",
        _thousandths,
        _FRACTION,
        NUMBER,
        _in_brackets,
        _in_brackets,
        unit=1000,
        reach=FRACTIONS,
    ),
    "loc": Coords(
        "loc",
        1023,
        lambda v: f"{v:04d}",
        int,
        _LOC,
        LOCATION,
        lambda n: "".join(f"<loc{v}>" for v in n),
        lambda n: "".join(f"<loc{v}>" for v in n),
        y_first=True,
        reach=1023,
    ),
}


def coordinate_format(name: str) -> Coords:
    """The format of that name.

    Raises:
        InvalidOption: there is none.
    """
    if name not in FORMATS:
        raise InvalidOption(f"coords must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]
