"""User tables in .jsonl, .json, .csv, .tsv or .parquet: one row per question.

A row has the columns prompt, answer and perhaps image:

    {"image": "pictures/1.jpg", "prompt": "Where is the dog?", "answer": [12, 30, 200, 180]}

Which answer a row needs depends on the metric:

    exact     a text or a number, taken as it is written
    numeric   a number, or a text that is one
    box       [x1, y1, x2, y2] in pixels of the picture, or [x, y, w, h] with box_format=xywh
    polygon   [[x, y], [x, y], [x, y], ...] in pixels, or one flat list
    time      "HH:MM", or {"hour": 10, "minute": 8}; hours beyond 12 are taken modulo 12
    boxes     a list of boxes as above, or of {"box": [..], "label": "dog"}; [] where there is none
    points    a list of [x, y] or {"x": 12, "y": 30} in pixels; [] where there is none
    count     a whole number from 0 on

In .csv and .tsv lists are written as JSON. Optional columns: `id` (unique; else the file's name and the row's number),
`group` (metrics are reported per group too), `level` (0, 1, ... for a curriculum), `width` and `height` (where there is
no picture, boxes and polygons need them). Other columns are left alone. Image paths start from the table's folder.
A picture may also be stored in the table: as bytes, in base64, or as a data URI.
Pixels are those of the picture as viewers show it, turned by its EXIF orientation.

Columns given: id, image, width, height, prompt, answer (as text), group, level, and those of `TRUTH` for the metric.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datasets import Dataset, Features, Image, List, Value

from data.common import fields
from data.common.column_form import ColumnForm, Misfit, read_with_evidence
from data.common.decimals import plain
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors, short
from data.common.frames import Frames
from data.common.images import given_picture
from data.common.row_cache import cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, optional_path, without_nulls
from data.common.table_files import columns as table_columns
from data.common.table_files import matching, mostly_filled, read_table
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
OPTIONAL = ("image", "id", "group", "level", "width", "height")
ROLES = ("prompt", "answer", *OPTIONAL)
HELD_OUT = 20
POLYGON = "write [[x, y], [x, y], [x, y], ...] in pixels of the picture"


class Jsonl(Source):
    """Source of a user's table.

    Args:
        metric: what the answers are: exact, numeric, box, polygon, time, boxes, points or count.
        train, validation, test: a file or a glob of files each. Without `validation` every twentieth row of `train` (at
            least one, from the first on) is held out for it.
        images: the folder that picture paths start from; null: the table's own.
        columns: role -> column, where they differ: image, prompt, answer, id, group, level, width, height.
        box_format: xyxy or xywh, of the answers in the table.
        on_error: what to do with a broken row.
    """

    def __init__(
        self,
        metric: Metric = "exact",
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        images: str | None = None,
        columns: dict[str, str | None] | None = None,
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        on_error: OnError = "raise",
    ) -> None:
        self.files = without_nulls({"train": train, "validation": validation, "test": test})
        if not self.files:
            raise InvalidOption("give a table: task.source.train=<file> task.source.test=<file>")
        self.columns = without_nulls(columns)
        if unknown := sorted(set(self.columns) - set(ROLES)):
            raise InvalidOption(f"task.source.columns.{unknown[0]}: there is no such role; known: {', '.join(ROLES)}")
        self.metric, self.images, self.box_format = metric, optional_path(images), box_format
        self.holds_out = "train" in self.files and "validation" not in self.files
        self.splits = tuple(s for s in Source.splits if s in self.files or (s == "validation" and self.holds_out))
        self.row_errors = RowErrors(on_error)
        self._read: dict[str, Dataset] = {}

    def rows(self, split: str) -> Dataset:
        if not self.holds_out or split not in ("train", "validation"):
            return self._rows_of_file(split)
        rows = self._rows_of_file("train")
        if len(rows) < 2:
            raise InvalidOption(
                "one row can't be both trained on and validated with; set task.source.validation=<file>"
            )
        return rows.select([i for i in range(len(rows)) if (i % HELD_OUT == 0) == (split == "validation")])

    def _rows_of_file(self, split: str) -> Dataset:
        if split not in self._read:
            files, how = self._matching(split), (self.metric, self.columns, self.box_format, self.images)
            options = {"how": list(map(str, how))}

            def read(row_errors: RowErrors) -> Dataset:
                return load(files, *how, row_errors)

            self._read[split] = cached_rows(self, split, files, options, self.row_errors, lambda _: {split: read})
        return self._read[split]

    def check_files(self) -> None:
        for split in self.files:
            self._matching(split)

    def _matching(self, split: str) -> list[Path]:
        if split not in self.files:
            raise InvalidOption(f"there is no table for the split {split!r}; set task.source.{split}=<file>")
        return matching(self.files[split], f"task.source.{split}")


def features(metric: Metric) -> Features:
    """Columns of the rows for a metric, see the module's docstring."""
    words = {name: Value("string") for name in ("id", "prompt", "answer", "group")}
    sizes = {name: Value("int32") for name in ("width", "height", "level")}
    return Features({**words, "image": Image(), **sizes, **TRUTH[metric]})


def load(
    files: list[Path],
    metric: Metric,
    columns: dict[str, str],
    box_format: BoxForm,
    images: Path | None,
    row_errors: RowErrors,
) -> Dataset:
    """The rows of one split's files.

    `columns` maps a role (prompt, answer, or one of `OPTIONAL`) to a column's name where it isn't the role's own.

    Raises:
        InvalidData: no file, no such column, a column of answers that isn't of its form, or (on_error=raise) a row that
            can't be used.
    """

    def read(policy: RowErrors) -> Dataset:
        truth = list(TRUTH[metric]) or ["answer"]
        writer = RowWriter(features(metric), ", ".join(map(str, files)), policy, "prompt", truth)
        answers = AnswerColumn(metric, box_format)
        image = columns.get("image", "image")
        layout = Layout(mostly_filled(files, image), images, Frames("shown"))
        for path in files:
            names: dict[str, str] | None = None
            for number, where, item in read_table(path, policy):
                names = names or _names(table_columns(path, policy), columns, path)
                with policy.row():
                    writer.add(where, _row(item, names, answers, layout.beside(path), where, f"{path.stem}-{number}"))
            if names:
                answers.check(str(path), names["answer"], policy)
        layout.frames.note(str(files[0]), policy)
        return writer.dataset()

    return read_with_evidence(read, row_errors)


class Layout(NamedTuple):
    """Whether the rows of a table have pictures, the folder of those (None: the table's own), and their frames."""

    illustrated: bool
    images: Path | None
    frames: Frames

    def beside(self, table: Path) -> Layout:
        return self._replace(images=self.images or table.parent)


def _names(columns_there: list[str], columns: dict[str, str], path: Path) -> dict[str, str]:
    names = {role: columns.get(role, role) for role in ROLES}
    for role, name in names.items():
        if name not in columns_there and (role in ("prompt", "answer") or name != role):
            problem = f"no such column; found {', '.join(map(str, columns_there))}"
            raise InvalidData(str(path), name, problem, f"set task.source.columns.{role} to one")
    return {role: name for role, name in names.items() if name in columns_there or role not in OPTIONAL}


def _row(
    item: dict[str, Any], names: dict[str, str], answers: AnswerColumn, layout: Layout, where: str, fallback: str
) -> dict[str, Any]:
    def value(role: str) -> Any:
        return fields.filled(item.get(names.get(role, role)))

    prompt, answer = value("prompt"), value("answer")
    if not isinstance(prompt, str):
        raise InvalidData(where, names["prompt"], f"{short(prompt)} is no question", "give a text")
    if answer is None:
        raise InvalidData(where, names["answer"], "is missing or empty", "give an answer or drop the row")
    image, size = None, fields.size(value("width"), value("height"), where)
    if value("image") is not None and layout.images:
        image, true_size = given_picture(value("image"), layout.images, where, names["image"])
        remedy = "use the pictures that the answers were made on"
        declared = size or (None, None)
        image, size = layout.frames.choose(image, true_size, declared, where, "the table", remedy, names["image"])
    truth = answers.read(answer, size, where, names["answer"])
    if layout.illustrated != (image is not None):
        problem = "has a picture and most rows have none" if image else "has no picture and most rows have one"
        raise InvalidData(where, names.get("image"), problem, "give every row a picture, or none")
    return {
        "id": _name(value("id"), fallback, where, names.get("id", "id")),
        "image": image,
        "width": size[0] if size else None,
        "height": size[1] if size else None,
        "prompt": fields.text(prompt, where, names["prompt"]),
        "group": _name(value("group"), None, where, names.get("group", "group")),
        "level": fields.whole(value("level") or 0, where, names.get("level", "level")),
        **({"answer": json.dumps(answer, default=str)} | truth),
    }


def _name(value: Any, fallback: str | None, where: str, field: str) -> str | None:
    if value is None:
        return fallback
    if not isinstance(value, str | int | float | Decimal):
        raise InvalidData(where, field, f"{short(value)} is neither text nor number", "write it as a text")
    return str(value)


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
    value = Decimal(str(answer).strip())
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
