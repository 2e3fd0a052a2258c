"""Tables of points and of targets to point at: PixMo-Points, ScreenSpot, and own tables of their layout.

| layout | question | target |
|---|---|---|
| `pixmo` | `label` | `points`: `{"x": .., "y": ..}` in percent of the sides; an empty list: nothing fits |
| `screenspot` | `instruction` | `bbox`: x, y, w, h in pixels (ScreenSpot, v2); `box_format=xyxy` (ScreenSpot-Pro) |

The picture is named in `image`, `img_filename`, `image_path` or `image_url`. PixMo's release has addresses
(`image_url`): its pictures are fetched first and their paths written beside them, or with allow_urls=true by the
reading. A column `id` names the rows. Files: .json, .jsonl, .csv or .parquet.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from data.common import fields
from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, OnError, RowErrors, short
from data.common.frames import Frames
from data.common.images import given_picture
from data.common.row_cache import cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, matching_files, optional_path, without_nulls
from data.common.table_files import columns, read_table
from data.grounding.schema import BoxColumn
from data.objects.schema import FEATURES, TRUTH, objects_row

Layout = Literal["pixmo", "screenspot"]
QUESTIONS = {"pixmo": ("label", "question"), "screenspot": ("instruction", "question")}
TARGETS = {"pixmo": "points", "screenspot": "bbox"}
IMAGES = ("image", "img_filename", "image_path", "image_url")
PERCENT = "write points as {x: .., y: ..} in percent of the picture's sides"


class PointTable(Source):
    """Source of a table of points or targets.

    Args:
        files: split -> file, or a glob of files.
        layout: pixmo or screenspot, see the module's docstring.
        images: the folder that picture paths start from; null: the table's own.
        box_format: of screenspot's targets.
        on_error: what to do with a broken row.
        allow_urls: fetch pictures that are given by web address.
    """

    def __init__(
        self,
        files: dict[str, str | None],
        layout: Layout = "screenspot",
        images: str | None = None,
        box_format: Literal["xywh", "xyxy"] = "xywh",
        on_error: OnError = "raise",
        allow_urls: bool | None = None,
    ) -> None:
        self.allow_urls = bool(allow_urls)
        self.files, self.layout, self.images = without_nulls(files), layout, optional_path(images)
        self.box_format = box_format
        self.splits, self.row_errors = tuple(self.files), RowErrors(on_error)

    def check_files(self) -> None:
        for split in self.files:
            matching_files(self.files, split)

    def rows(self, split: str) -> Dataset:
        paths = matching_files(self.files, split)
        options = {"layout": self.layout, "box_format": self.box_format, "images": str(self.images)}

        def read(policy: RowErrors) -> Dataset:
            where = f"{', '.join(map(str, paths))}, split {split}"
            writer = RowWriter(FEATURES, where, policy, "question", TRUTH)
            for path in paths:
                self._read_file(path, split, writer, policy)
            return writer.dataset()

        reader = partial(read_with_evidence, read)
        return cached_rows(self, split, paths, options, self.row_errors, lambda _: {split: reader})

    def _read_file(self, path: Path, split: str, writer: RowWriter, policy: RowErrors) -> None:
        names: dict[str, str] = {}
        boxes, frames = BoxColumn(self.box_format), Frames("shown")
        largest = 0.0
        for number, where, item in read_table(path, policy):
            names = names or self._names(columns(path, policy), path)
            with policy.row():
                cell = item.get(names["image"])
                image, sizes = given_picture(cell, self.images or path.parent, where, names["image"])
                declared = fields.size(item.get("width"), item.get("height"), where) or (None, None)
                remedy = "use the table's own pictures"
                image, size = frames.choose(image, sizes, declared, where, "the table", remedy, names["image"])
                question = fields.text(item.get(names["question"]), where, names["question"])
                target = item.get(names["target"])
                common: dict[str, Any] = {"picture": (image, size), "question": question, "split": split}
                row_id = _id(item, where) or f"{split}-{path.stem}-{number}"
                if self.layout == "screenspot":
                    box = boxes.read(target, size, where, names["target"])
                    writer.add(where, objects_row(row_id, boxes=[box], **common))
                    continue
                points = _points(target, where, names["target"])
                _check_count(item, points, where)
                largest = max([largest, *(v for point in points for v in point)])
                pixels = [[x * size[0] / 100, y * size[1] / 100] for x, y in points]
                writer.add(where, objects_row(row_id, boxes=[], points=pixels, **common))
        frames.note(str(path), policy)
        if names and self.layout == "screenspot":
            boxes.check(str(path), names["target"], policy)
        if 0 < largest <= 1:
            raise InvalidData(str(path), names["target"], "no number is above 1: these are parts of 1", PERCENT)

    def _names(self, there: list[str], path: Path) -> dict[str, str]:
        candidates = {"image": IMAGES, "question": QUESTIONS[self.layout], "target": (TARGETS[self.layout],)}
        names = {}
        for role, known in candidates.items():
            name = next((name for name in known if name in there), None)
            if name is None:
                problem = f"no column for the {role} ({' or '.join(known)}); found {', '.join(map(str, there))}"
                raise InvalidData(str(path), None, problem, "rename the column, or set task.source.layout")
            names[role] = name
        return names


def _id(item: dict[str, Any], where: str) -> str | None:
    name = fields.filled(item.get("id"))
    return None if name is None else str(fields.key(name, where, "id"))


def _points(cell: Any, where: str, field: str) -> list[tuple[float, float]]:
    points = []
    for value in fields.items(fields.unpacked(cell, where, field), where, field, PERCENT):
        point = fields.record(value, where, field, PERCENT)
        x, y = (fields.number(point.get(name), where, field, PERCENT) for name in ("x", "y"))
        if not (0 <= x <= 100 and 0 <= y <= 100):
            raise InvalidData(where, field, f"{short(value)} lies outside the picture", PERCENT)
        points.append((x, y))
    return points


def _check_count(item: dict[str, Any], points: list[tuple[float, float]], where: str) -> None:
    count = fields.filled(item.get("count"))
    if count is not None and fields.whole(count, where, "count") != len(points):
        problem = f"{short(count)} isn't the number of points, {len(points)}"
        raise InvalidData(where, "count", problem, "correct the row, or drop it")
