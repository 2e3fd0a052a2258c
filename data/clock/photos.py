"""Photographs of clocks with a labels CSV, in two layouts told apart by their columns.

    own                 image, hour, minute, perhaps bbox_xywh and note
    "It's About Time"   file_name, hour, minute, bbox_det, perhaps img_id and bbox_gt: the label files of Yang et al.
                        (CVPR 2022) for COCO, OpenImages and ClockMovies

Pictures lie in `images`, by default beside the CSV. Boxes are JSON, [x, y, w, h] in pixels of the picture as
viewers show it (turned by its EXIF orientation).

* `bbox_xywh` is one box or a list of them, one per clock in the photo. Of several, the time belongs to the one that
  overlaps most the `bbox_det=[x, y, w, h]` written in `note`. The picture is cropped to it with a tenth of its size
  around it.
* `bbox_det` is the detected clock that the time belongs to, and what the official evaluation shows its model:
  with a fifth of its size around it, then widened to a square where the picture allows it. It reports `top-1` (within a
  minute on the circle: our `within_1`), the hour (our `hour`) and the minute (our `minute_within_1`).

Columns: as of data.clock.rendered, so that a task can take either.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset
from PIL import Image as PILImage
from PIL import ImageOps

from data.clock.schema import FEATURES, level_of
from data.common.counts import counted
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors
from data.common.images import check_picture, png
from data.common.rgb import rgb
from data.common.rows import RowWriter
from data.common.source import Source, optional_path, require_file
from data.common.table_files import read_table

Box = tuple[float, float, float, float]  # x, y, w, h


class ClockPhotos(Source):
    """Source of photographs with a labels CSV; it has a test split only.

    Args:
        labels: the labels CSV.
        images: the folder of its photographs; null: beside the CSV.
        on_error: what to do with a broken row.
    """

    splits = ("test",)

    def __init__(self, labels: str, images: str | None = None, on_error: OnError = "raise") -> None:
        self.labels, self.images = Path(labels).expanduser(), optional_path(images)
        self.row_errors = RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        self.check_split(split)
        return load(self.labels, self.images, self.row_errors)

    def check_split(self, split: str) -> None:
        if split != "test":
            raise InvalidOption(
                f"photographs of clocks are for testing only, there is no split {split!r}; use split=test"
            )

    def check_files(self) -> None:
        require_file(self.labels, "set task.source.labels=<a CSV with image, hour, minute>")


class _Crop(NamedTuple):
    box: Box
    margin: float  # of the box's size, on every side
    square: bool


def load(labels: Path, images: Path | None = None, row_errors: RowErrors | None = None) -> Dataset:
    """All photos of a labels file.

    Raises:
        InvalidData: no file, a missing column, or (on_error=raise) a row that can't be used, with file, line and field.
    """
    require_file(labels, "set task.source.labels=<a CSV with image, hour, minute>")
    row_errors = row_errors or RowErrors()
    writer = RowWriter(FEATURES, str(labels), row_errors)
    for number, where, item in read_table(labels, row_errors):
        image = "file_name" if "file_name" in item and "image" not in item else "image"
        missing = [name for name in (image, "hour", "minute") if name not in item]
        if missing:
            columns = ", ".join(item)
            raise InvalidData(str(labels), missing[0], f"there is no such column; found {columns}", "rename the column")
        with row_errors.row():
            writer.add(where, _row(item, number, image, images or labels.parent, where))
    return writer.dataset()


def _row(item: dict[str, str], number: int, image: str, images: Path, where: str) -> dict[str, Any]:
    try:
        hour, minute = int(item["hour"]), int(item["minute"])
    except ValueError:
        raw = f"{item['hour']!r}, {item['minute']!r}"
        raise InvalidData(where, "hour", f"hour and minute must be whole, got {raw}", "correct the row") from None
    if not (0 <= hour <= 24 and 0 <= minute <= 59):
        raise InvalidData(where, "hour", f"{hour}:{minute} is no time", "correct the row")
    path = images / item[image]
    check_picture(path, where, image)
    with PILImage.open(path) as opened:
        picture = rgb(ImageOps.exif_transpose(opened))
    crop = _wanted(item, where)
    if crop is not None:
        picture = _cropped(picture, crop, where)
    name = item.get("img_id") or f"{number}-{path.stem}"
    return {"id": name, "image": png(picture), "hour": (hour - 1) % 12 + 1, "minute": minute, "level": level_of(minute)}


def _wanted(item: dict[str, str], where: str) -> _Crop | None:
    if item.get("bbox_det"):
        boxes = _boxes(item["bbox_det"], where, "bbox_det")
        if len(boxes) != 1:
            raise InvalidData(
                where, "bbox_det", counted(len(boxes), "box", "boxes"), "give the one box that the time belongs to"
            )
        return _Crop(boxes[0], 0.2, square=True)
    text = (item.get("bbox_xywh") or "").strip()
    if not text:
        return None
    boxes = _boxes(text, where, "bbox_xywh")
    if len(boxes) == 1:
        return _Crop(boxes[0], 0.1, square=False)
    detected = re.search(r"bbox_det=(\[[^\]]*\])", item.get("note") or "")
    if detected is None:
        remedy = "write bbox_det=[x, y, w, h] of the clock that the time belongs to into 'note'"
        raise InvalidData(where, "bbox_xywh", f"{counted(len(boxes), 'box', 'boxes')} and nothing to choose by", remedy)
    chosen = _boxes(detected[1], where, "note")[0]
    return _Crop(max(boxes, key=lambda box: _iou(box, chosen)), 0.1, square=False)


def _boxes(text: str, where: str, field: str) -> list[Box]:
    remedy = "write [x, y, w, h] in pixels, with w and h above 0, or a list of them"
    try:
        read = json.loads(text)
        boxes = [tuple(map(float, box)) for box in (read if isinstance(read[0], list) else [read])]
    except (ValueError, TypeError, IndexError, KeyError, RecursionError):
        raise InvalidData(where, field, f"{text!r} is no box", remedy) from None
    if any(len(box) != 4 or not box[2] > 0 or not box[3] > 0 for box in boxes):
        raise InvalidData(where, field, f"{text!r} is no box with an area", remedy)
    return boxes  # type: ignore[return-value]


def _iou(a: Box, b: Box) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def _cropped(picture: PILImage.Image, crop: _Crop, where: str) -> PILImage.Image:
    x, y, w, h = crop.box
    wide, high = w * crop.margin, h * crop.margin
    left, top = max(0, round(x - wide)), max(0, round(y - high))
    right, bottom = min(picture.width, round(x + w + wide)), min(picture.height, round(y + h + high))
    if right <= left or bottom <= top:
        problem = f"{list(crop.box)} lies outside the {picture.width} x {picture.height} picture"
        raise InvalidData(where, "box", problem, "use the pictures that the boxes were drawn on")
    if crop.square:
        half, middle_x, middle_y = max(right - left, bottom - top) // 2, (left + right) // 2, (top + bottom) // 2
        left, right = max(0, middle_x - half), min(picture.width, middle_x + half)
        top, bottom = max(0, middle_y - half), min(picture.height, middle_y + half)
    return picture.crop((left, top, right, bottom))
