"""User tables in .jsonl, .json, .csv, .tsv or .parquet: one row per question.

A row has the columns prompt, answer and perhaps image:

    {"image": "pictures/1.jpg", "prompt": "Where is the dog?", "answer": [12, 30, 200, 180]}

Which answer a row needs depends on the metric:

    exact     a text or a number, taken as it is written
    numeric   a number, or a text that is one
    box       [x1, y1, x2, y2] in pixels of the picture, or [x, y, w, h] with box_format=xywh
    polygon   [[x, y], [x, y], [x, y], ...] in pixels, or one flat list
    time      "HH:MM", or {"hour": 10, "minute": 8}; hours beyond 12 are taken modulo 12

In .csv and .tsv lists are written as JSON. Optional columns: `id` (unique; else the file's name and the row's number),
`group` (metrics are reported per group too), `level` (0, 1, ... for a curriculum), `width` and `height` (where there is
no picture, boxes and polygons need them). Other columns are left alone. Image paths start from the table's folder.
Pixels are those of the picture as viewers show it, turned by its EXIF orientation.

Columns given: id, image, width, height, prompt, answer (as text), group, level, and for the last three metrics box,
polygon, or hour and minute.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features, Image, List, Value

from data.common import fields
from data.common.decimals import plain
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors
from data.common.images import check_size, given_picture
from data.common.rows import RowWriter
from data.common.source import Source, optional_path, without_nulls
from data.common.table_files import columns as table_columns
from data.common.table_files import matching, read_table
from data.grounding.schema import SLACK, checked_box

Metric = Literal["exact", "numeric", "box", "polygon", "time"]
Size = tuple[int, int]
TRUTH: dict[str, dict[str, Any]] = {
    "exact": {},
    "numeric": {},
    "box": {"box": List(Value("float64"))},
    "polygon": {"polygon": List(List(Value("float64")))},
    "time": {"hour": Value("int32"), "minute": Value("int32")},
}
OPTIONAL = ("image", "id", "group", "level", "width", "height")
ROLES = ("prompt", "answer", *OPTIONAL)
HELD_OUT = 20


class Jsonl(Source):
    """Source of a user's table.

    Args:
        metric: what the answers are: exact, numeric, box, polygon or time.
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
            how = (self.metric, self.columns, self.box_format, self.images, self.row_errors)
            self._read[split] = load(self._matching(split), *how)
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
    box_format: str,
    images: Path | None,
    row_errors: RowErrors,
) -> Dataset:
    """The rows of one split's files.

    `columns` maps a role (prompt, answer, or one of `OPTIONAL`) to a column's name where it isn't the role's own.

    Raises:
        InvalidData: no file, no such column, or (on_error=raise) a row that can't be used.
    """
    writer = RowWriter(features(metric), ", ".join(map(str, files)), row_errors)
    illustrated: bool | None = None
    for path in files:
        names: dict[str, str] | None = None
        for number, where, item in read_table(path, row_errors):
            names = names or _names(table_columns(path, row_errors), columns, path)
            with row_errors.row():
                row = _row(item, names, metric, box_format, images or path.parent, where, f"{path.stem}-{number}")
                illustrated = row["image"] is not None if illustrated is None else illustrated
                if illustrated != (row["image"] is not None):
                    problem = "has a picture and rows before it have none, or the other way round"
                    raise InvalidData(where, names.get("image"), problem, "give every row a picture, or none")
                writer.add(where, row)
    return writer.dataset()


def _names(columns_there: list[str], columns: dict[str, str], path: Path) -> dict[str, str]:
    names = {role: columns.get(role, role) for role in ROLES}
    for role, name in names.items():
        if name not in columns_there and (role in ("prompt", "answer") or name != role):
            problem = f"no such column; found {', '.join(map(str, columns_there))}"
            raise InvalidData(str(path), name, problem, f"set task.source.columns.{role} to one")
    return {role: name for role, name in names.items() if name in columns_there or role not in OPTIONAL}


def _row(
    item: dict[str, Any],
    names: dict[str, str],
    metric: Metric,
    box_format: str,
    images: Path,
    where: str,
    fallback: str,
) -> dict[str, Any]:
    def value(role: str) -> Any:
        return fields.filled(item.get(names.get(role, role)))

    prompt, answer = value("prompt"), value("answer")
    if not isinstance(prompt, str):
        raise InvalidData(where, names["prompt"], f"{prompt!r} is no question", "give a text")
    if answer is None:
        raise InvalidData(where, names["answer"], "is missing or empty", "give an answer or drop the row")
    image, size = None, fields.size(value("width"), value("height"), where)
    if value("image") is not None:
        image, true_size = given_picture(value("image"), images, where, names["image"])
        remedy = "use the pictures that the answers were made on"
        check_size(size or true_size, true_size, where, "the table", remedy, names["image"])
        size = true_size
    truth = READERS[metric](answer, size, box_format, where, names["answer"])
    return {
        "id": str(value("id")) if value("id") is not None else fallback,
        "image": image,
        "width": size[0] if size else None,
        "height": size[1] if size else None,
        "prompt": prompt.strip(),
        "group": str(value("group")) if value("group") is not None else None,
        "level": fields.whole(value("level") or 0, where, "level"),
        **({"answer": json.dumps(answer)} | truth),
    }


def _text(answer: Any, _size: Size | None, _box_format: str, where: str, field: str) -> dict[str, Any]:
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise InvalidData(where, field, f"{answer!r} is neither text nor number", "write it as a text")
    return {"answer": str(answer).strip()}


def _number(answer: Any, _size: Size | None, _box_format: str, where: str, field: str) -> dict[str, Any]:
    try:
        value = Decimal(str(answer).strip()) if not isinstance(answer, bool) else Decimal("nan")
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite() or abs(value.adjusted()) > 30 or sum(map(str.isdigit, plain(value))) > 30:
        remedy = "write a number such as -12.5, without unit or thousands mark"
        raise InvalidData(where, field, f"{answer!r} is no number of at most 30 digits", remedy)
    # A text keeps its zeros ("12.50" is taught as 12.50); anything else is written the shortest way.
    is_plain = isinstance(answer, str) and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", answer.strip(), re.ASCII)
    return {"answer": answer.strip() if is_plain else plain(value)}


def _box(answer: Any, size: Size | None, box_format: str, where: str, field: str) -> dict[str, Any]:
    return {"box": checked_box(answer, _needed(size, where), where, field, xywh=box_format == "xywh")}


def _polygon(answer: Any, size: Size | None, _box_format: str, where: str, field: str) -> dict[str, Any]:
    width, height = _needed(size, where)
    remedy = "write [[x, y], [x, y], [x, y], ...] in pixels of the picture"
    try:
        read = json.loads(answer) if isinstance(answer, str) else answer
        flat = [float(v) for point in read for v in (point if isinstance(point, list) else [point])]
        paired = all(not isinstance(point, list) or len(point) == 2 for point in read)
    except (TypeError, ValueError, RecursionError):
        flat, paired = [], False
    points = [list(point) for point in zip(flat[::2], flat[1::2], strict=False)]
    if not paired or len(flat) % 2 or len(points) < 3 or not all(map(math.isfinite, flat)):
        raise InvalidData(where, field, f"{answer!r} is no polygon", remedy)
    if any(not (-SLACK <= x <= width + SLACK and -SLACK <= y <= height + SLACK) for x, y in points):
        raise InvalidData(where, field, f"{answer!r} lies outside the {width} x {height} picture", remedy)
    crossed = sum(x * v - u * y for (x, y), (u, v) in zip(points, points[1:] + points[:1], strict=True))
    if crossed == 0:
        raise InvalidData(where, field, f"{answer!r} has no area", remedy)
    return {"polygon": points}


def _time(answer: Any, _size: Size | None, _box_format: str, where: str, field: str) -> dict[str, Any]:
    parts = (answer.get("hour"), answer.get("minute")) if isinstance(answer, dict) else (answer,)
    text = ":".join(map(str, parts)).strip()
    match = re.fullmatch(r"(\d{1,2}):(\d{1,2})", text, re.ASCII)
    hour, minute = map(int, match.groups()) if match else (99, 99)
    if hour > 24 or minute > 59:
        raise InvalidData(where, field, f"{answer!r} is no time", 'write "HH:MM"')
    return {"hour": (hour - 1) % 12 + 1, "minute": minute}


def _needed(size: Size | None, where: str) -> Size:
    if size is None:
        raise InvalidData(where, "image", "is missing, so pixels mean nothing", "give a picture, or width and height")
    return size


READERS: dict[str, Callable[[Any, Size | None, str, str, str], dict[str, Any]]] = {
    "exact": _text,
    "numeric": _number,
    "box": _box,
    "polygon": _polygon,
    "time": _time,
}
