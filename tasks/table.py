"""Any table of your own, without code: `task=jsonl task.train=my.jsonl task.test=test.jsonl task.metric=numeric`.

What a row holds: `data.own_table`. How answers are written, read and scored, by `metric`:

| metric | taught | scores (headline first) | strict reading | lenient reading |
|---|---|---|---|---|
| `exact` | the answer's text | `exact` | the whole text | case, blanks and quotes or stops at the ends ignored |
| `numeric` | the number | `tasks.quantity`: `exact`, `relative_error`, ... | one plain number | the last number |
| `box` | in the model's format | `tasks.grounding`: `acc_0.5`, `iou`, ... | one box | the first four numbers |
| `polygon` | in the model's format | `acc_0.5`, `iou`, `acc_0.75` | one polygon | the first shape |
| `time` | `HH:MM` | `tasks.clock`: `exact`, `within_1`, ... | `HH:MM` | the first time |

`iou` of polygons is that of their areas; a polygon that crosses itself covers what either of its parts covers.

Without a `validation` table every twentieth row of `train` (at least one, from the first on) is held out for it.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import shapely
from datasets import Dataset
from PIL import Image, ImageDraw

from data import own_table
from data.broken import OnError, Tolerance
from data.own_table import Metric
from data.table_files import matching
from tasks import coords as formats
from tasks.base import ParseFailure, Row, Scores, Task, captioned
from tasks.clock import Clock
from tasks.coords import Coords, Polygon
from tasks.grounding import Grounding, enlarged, pictured
from tasks.quantity import NumberTask

HELD_OUT = 20


def table_task(
    metric: Metric = "exact",
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    images: str | None = None,
    columns: dict[str, str | None] | None = None,
    box_format: str = "xyxy",
    max_new_tokens: int | None = None,
    coords: Coords = formats.FORMATS["int1000"],
    on_error: OnError = "raise",
) -> Task:
    """
    Args:
        metric: exact, numeric, box, polygon or time.
        train, validation, test: a file or a glob of files each.
        images: the folder that picture paths start from; null: the table's own.
        columns: role -> column, where they differ: image, prompt, answer, id, group, level, width, height.
        box_format: xyxy or xywh, of the answers in the table.
        max_new_tokens: what generation may write at most; null: the metric's own.
        coords: the model's coordinate format.
        on_error: what to do with a broken row.
    """
    if metric not in TASKS:
        raise ValueError(f"task.metric must be {', '.join(TASKS)}, got {metric!r}")
    if box_format not in ("xyxy", "xywh"):
        raise ValueError(f"task.box_format must be xyxy or xywh, got {box_format!r}")
    files = {name: file for name, file in (("train", train), ("validation", validation), ("test", test)) if file}
    if not files:
        raise ValueError("give a table: task.train=<file> task.test=<file>")
    chosen = {role: name for role, name in (columns or {}).items() if name}
    unknown = sorted(set(chosen) - {"prompt", "answer", *own_table.OPTIONAL})
    if unknown:
        known = ", ".join(("prompt", "answer", *own_table.OPTIONAL))
        raise ValueError(f"task.columns.{unknown[0]}: there is no such role; known: {known}")
    task = TASKS[metric](metric, files, Path(images) if images else None, chosen, box_format, coords, on_error)
    task.max_new_tokens = max_new_tokens or task.max_new_tokens
    return task


class Table(Task):
    """The part that all metrics share: reading the rows, and the prompt."""

    def __init__(
        self,
        kind: Metric,
        files: dict[str, str],
        images: Path | None,
        columns: dict[str, str],
        box_format: str,
        coords: Coords,
        on_error: OnError,
    ) -> None:
        self.kind, self.files, self.images, self.columns = kind, files, images, columns
        self.box_format, self.coords, self.tolerance = box_format, coords, Tolerance(on_error)
        given = [*files, *(["validation"] if "train" in files else [])]
        self.split_names = tuple(dict.fromkeys(sorted(given, key=("train", "validation", "test").index)))
        self._read: dict[str, Dataset] = {}

    def rows(self, split: str) -> Dataset:
        if split in ("train", "validation") and "train" in self.files and "validation" not in self.files:
            rows = self._rows_of("train")
            if len(rows) < 2:
                raise ValueError("one row can't be both trained on and validated with; set task.validation=<file>")
            kept = [i for i in range(len(rows)) if (i % HELD_OUT == 0) == (split == "validation")]
            return rows.select(kept)
        if split not in self.files:
            raise ValueError(f"there is no table for the split {split!r}; set task.{split}=<file>")
        return self._rows_of(split)

    def _rows_of(self, split: str) -> Dataset:
        assert self.tolerance is not None
        if split not in self._read:
            files = matching(self.files[split], f"task.{split}")
            given = (self.kind, self.columns, self.box_format, self.images, self.tolerance)
            self._read[split] = own_table.load(files, *given)
        return self._read[split]

    def prompt(self, row: Row) -> str:
        return str(row["prompt"])

    def groups(self, row: Row) -> list[str]:
        return [row["group"]] if row["group"] is not None else []


class ExactTable(Table):
    metric = "exact"
    max_new_tokens = 64

    def answer(self, row: Row) -> str:
        return str(row["answer"])

    def parse(self, text: str, row: Row) -> str | ParseFailure:
        return text.strip() or ParseFailure("nothing was written")

    def parse_lenient(self, text: str, row: Row) -> str | ParseFailure:
        # What counts as the same is judged against the truth, so that the truth itself is always found.
        read = self.parse(text, row)
        same = not isinstance(read, ParseFailure) and _loosened(read) == _loosened(row["answer"])
        return str(row["answer"]) if same else read

    def score(self, prediction: str | ParseFailure, row: Row) -> Scores:
        return {"exact": float(prediction == row["answer"])}


class NumericTable(Table, NumberTask):
    def answer(self, row: Row) -> str:
        return str(row["answer"])

    def truth(self, row: Row) -> Decimal:
        return Decimal(row["answer"])


class BoxTable(Table, Grounding):
    """Rows have `box`, `width` and `height`, as referring expressions have."""

    max_new_tokens = 48


class TimeTable(Table, Clock):
    """Rows have `hour` and `minute`, as clocks have."""


class PolygonTable(Table):
    metric = "acc_0.5"
    coordinates = True
    max_new_tokens = 256

    def answer(self, row: Row) -> str:
        return self.coords.polygon(row["polygon"], (row["width"], row["height"]))

    def parse(self, text: str, row: Row) -> Polygon | ParseFailure:
        return self.coords.parse_polygon(text, (row["width"], row["height"])) or ParseFailure("no polygon")

    def parse_lenient(self, text: str, row: Row) -> Polygon | ParseFailure:
        found = self.coords.find_shapes(text, (row["width"], row["height"]))
        return found[0] if found else ParseFailure("no three points in range")

    def score(self, prediction: Polygon | ParseFailure, row: Row) -> Scores:
        overlap = 0.0 if isinstance(prediction, ParseFailure) else polygon_iou(prediction, row["polygon"])
        return {"iou": overlap, **{f"acc_{t}": float(overlap >= t) for t in (0.5, 0.75)}}

    def draw(self, row: Row, prediction: Polygon | ParseFailure) -> Image.Image:
        """Truth in green under the prediction in red."""
        picture, scale = enlarged(pictured(row))
        pen = ImageDraw.Draw(picture)
        scores = self.score(prediction, row)
        shapes = [(row["polygon"], (0, 230, 70), 4)]
        if not isinstance(prediction, ParseFailure):
            shapes.append((prediction, (230, 30, 30), 1))
        for points, colour, width in shapes:
            pen.line([(x * scale, y * scale) for x, y in [*points, points[0]]], fill=colour, width=width)
        said = prediction.reason if isinstance(prediction, ParseFailure) else f"IoU {scores['iou']:.2f}"
        return captioned(picture, row["prompt"], said, scores["acc_0.5"] == 1.0)


TASKS: dict[str, Any] = {
    "exact": ExactTable,
    "numeric": NumericTable,
    "box": BoxTable,
    "polygon": PolygonTable,
    "time": TimeTable,
}


def polygon_iou(first: Polygon, second: Polygon | list[list[float]]) -> float:
    """Shared over united area of two polygons, 0..1."""
    a, b = (shapely.make_valid(shapely.Polygon(points)) for points in (first, second))
    shared = shapely.intersection(a, b).area
    return float(shared / (a.area + b.area - shared)) if shared > 0 else 0.0


def _loosened(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" \t\"'`.,;:!?()[]").casefold() or text
