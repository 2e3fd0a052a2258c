"""Photographs of clocks with a labels CSV, in two layouts told apart by their columns.

    own                 image, hour, minute, perhaps bbox_xywh and note
    "It's About Time"   file_name, hour, minute, bbox_det, perhaps img_id and bbox_gt: the label files of Yang et al.
                        (CVPR 2022) for COCO, OpenImages and ClockMovies

The labels may be any other table too (.tsv, .jsonl, .json, .parquet), with boxes as lists. Pictures lie in `images`,
by default beside the table. Boxes are JSON, [x, y, w, h] in pixels of the picture as viewers show it (turned by its
EXIF orientation). A clock that is given two times is refused.

* `bbox_xywh` is one box or a list of them, one per clock in the photo. Of several, the time belongs to the one that
  overlaps most the `bbox_det=[x, y, w, h]` written in `note`. The picture is cropped to it with a tenth of its size
  around it.
* `bbox_det` is the detected clock that the time belongs to, and what the official evaluation shows its model:
  with a fifth of its size around it, then widened to a square where the picture allows it. It reports `top-1` (within a
  minute on the circle: our `within_1`), the hour (our `hour`) and the minute (our `minute_within_1`).

Columns: as of data.clock.rendered, so that a task can take either.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from PIL import Image as PILImage
from PIL import ImageOps

from data.clock.schema import FEATURES, level_of
from data.common import fields
from data.common.column_form import ColumnForm, Misfit, read_with_evidence
from data.common.counts import counted
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors, short
from data.common.images import given_picture, png
from data.common.rgb import rgb
from data.common.row_cache import cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, optional_path, require_file
from data.common.table_files import columns, read_table
from data.grounding.schema import BoxColumn, checked_box

Box = list[float]  # x1, y1, x2, y2
SMALLEST = 2  # pixels of a crop's sides: less shows no clock


class ClockPhotos(Source):
    """Source of photographs with a labels CSV; it has a test split only.

    Args:
        labels: the labels CSV.
        images: the folder of its photographs; null: beside the CSV.
        on_error: what to do with a broken row.
    """

    splits = ("test",)

    def __init__(
        self, labels: str, images: str | None = None, on_error: OnError = "raise", allow_urls: bool | None = None
    ) -> None:
        self.allow_urls = bool(allow_urls)
        self.labels, self.images = Path(labels).expanduser(), optional_path(images)
        self.row_errors = RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        self.check_split(split)
        read, options = partial(load, self.labels, self.images), {"images": str(self.images)}
        return cached_rows(self, split, [self.labels], options, self.row_errors, lambda _: {split: read})

    def check_split(self, split: str) -> None:
        if split != "test":
            raise InvalidOption(
                f"photographs of clocks are for testing only, there is no split {split!r}; use split=test"
            )

    def check_files(self) -> None:
        require_file(self.labels, "set task.source.labels=<a CSV with image, hour, minute>")


class _Crop(NamedTuple):
    field: str
    box: Box
    margin: float  # of the box's size, on every side
    square: bool


class _Labels:
    """What was read so far: the columns of boxes, and the time of every clock."""

    def __init__(self) -> None:
        self.columns = {name: BoxColumn("xywh", "pixels") for name in ("bbox_det", "bbox_xywh")}
        forms = {
            "hour and minute": lambda hour, minute: 0 <= hour <= 24 and 0 <= minute <= 59,
            "minute and hour": lambda hour, minute: 0 <= minute <= 24 and 0 <= hour <= 59,
        }
        self.form = ColumnForm("hour and minute", forms)
        self.times: dict[tuple[str, str], tuple[str, str]] = {}

    def check_time(self, clock: tuple[str, str], time: str, where: str) -> None:
        """Check that a clock, a picture and the part of it, was given no other time.

        Raises:
            InvalidData: it was.
        """
        first, other = self.times.setdefault(clock, (where, time))
        if time != other:
            raise InvalidData(where, "hour", f"{time} for a clock that {first} gives {other}", "correct one of them")

    def check_columns(self, where: str, row_errors: RowErrors) -> None:
        """Check that boxes are [x, y, w, h] in pixels, and hours no minutes, judged from all of them.

        Raises:
            ContradictedColumn: they aren't.
        """
        self.form.check(where, "hour", "they are {form}: rename the columns")
        for name, column in self.columns.items():
            column.check(where, name, row_errors)


def load(labels: Path, images: Path | None = None, row_errors: RowErrors | None = None) -> Dataset:
    """All photos of a labels file.

    Raises:
        InvalidData: no file, a missing column, or (on_error=raise) a row that can't be used, with file, line and field.
    """
    require_file(labels, "set task.source.labels=<a CSV with image, hour, minute>")
    return read_with_evidence(partial(_load, labels, images or labels.parent), row_errors or RowErrors())


def _load(labels: Path, images: Path, row_errors: RowErrors) -> Dataset:
    names = columns(labels, row_errors)
    image = "file_name" if "file_name" in names and "image" not in names else "image"
    if names and (missing := [name for name in (image, "hour", "minute") if name not in names]):
        problem = f"there is no such column; found {', '.join(names)}"
        raise InvalidData(str(labels), missing[0], problem, "rename the column")
    writer, read = RowWriter(FEATURES, str(labels), row_errors), _Labels()
    for number, where, item in read_table(labels, row_errors):
        with row_errors.row():
            writer.add(where, _row(item, number, image, images, where, read))
    read.check_columns(str(labels), row_errors)
    return writer.dataset()


def _row(item: dict[str, Any], number: int, image: str, images: Path, where: str, read: _Labels) -> dict[str, Any]:
    hour, minute = (fields.whole(item.get(name), where, name) for name in ("hour", "minute"))
    read.form.add(where, hour, minute)
    if not (0 <= hour <= 24 and 0 <= minute <= 59):
        raise Misfit(where, "hour", f"{hour}:{minute} is no time", "correct the row")
    stored, size = given_picture(item.get(image), images, where, image)
    crop = _wanted(item, size.shown, where, read.columns)
    hour = (hour - 1) % 12 + 1
    read.check_time((_known_by(stored), str(crop and crop.box)), f"{hour}:{minute:02}", where)
    picture = _decoded(stored, where, image)
    if crop is not None:
        picture = _cropped(picture, crop, where)
    name = item.get("img_id")
    name = (
        f"{number}-{Path(stored['path'] or 'picture').stem}"
        if fields.filled(name) is None
        else str(fields.key(name, where, "img_id"))
    )
    return {"id": name, "image": png(picture), "hour": hour, "minute": minute, "level": level_of(minute)}


def _known_by(stored: dict[str, Any]) -> str:
    return stored["path"] or hashlib.sha256(stored["bytes"]).hexdigest()


def _decoded(stored: dict[str, Any], where: str, field: str) -> PILImage.Image:
    try:
        with PILImage.open(stored["path"] or io.BytesIO(stored["bytes"])) as opened:
            return rgb(ImageOps.exif_transpose(opened))
    except Exception as error:  # a broken picture raises nearly anything
        problem = f"{stored['path'] or 'the stored picture'} is broken or truncated ({error})"
        raise InvalidData(where, field, problem, "fetch the file again or drop the row") from error


def _wanted(item: dict[str, Any], size: tuple[int, int], where: str, columns: dict[str, BoxColumn]) -> _Crop | None:
    if fields.filled(item.get("bbox_det")) is not None:
        boxes = _boxes(item["bbox_det"], size, where, "bbox_det", columns)
        if len(boxes) != 1:
            raise InvalidData(
                where, "bbox_det", counted(len(boxes), "box", "boxes"), "give the one box that the time belongs to"
            )
        return _Crop("bbox_det", boxes[0], 0.2, square=True)
    if fields.filled(item.get("bbox_xywh")) is None:
        return None
    boxes = _boxes(item["bbox_xywh"], size, where, "bbox_xywh", columns)
    if len(boxes) == 1:
        return _Crop("bbox_xywh", boxes[0], 0.1, square=False)
    detected = re.search(r"bbox_det=(\[[^\]]*\])", str(item.get("note") or ""))
    if detected is None:
        remedy = "write bbox_det=[x, y, w, h] of the clock that the time belongs to into 'note'"
        raise InvalidData(where, "bbox_xywh", f"{counted(len(boxes), 'box', 'boxes')} and nothing to choose by", remedy)
    chosen = checked_box(detected[1], size, where, "note", xywh=True)
    return _Crop("bbox_xywh", max(boxes, key=lambda box: _iou(box, chosen)), 0.1, square=False)


def _boxes(value: Any, size: tuple[int, int], where: str, field: str, columns: dict[str, BoxColumn]) -> list[Box]:
    """One box, or a list of them; a CSV field holds them as JSON."""
    try:
        read = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        read = value
    boxes = read if isinstance(read, list) and read and isinstance(read[0], list) else [read]
    return [columns[field].read(_with_area(box, where, field), size, where, field) for box in boxes]


def _with_area(box: Any, where: str, field: str) -> Any:
    remedy = "write [x, y, w, h] in pixels, with w and h above 0, or a list of them"
    if not isinstance(box, list) or not all(map(fields.is_number, box)):
        raise InvalidData(where, field, f"{short(box)} is no box", remedy)
    if len(box) != 4 or min(float(side) for side in box[2:]) <= 0:
        raise InvalidData(where, field, f"{short(box)} is no box with an area", remedy)
    return box


def _iou(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def _cropped(picture: PILImage.Image, crop: _Crop, where: str) -> PILImage.Image:
    x1, y1, x2, y2 = crop.box
    wide, high = (x2 - x1) * crop.margin, (y2 - y1) * crop.margin
    left, top = max(0, round(x1 - wide)), max(0, round(y1 - high))
    right, bottom = min(picture.width, round(x2 + wide)), min(picture.height, round(y2 + high))
    if min(right - left, bottom - top) < SMALLEST:
        problem = f"{crop.box} (its corners) leaves {right - left} x {bottom - top} pixels, which show no clock"
        raise InvalidData(where, crop.field, problem, "use the pictures that the boxes were drawn on, or drop the row")
    if crop.square:
        half, middle_x, middle_y = max(right - left, bottom - top) // 2, (left + right) // 2, (top + bottom) // 2
        left, right = max(0, middle_x - half), min(picture.width, middle_x + half)
        top, bottom = max(0, middle_y - half), min(picture.height, middle_y + half)
    return picture.crop((left, top, right, bottom))
