"""The columns that every source of referring expressions gives, and the check of a box.

Columns: id (of the expression, not of the picture: a picture has several), image, width, height, expression, box (x1,
y1, x2, y2 in pixels of the picture as viewers show it), split (the release's own name), level (how many objects compete
with the one meant, from 0, where a source knows it; a curriculum may schedule it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from datasets import Features, Image, List, Value

from data.common.column_form import ColumnForm, Misfit
from data.common.errors import InvalidData, RowErrors, short
from data.common.fields import is_number, number

FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "width": Value("int32"),
        "height": Value("int32"),
        "expression": Value("string"),
        "box": List(Value("float64")),
        "split": Value("string"),
        "level": Value("int32"),
    }
)

# Annotated boxes exceed their pictures by rounding; a box that exceeds it by more pixels is another picture's.
SLACK = 2.0
# Boxes all below a thousand (or, as Label Studio's percentages, a hundred), in pictures that are larger, tell nothing
# if they are few.
SCALES, FEW = (100, 1000), 5
TINY = 16  # pixels of a side: in a smaller picture a box of its first pixel may be meant
FRACTION = 1.05  # parts of 1 exceed 1 by rounding, too


Points = Sequence[Sequence[float]]
Size = tuple[int, int]
BoxForm = Literal["xyxy", "xywh", "cxcywh"]
Scale = Literal["pixels", "fractions"]
LETTERS = {
    "xyxy": "[x1, y1, x2, y2]",
    "xywh": "[x, y, w, h]",
    "cxcywh": "[cx, cy, w, h]",
    "yxyx": "[y1, x1, y2, x2]",
}
UNITS = {"pixels": "in pixels", "fractions": "as parts of 1", "thousandths": "from 0 to 1000"}


def corners(box: Sequence[float], form: str) -> list[float]:
    """Corners x1, y1, x2, y2 of a box in any of `LETTERS`, in the box's own units."""
    a, b, c, d = box
    if form == "xywh":
        return [a, b, a + c, b + d]
    if form == "cxcywh":
        return [a - c / 2, b - d / 2, a + c / 2, b + d / 2]
    return [b, a, d, c] if form == "yxyx" else [a, b, c, d]


def xyxy_from_xywh(box: Sequence[float]) -> list[float]:
    """Corners x1, y1, x2, y2 of a box given by its top left corner and its size."""
    return corners(box, "xywh")


def checked_box(box: Any, size: tuple[int, int], where: str, field: str = "box", xywh: bool = False) -> list[float]:
    """x1, y1, x2, y2 of a box that has an area and lies in the picture (`SLACK` pixels aside, which stay).

    Raises:
        Misfit: four numbers that can't be such a box.
        InvalidData: anything else.
    """
    form = "xywh" if xywh else "xyxy"
    return _checked(box, size, where, field, form, "pixels")


class BoxColumn:
    """A column of boxes in one form and scale, read row by row and judged at its end."""

    def __init__(self, form: BoxForm = "xyxy", scale: Scale = "pixels") -> None:
        self.form, self.scale = form, scale
        forms = {_name(f, s): partial(_fits, form=f, scale=s) for s in UNITS for f in LETTERS}
        lax = frozenset(name for name in forms if "0 to 1000" in name or name.startswith(LETTERS["yxyx"]))
        self.column = ColumnForm(_name(form, scale), forms, lax)
        self._largest, self._smallest_side = 0.0, math.inf

    def read(self, box: Any, size: tuple[int, int], where: str, field: str) -> list[float]:
        """`checked_box`, counted."""
        values = _values(box, where, field, self.form, self.scale)
        self.column.add(where, values, size)
        self._largest = max(self._largest, *values)
        self._smallest_side = min(self._smallest_side, *size)
        return _checked(box, size, where, field, self.form, self.scale)

    def check(self, where: str, field: str, row_errors: RowErrors) -> None:
        """Check that the boxes read so far don't show another form; note where they may be of another scale.

        Raises:
            ContradictedColumn: they do.
        """
        declared = _name(self.form, self.scale)
        self.column.check(where, field, f"write {declared}, or set task.source.box_format where there is one")
        for parts in SCALES if self.scale == "pixels" and self.column.values >= FEW else ():
            if self._smallest_side > parts and 0.9 * parts <= self._largest <= parts:
                count = self.column.values
                problem = f"field {field}: no number of {count} boxes is above {parts}, and all pictures are larger"
                remedy = f"check with `ntil data show` that they are pixels, not parts of {parts}"
                row_errors.note(where, f"{problem}; {remedy}")


def _values(box: Any, where: str, field: str, form: str, scale: str) -> list[float]:
    """Four finite numbers; a CSV field holds them as JSON.

    Raises:
        InvalidData: anything else.
    """
    try:
        values = json.loads(box) if isinstance(box, str) else box
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, list | tuple) or len(values) != 4 or not all(map(is_number, values)):
        raise InvalidData(where, field, f"{short(box)} is not {LETTERS[form]}", f"write a box as {_name(form, scale)}")
    return [number(v, where, field) for v in values]


def _checked(box: Any, size: tuple[int, int], where: str, field: str, form: str, scale: str) -> list[float]:
    values = _values(box, where, field, form, scale)
    x1, y1, x2, y2 = pixels = _in_pixels(values, size, form, scale)
    if scale == "pixels" and points_are_fractions([values], size):
        remedy = "write pixels: x times the picture's width, y times its height"
        raise Misfit(where, field, f"{short(box)} reads as parts of 1, not as pixels", remedy)
    if x2 <= x1 or y2 <= y1:
        raise Misfit(
            where, field, f"{short(box)} has no area", f"check that boxes are {LETTERS[form]}, or drop the row"
        )
    if not points_inside([pixels[:2], pixels[2:]], size):
        remedy = f"check that boxes are {_name(form, scale)} of the picture as shown"
        raise Misfit(where, field, f"{short(box)} lies outside the {size[0]} x {size[1]} picture", remedy)
    return pixels


def _name(form: str, scale: str) -> str:
    return f"{LETTERS[form]} {UNITS[scale]}"


def _in_pixels(values: Sequence[float], size: tuple[int, int], form: str, scale: str) -> list[float]:
    x1, y1, x2, y2 = corners(values, form)
    if scale == "pixels":
        return [x1, y1, x2, y2]
    parts = 1000 if scale == "thousandths" else 1
    width, height = size[0] / parts, size[1] / parts
    return [x1 * width, y1 * height, x2 * width, y2 * height]


def points_inside(points: Sequence[Sequence[float]], size: tuple[int, int]) -> bool:
    """Whether points lie in a picture, `SLACK` pixels aside."""
    width, height = size
    return all(-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK for x, y in points)


def points_are_fractions(points: Sequence[Sequence[float]], size: tuple[int, int]) -> bool:
    """Whether points can't be pixels but parts of 1: nobody draws within the first pixel of a picture."""
    return min(size) > TINY and max(abs(v) for point in points for v in point) <= FRACTION


def points_form(
    are_fractions: Callable[[Points, Size], bool], parts_of_one: Callable[[Points, Size], bool]
) -> ColumnForm:
    """The form of a column of points in pixels.

    Args:
        are_fractions: whether points can't be pixels, since they are parts of 1.
        parts_of_one: whether points fit that form.
    """
    declared = "points in pixels"
    forms: dict[str, Callable[..., bool]] = {
        declared: lambda points, size: not are_fractions(points, size) and points_inside(points, size),
        "points as parts of 1": parts_of_one,
        "points from 0 to 1000": lambda points, _: points_inside(points, (1000, 1000)),
        "points y, x": lambda points, size: points_inside(points, size[::-1]),
    }
    return ColumnForm(declared, forms, frozenset({"points from 0 to 1000", "points y, x"}))


def _fits(values: Sequence[float], size: tuple[int, int], form: str, scale: str) -> bool:
    if scale == "pixels" and points_are_fractions([values], size):
        return False
    x1, y1, x2, y2 = pixels = _in_pixels(values, size, form, scale)
    return x2 > x1 and y2 > y1 and points_inside([pixels[:2], pixels[2:]], size)
