"""Text formats of boxes, points and polygons; each model family was pre-trained on one of them.

| format | a box | scale |
|---|---|---|
| `int1000` | `[12, 34, 567, 890]` | 0..999 across the picture |
| `qwen` | `<|box_start|>(12,34),(567,890)<|box_end|>` | 0..1000 |
| `unit` | `[0.012, 0.034, 0.567, 0.890]` | 0..1 in thousandths |
| `loc` | `<loc0034><loc0012><loc0890><loc0567>` (y before x) | 0..1023 |
| `json1000` | `{"bbox_2d": [12, 34, 567, 890]}` | 0..1000 |
| `json_pixels` | `{"bbox_2d": [5, 14, 232, 365]}` | pixels of the picture after the model's own resizing |
| `tags` | `<box>[[12, 34, 567, 890]]</box>` | 0..1000 |

A coordinate v in a picture of w pixels is written as round(v / w * steps), so both edges are exact and any other value
comes back within half a step. In `json_pixels` the steps across the picture are the pixels that the model sees
(`Coords.within`), and the right edge of W pixels is W - 1, as in Qwen's `process_bbox.ipynb`. Some models see a picture
in a larger frame (padded to a square): fractions are of that frame, while boxes stay in pixels of the picture.
Several shapes follow one another; how, and where a label stands, is in `tasks.answers.shape_forms`. No shape at all is
the word `none` (in JSON `[]`).

Reading is strict: exactly what writing could have written, with whitespace allowed around it, or what the format's
models write by themselves: a label beside the shape, two decimals in `unit`, a JSON list or fence. The lenient reading
takes numbers that stand together anywhere in the text (`tasks.answers.number_groups`), in the format's own scale; it
never guesses another scale from their size. What lies a little beyond the picture (`reach`) is moved to its edge. Where
this differs from the readers of lmms-eval and VLMEvalKit is in docs/tasks.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeVar

from data.common.errors import InvalidOption
from tasks.answers.box_candidates import box_candidates, of_more
from tasks.answers.characters import ascii_variants
from tasks.answers.number_groups import LOCATION as LOCATION_TOKEN
from tasks.answers.number_groups import NUMBER, groups
from tasks.answers.shape_forms import (
    FRACTION,
    LOCATION,
    Brackets,
    Form,
    Json,
    Kind,
    Locations,
    QwenTokens,
    Range,
    Shape,
    Tags,
    search_objects,
)

T = TypeVar("T")
Size = tuple[int, int]  # width, height
Frame = tuple[float, float, float, float]  # width and height of what a model sees; left and top of the picture in it
Point = tuple[float, float]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Polygon = tuple[Point, ...]

FRACTIONS = 1.5  # numbers up to here, not all of them whole, are parts of the picture's sides, as VLMEvalKit has it
LONGEST = 20_000  # characters: limit of a text that is read, so that no reading takes long


def unframed(size: Size) -> Frame:
    """Frame of a model that sees the picture itself."""
    return (*size, 0.0, 0.0)


def unresized(size: Size) -> Size:
    """Size of a picture that its model sees as it is."""
    return size


@dataclass(frozen=True)
class WrittenBox:
    """Where a text writes a box.

    Attributes:
        ranges: characters of x1, y1, x2, y2 in this order, each the first and the one after the last.
        extent: width and height of the model's picture in the unit of these numbers.
    """

    ranges: tuple[Range, Range, Range, Range]
    extent: tuple[float, float]

    def moved(self, by: int) -> WrittenBox:
        """The same box in a text with `by` more characters before."""
        x1, y1, x2, y2 = ((start + by, end + by) for start, end in self.ranges)
        return replace(self, ranges=(x1, y1, x2, y2))


@dataclass(frozen=True)
class Item:
    """One shape of a list: its points in pixels (a box has two corners), and its label (empty: none)."""

    points: Polygon
    label: str = ""

    @property
    def box(self) -> Box:
        return around(self.points)

    @property
    def point(self) -> Point:
        """The point itself, or the middle of the box around several."""
        x1, y1, x2, y2 = around(self.points)
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Coords:
    """Format of coordinates.

    Attributes:
        form: the text around the numbers.
        steps: across the picture; None: as many as it has pixels after the model's own resizing.
        loose: pattern of a number anywhere in a text, in its group `number`.
        unit: steps that a written 1 stands for.
        reach: the largest number, in either direction, that the lenient reading takes for one of this scale; None: the
            longer side in steps.
        frame: what a model sees of a picture of (width, height).
        resized: the frame's width and height after the model's own resizing, by the picture's.
    """

    name: str
    form: Form
    steps: int | None
    write: Callable[[int], str] = str
    read: Callable[[str], int] = int
    loose: re.Pattern[str] = NUMBER
    y_first: bool = False
    unit: int = 1
    reach: float | None = 1000
    frame: Callable[[Size], Frame] = unframed
    resized: Callable[[Size], Size] = unresized

    def within(self, frame: Callable[[Size], Frame], resized: Callable[[Size], Size] | None = None) -> Coords:
        """The same format for a model that sees pictures in a frame of its own, and scales that frame."""
        return replace(self, frame=frame, resized=resized or self.resized)

    def limits(self, size: Size) -> Size:
        """Steps across the frame and down it, for a picture of (width, height)."""
        return self.resized(size) if self.steps is None else (self.steps, self.steps)

    def box(self, box: Sequence[float], size: Size) -> str:
        """A box in pixels as text. Points outside the picture are moved to its edge."""
        return self.form.write([self._shape([(box[0], box[1]), (box[2], box[3])], size)], "box", many=False)

    def box_of(self, numbers: Sequence[float], size: Size) -> Box:
        """The box in pixels whose four numbers, as the format writes them, are these; corners put in order."""
        limits = self._in_order(self.limits(size))
        inside = [min(max(number * self.unit, 0.0), limits[i % 2]) for i, number in enumerate(numbers)]
        return around(self._points(inside, size))

    def polygon(self, points: Sequence[Sequence[float]], size: Size) -> str:
        """A polygon in pixels as text."""
        return self.form.write([self._shape(points, size)], "polygon", many=False)

    def boxes(self, boxes: Sequence[Sequence[float]], size: Size) -> str:
        return self.items([Item(((b[0], b[1]), (b[2], b[3]))) for b in boxes], size, "box")

    def polygons(self, polygons: Sequence[Sequence[Sequence[float]]], size: Size) -> str:
        return self.form.write([self._shape(p, size) for p in polygons], "polygon")

    def items(self, items: Sequence[Item], size: Size, kind: Kind) -> str:
        """Shapes with their labels as text.

        Raises:
            ValueError: a label that the format can't hold.
        """
        return self.form.write([self._shape(item.points, size, item.label) for item in items], kind)

    def number_ranges(self, text: str) -> list[Range] | None:
        """Characters of the coordinates in a text that was written here; None: all digits are of coordinates."""
        return None if self.form.digits else self.form.number_ranges(text)

    def written_boxes(self, text: str, size: Size) -> list[WrittenBox]:
        """The boxes of a text that was written here and holds nothing but boxes, labels and `none`."""
        ranges = self.form.number_ranges(text)
        across, down = self.limits(size)
        boxes = []
        for i in range(0, len(ranges) - 3, 4):
            (x1, y1), (x2, y2) = self._in_order(ranges[i : i + 2]), self._in_order(ranges[i + 2 : i + 4])
            boxes.append(WrittenBox((x1, y1, x2, y2), (across / self.unit, down / self.unit)))
        return boxes

    def parse_box(self, text: str, size: Size) -> Box | None:
        """Strictly one box, corners in order."""
        items = self.parse_unlabelled(text, size, "box")
        return items[0].box if items is not None and len(items) == 1 else None

    def parse_polygon(self, text: str, size: Size) -> Polygon | None:
        """Strictly one polygon of 3 points or more."""
        items = self.parse_unlabelled(text, size, "polygon")
        return items[0].points if items is not None and len(items) == 1 else None

    def parse_boxes(self, text: str, size: Size) -> list[Box] | None:
        """Strictly a list of boxes, perhaps empty."""
        items = self.parse_unlabelled(text, size, "box")
        return None if items is None else [item.box for item in items]

    def parse_polygons(self, text: str, size: Size) -> list[Polygon] | None:
        """Strictly a list of polygons, perhaps empty."""
        items = self.parse_unlabelled(text, size, "polygon")
        return None if items is None else [item.points for item in items]

    def parse_unlabelled(self, text: str, size: Size, kind: Kind) -> list[Item] | None:
        """Strictly a list of shapes that no label was asked for.

        One is allowed where the format's models write it by themselves.
        """
        items = self.parse_items(text, size, kind)
        added = items is not None and not self.form.adds_labels and any(item.label for item in items)
        return None if added else items

    def parse_items(self, text: str, size: Size, kind: Kind) -> list[Item] | None:
        """Strictly a list of shapes of the kind, perhaps empty, with labels or without; corners of boxes in order."""
        text = text.strip()
        if text == self.form.none:
            return []
        shapes = self.form.read(text, kind) if len(text) <= LONGEST else None
        if shapes is None:
            return None
        items = []
        for shape in shapes:
            points = self._strict(shape.numbers, size)
            if points is None or (kind == "box" and _ordered(points) is None):
                return None
            items.append(Item(tuple(points), shape.label))
        return items

    def find_items(self, text: str, size: Size, kind: Kind) -> list[Item]:
        """Shapes of the kind anywhere in a text, with the labels that stand with them; corners put in order.

        The first of these that there is: JSON-like objects; shapes in the format's own form; groups of numbers, which
        have no labels. A box where a point is asked for stands for its middle.
        """
        text = self._plain(text)
        shapes = search_objects(text, kind) or self.form.search(text, kind)
        items = [item for shape in shapes if (item := self._loose_item(shape, size, kind)) is not None]
        if items or kind == "polygon":
            return items or [Item(points) for points in self.find_shapes(text, size)]
        if kind == "box":
            return [Item(_diagonal(around(points))) for points in self.find_shapes(text, size)]
        return self._find_points(text, size)

    def find_box(self, text: str, size: Size) -> Box | None:
        """Four numbers of the format's scale, corners put in order.

        The first there is of: four numbers together, in brackets or after a token; four together without; two points
        one after another; the box around more points; the first four before a score or another box; four single
        numbers, if alone and with words for sides or none. Five without brackets are none: the first may be of a label.
        """
        text = self._plain(text)
        for candidate in box_candidates(groups(text, self.loose), text):
            steps = self._steps(candidate, size)
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
                numbers = next(of_more(group), ())
            steps = self._steps(numbers, size) if numbers else None
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

    def _steps(self, numbers: Sequence[str], size: Size) -> list[float] | None:
        """Numbers in steps, moved into the picture; None unless all are of the format's scale."""
        values = [Decimal(n) for n in numbers]
        largest, limits = max(map(abs, values)), self._in_order(self.limits(size))
        fractions = self.unit == 1 and largest <= FRACTIONS and any(not n.lstrip("+-").isdigit() for n in numbers)
        if largest > (max(limits) if self.reach is None else self.reach) or fractions:
            return None
        return [min(max(float(v * self.unit), 0.0), limits[i % 2]) for i, v in enumerate(values)]

    def _shape(self, points: Sequence[Sequence[float]], size: Size, label: str = "") -> Shape:
        numbers: list[str] = []
        wide, high, left, top = self.frame(size)
        limits = self.limits(size)
        for x, y in points:
            inside = (min(max(x, 0.0), size[0]) + left) / wide, (min(max(y, 0.0), size[1]) + top) / high
            steps = [round(v * limit) for v, limit in zip(inside, limits, strict=True)]
            if self.steps is None:
                steps = [min(v, limit - 1) for v, limit in zip(steps, limits, strict=True)]
            numbers += map(self.write, self._in_order(steps))
        return Shape(tuple(numbers), label)

    def _strict(self, numbers: Sequence[str], size: Size) -> list[Point] | None:
        values, limits = [self.read(n) for n in numbers], self._in_order(self.limits(size))
        if any(value > limits[i % 2] for i, value in enumerate(values)):
            return None
        return self._points(values, size)

    def _loose_item(self, shape: Shape, size: Size, kind: Kind) -> Item | None:
        steps = self._steps(shape.numbers, size)
        if steps is None:
            return None
        points = tuple(self._points(steps, size))
        return Item(_diagonal(around(points)) if kind == "box" else points, _loose_label(shape.label))

    def _find_points(self, text: str, size: Size) -> list[Item]:
        items = []
        for group in groups(text, self.loose):
            # Points in brackets of their own are as many points; four numbers in one pair of brackets are a box.
            parts = [group.numbers[i : i + 2] for i in range(0, len(group), 2)] if group.joined else [group.corners()]
            for numbers in parts:
                steps = self._steps(numbers, size) if len(numbers) in (2, 4) else None
                if steps is not None:
                    items.append(Item(tuple(self._points(steps, size))))
        return items

    def _points(self, values: Sequence[float], size: Size) -> list[Point]:
        pairs = [self._in_order(pair) for pair in zip(values[::2], values[1::2], strict=False)]
        wide, high, left, top = self.frame(size)
        across, down = self.limits(size)
        return [(x / across * wide - left, y / down * high - top) for x, y in pairs]

    def _in_order(self, pair: Sequence[T]) -> tuple[T, T]:
        """Two values, x first, in the order in which the format writes them; and back."""
        first, second = pair
        return (second, first) if self.y_first else (first, second)


def corners(box: Sequence[float]) -> Polygon:
    """The four corners of a box, clockwise from the top left."""
    x1, y1, x2, y2 = box
    return (x1, y1), (x2, y1), (x2, y2), (x1, y2)


def _diagonal(box: Box) -> Polygon:
    return (box[0], box[1]), (box[2], box[3])


def around(points: Sequence[Sequence[float]]) -> Box:
    """The smallest box around points."""
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    return min(xs), min(ys), max(xs), max(ys)


def _ordered(points: list[Point]) -> Box | None:
    (x1, y1), (x2, y2) = points
    return (x1, y1, x2, y2) if x1 <= x2 and y1 <= y2 else None


def _loose_label(label: str) -> str:
    """A label without what joins it to the shape before (`and dog`), a list's number (`1. cat:`), and bold type."""
    joined = re.sub(r"^(?:[\s,;|&]|and\b)+", "", label)
    return re.sub(r"^\s*(?:[0-9]{1,3}[.)]|[-*])\s+", "", joined).strip(" :=*")


def _thousandths(text: str) -> int:
    return round(float(text) * 1000)


def _as_thousandths(value: int) -> str:
    return f"{value // 1000}.{value % 1000:03d}"


FORMATS = {
    coords.name: coords
    for coords in (
        Coords("int1000", Brackets(), 999),
        Coords("qwen", QwenTokens(), 1000),
        Coords("unit", Brackets(FRACTION), 1000, _as_thousandths, _thousandths, unit=1000, reach=FRACTIONS),
        Coords("loc", Locations(LOCATION), 1023, "{:04d}".format, int, LOCATION_TOKEN, y_first=True, reach=1023),
        Coords("json1000", Json(), 1000),
        Coords("json_pixels", Json(), None, reach=None),
        Coords("tags", Tags(), 1000),
    )
}


def coordinate_format(name: str) -> Coords:
    """The format of that name.

    Raises:
        InvalidOption: there is none.
    """
    if name not in FORMATS:
        raise InvalidOption(f"coords must be one of {', '.join(FORMATS)}, got {name!r}")
    return FORMATS[name]
