"""Lists of boxes or points in one cell of a user's table, read row by row and judged as a column at the end.

    boxes    [[x1, y1, x2, y2], ...], or [{"box": [x1, y1, x2, y2], "label": "dog"}, ...]
    points   [[x, y], ...], or [{"x": 12, "y": 30}, ...]

All in pixels of the picture; an empty list where nothing is to be found. Each object has a label, or none of a row has.
"""

from __future__ import annotations

from typing import Any

from data.common import fields
from data.common.column_form import Misfit
from data.common.errors import InvalidData, RowErrors, short
from data.grounding.schema import (
    BoxColumn,
    BoxForm,
    Points,
    Size,
    points_are_fractions,
    points_form,
    points_inside,
)

BOXES = 'write [[x1, y1, x2, y2], ...] or [{"box": [x1, y1, x2, y2], "label": "dog"}, ...], [] for none'
POINTS = 'write [[x, y], ...] or [{"x": 12, "y": 30}, ...] in pixels of the picture, [] for none'


class BoxCells:
    """Cells of boxes."""

    def __init__(self, form: BoxForm) -> None:
        self.column = BoxColumn(form)

    def read(self, answer: Any, size: Size, where: str, field: str) -> dict[str, Any]:
        """Columns `boxes`, `labels` and `crowd` of a row.

        Raises:
            Misfit: a box that isn't of the column's form.
            InvalidData: no list of boxes, or a label for some of them only.
        """
        boxes, labels = [], []
        for value in fields.items(fields.unpacked(answer, where, field), where, field, BOXES):
            box, label = value, ""
            if isinstance(value, dict):
                box = value.get("box")
                label = "" if value.get("label") is None else fields.text(value["label"], where, field)
            boxes.append(self.column.read(box, size, where, field))
            labels.append(label)
        if any(labels) and not all(labels):
            raise InvalidData(where, field, f"{short(answer)} has a label for some boxes only", BOXES)
        return {"boxes": boxes, "labels": labels, "crowd": [False] * len(boxes)}

    def check(self, where: str, field: str, row_errors: RowErrors) -> None:
        """Check that the boxes read so far don't show another form.

        Raises:
            ContradictedColumn: they do.
        """
        self.column.check(where, field, row_errors)


class PointCells:
    """Cells of points."""

    def __init__(self) -> None:
        self.column = points_form(_are_fractions, _are_fractions)

    def read(self, answer: Any, size: Size, where: str, field: str) -> dict[str, Any]:
        """Columns `points` and `boxes` (empty) of a row.

        Raises:
            Misfit: points outside the picture, or as parts of 1.
            InvalidData: no list of points.
        """
        cell = fields.items(fields.unpacked(answer, where, field), where, field, POINTS)
        points = [_point(value, where, field) for value in cell]
        if points:
            self.column.add(where, points, size)
        if _are_fractions(points, size):
            raise Misfit(where, field, f"{short(answer)} reads as parts of 1, not as pixels", POINTS)
        if not points_inside(points, size):
            raise Misfit(where, field, f"{short(answer)} lies outside the {size[0]} x {size[1]} picture", POINTS)
        return {"points": points, "boxes": []}

    def check(self, where: str, field: str, row_errors: RowErrors) -> None:
        """Check that the points read so far don't show another form.

        Raises:
            ContradictedColumn: they do.
        """
        self.column.check(where, field, f"write {self.column.declared}")


def _point(value: Any, where: str, field: str) -> list[float]:
    pair = [value.get("x"), value.get("y")] if isinstance(value, dict) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise InvalidData(where, field, f"{short(value)} is no point", POINTS)
    return [fields.number(v, where, field, POINTS) for v in pair]


def _are_fractions(points: Points, size: Size) -> bool:
    # A corner's pixel may be pointed at: whole numbers are pixels.
    broken = any(v % 1 for point in points for v in point)
    return broken and points_are_fractions(points, size)
