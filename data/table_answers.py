"""The answers of a user's table, read row by row by a metric: what a row's truth is, and what a column of it shows.

Which forms a metric takes: `data.jsonl`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from datasets import List, Value

from data.common import fields
from data.common.column_form import ColumnForm, Misfit
from data.common.decimals import plain
from data.common.errors import InvalidData, RowErrors, short
from data.grounding.schema import FRACTION, BoxColumn, BoxForm, points_are_fractions, points_form, points_inside
from data.objects.cells import BoxCells, PointCells
from data.objects.schema import FEATURES

Metric = Literal["exact", "numeric", "box", "polygon", "time", "boxes", "points", "count"]
Size = tuple[int, int]
TRUTH: dict[str, dict[str, Any]] = {
    "exact": {},
    "numeric": {},
    "box": {"box": List(Value("float64"))},
    "polygon": {"polygon": List(List(Value("float64")))},
    "time": {"hour": Value("int32"), "minute": Value("int32")},
    "boxes": {name: FEATURES[name] for name in ("boxes", "labels", "crowd")},
    "points": {name: FEATURES[name] for name in ("boxes", "points")},
    "count": {},
}
POLYGON = "write [[x, y], [x, y], [x, y], ...] in pixels of the picture"


class AnswerColumn:
    """The answers of a table, read row by row by a metric, and judged as a column at the end."""

    def __init__(self, metric: Metric, box_format: BoxForm) -> None:
        self.metric = metric
        self.boxes = BoxColumn(box_format)
        lists: dict[Metric, BoxCells | PointCells] = {"boxes": BoxCells(box_format), "points": PointCells()}
        self.objects = lists.get(metric)
        self.column = COLUMNS[metric]() if metric in COLUMNS else None

    def read(self, answer: Any, size: Size | None, where: str, field: str) -> dict[str, Any]:
        """The row's truth.

        Raises:
            Misfit: not of the column's form.
            InvalidData: no answer of the metric at all.
        """
        if self.metric == "box":
            return {"box": self.boxes.read(answer, _needed(size, where), where, field)}
        if self.objects:
            return self.objects.read(answer, _needed(size, where), where, field)
        if self.metric == "polygon":
            points, size = _points(answer, where, field), _needed(size, where)
            if self.column:
                self.column.add(where, points, size)
            return {"polygon": _checked_polygon(points, size, where, field)}
        if self.metric == "time":
            answer = fields.unpacked(answer, where, field)
        if self.column:
            self.column.add(where, answer)
        return {"numeric": _number, "time": _time, "count": _count}.get(self.metric, _text)(answer, where, field)

    def check(self, where: str, field: str, row_errors: RowErrors) -> None:
        """Check that the answers read so far don't show another form.

        Raises:
            ContradictedColumn: they do.
        """
        if self.metric == "box":
            self.boxes.check(where, field, row_errors)
        elif self.objects:
            self.objects.check(where, field, row_errors)
        elif self.column:
            self.column.check(where, field, f"write {self.column.declared}")


def _text(answer: Any, where: str, field: str) -> dict[str, Any]:
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | Decimal):
        raise InvalidData(where, field, f"{short(answer)} is neither text nor number", "write it as a text")
    if not isinstance(answer, str) and not fields.is_number(answer):
        raise InvalidData(where, field, f"{short(answer)} is no answer", "write it as a text, or drop the row")
    # A number without an exponent: 0.00001 is not to be taught as 1e-05.
    is_float = isinstance(answer, float | Decimal)
    return {"answer": f"{Decimal(str(answer)):f}" if is_float else str(answer).strip()}


def _number(answer: Any, where: str, field: str) -> dict[str, Any]:
    value = _decimal(answer)
    if value is None:
        remedy = "write a number such as -12.5, without unit or thousands mark"
        raise Misfit(where, field, f"{short(answer)} is no number of at most 30 digits", remedy)
    # A text keeps its zeros ("12.50" is taught as 12.50); anything else is written the shortest way.
    is_plain = isinstance(answer, str) and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", answer.strip(), re.ASCII)
    return {"answer": answer.strip() if is_plain else plain(value)}


def _count(answer: Any, where: str, field: str) -> dict[str, Any]:
    value = _decimal(answer)
    if value is None or value < 0 or value != int(value):
        raise InvalidData(where, field, f"{short(answer)} is no count", "write a whole number from 0 on")
    return {"answer": str(int(value))}


def _decimal(answer: Any) -> Decimal | None:
    """A finite number of at most 30 digits, exactly; None for anything else."""
    if not fields.is_number(answer):
        return None
    try:
        value = Decimal(str(answer).strip())
    except InvalidOperation:  # an exponent of 19 digits
        return None
    fits = abs(value.adjusted()) <= 30 and sum(map(str.isdigit, plain(value))) <= 30
    return value if fits else None


def _points(answer: Any, where: str, field: str) -> list[list[float]]:
    """Points of a polygon, from a list of pairs or a flat one."""
    try:
        read = json.loads(answer) if isinstance(answer, str) else answer
        flat = [v for point in read for v in (point if isinstance(point, list) else [point])]
        paired = all(not isinstance(point, list) or len(point) == 2 for point in read)
    except (TypeError, ValueError, RecursionError):
        flat, paired = [], False
    if not paired or len(flat) % 2 or len(flat) < 6 or not all(map(fields.is_number, flat)):
        raise InvalidData(where, field, f"{short(answer)} is no polygon", POLYGON)
    values = [fields.number(v, where, field) for v in flat]
    return [list(point) for point in zip(values[::2], values[1::2], strict=True)]


def _checked_polygon(points: list[list[float]], size: Size, where: str, field: str) -> list[list[float]]:
    if points_are_fractions(points, size):
        raise Misfit(where, field, f"{short(points)} reads as parts of 1, not as pixels", POLYGON)
    if not points_inside(points, size):
        raise Misfit(where, field, f"{short(points)} lies outside the {size[0]} x {size[1]} picture", POLYGON)
    crossed = sum(x * v - u * y for (x, y), (u, v) in zip(points, points[1:] + points[:1], strict=True))
    if crossed == 0:
        raise InvalidData(where, field, f"{short(points)} has no area", POLYGON)
    return points


def _time(answer: Any, where: str, field: str) -> dict[str, Any]:
    parts = _time_parts(answer)
    if parts is None or parts[0] > 24 or parts[1] > 59:
        raise Misfit(where, field, f"{short(answer)} is no time", 'write "HH:MM"')
    return {"hour": (parts[0] - 1) % 12 + 1, "minute": parts[1]}


def _time_parts(answer: Any) -> tuple[int, int] | None:
    """Hour and minute, unchecked, of a text, an object or a time of parquet; None for anything else."""
    if isinstance(answer, time | datetime):
        # Seconds are no part of HH:MM, and are not to be dropped without a word.
        return (answer.hour, answer.minute) if answer.second == answer.microsecond == 0 else None
    if isinstance(answer, dict):  # parquet may hold whole numbers as 10.0
        parts = [answer.get("hour"), answer.get("minute")]
        numbers = [float(str(part).strip()) for part in parts if fields.is_number(part)]
        is_time = len(numbers) == 2 and all(0 <= v < 100 and v.is_integer() for v in numbers)
        return (int(numbers[0]), int(numbers[1])) if is_time else None
    match = re.fullmatch(r"(\d{1,2}):(\d{1,2})", str(answer).strip(), re.ASCII)
    return (int(match[1]), int(match[2])) if match else None


def _needed(size: Size | None, where: str) -> Size:
    if size is None:
        raise InvalidData(where, "image", "is missing, so pixels mean nothing", "give a picture, or width and height")
    return size


def _polygons() -> ColumnForm:
    return points_form(points_are_fractions, lambda points, _: max(abs(v) for xy in points for v in xy) <= FRACTION)


def _numbers() -> ColumnForm:
    def written(pattern: str) -> Callable[[Any], bool]:
        return lambda answer: bool(re.fullmatch(pattern, str(answer).strip(), re.ASCII))

    declared, mark = "numbers with a decimal point", "numbers with a comma for thousands"
    forms: dict[str, Callable[..., bool]] = {
        declared: lambda answer: _decimal(answer) is not None,
        "numbers with a decimal comma": written(r"[+-]?(\d+|\d{1,3}(\.\d{3})+)(,\d+)?"),
        mark: written(r"[+-]?(\d+|\d{1,3}(,\d{3})+)(\.\d+)?"),
        "percentages": written(r"[+-]?\d+([.,]\d+)?\s*%"),
    }
    return ColumnForm(declared, forms, frozenset({mark}))


def _times() -> ColumnForm:
    def within(answer: Any, first: int, second: int) -> bool:
        parts = _time_parts(answer)
        return parts is not None and parts[0] <= first and parts[1] <= second

    forms: dict[str, Callable[..., bool]] = {
        "HH:MM": lambda answer: within(answer, 24, 59),
        "MM:HH": lambda answer: within(answer, 59, 24),
        "MM:SS": lambda answer: within(answer, 99, 59),
    }
    return ColumnForm("HH:MM", forms, frozenset({"MM:SS"}))


COLUMNS: dict[str, Callable[[], ColumnForm]] = {"polygon": _polygons, "numeric": _numbers, "time": _times}
