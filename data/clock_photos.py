"""Photographs of clocks with a labels CSV: image (path beside the CSV), hour, minute, optional bbox_xywh and note.

`bbox_xywh` is JSON: one [x, y, w, h] in pixels or a list of them, one per clock in the photo. Of several, the time
belongs to the one that overlaps most the `bbox_det=[x, y, w, h]` written in `note`. The picture is cropped to the box
with a tenth of its size around it.

Columns: as of data.clock_rendered, so that a task can take either.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

from datasets import Dataset
from PIL import Image as PILImage

from data.clock_rendered import FEATURES

NEEDED = ("image", "hour", "minute")
Box = tuple[float, float, float, float]


def load(labels: Path, split: str = "test") -> Dataset:
    """All photos of a labels file, as the test split.

    Raises:
        ValueError: a split other than test; a missing column; a row that can't be read, with file, row and field.
    """
    if split != "test":
        raise ValueError(f"photographs of clocks are for testing only, there is no split {split!r}; use split=test")
    if not labels.is_file():
        raise ValueError(f"{labels}: no such labels file; set task.labels=<a CSV with image, hour, minute>")
    with labels.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in NEEDED if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{labels}: no column {', '.join(missing)}; found {reader.fieldnames}")
        rows = [_row(labels, number, row) for number, row in enumerate(reader, start=2)]
    if not rows:
        raise ValueError(f"{labels}: no rows below the header")
    return Dataset.from_list(rows, features=FEATURES)


def _row(labels: Path, number: int, row: dict[str, str]) -> dict[str, Any]:
    where = f"{labels}, line {number}"
    try:
        hour, minute = int(row["hour"]), int(row["minute"])
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: hour and minute must be whole numbers, got {row['hour']!r}, {row['minute']!r}"
        ) from None
    if not (0 <= hour <= 24 and 0 <= minute <= 59):
        raise ValueError(f"{where}: {hour}:{minute} is no time")
    path = labels.parent / row["image"]
    try:
        with PILImage.open(path) as image:
            picture = image.convert("RGB")
    except OSError as error:
        raise ValueError(f"{where}, field image: {path}: {error}") from error
    box = _box(row, where)
    if box is not None:
        picture = _crop(picture, box, where)
    return {"id": f"{number - 2}-{Path(row['image']).stem}", "image": picture, **_truth(hour, minute)}


def _truth(hour: int, minute: int) -> dict[str, int]:
    level = next(i for i, step in enumerate((30, 15, 5, 1)) if minute % step == 0)
    return {"hour": (hour - 1) % 12 + 1, "minute": minute, "level": level}


def _box(row: dict[str, str], where: str) -> Box | None:
    text = (row.get("bbox_xywh") or "").strip()
    if not text:
        return None
    try:
        read = json.loads(text)
        boxes = [tuple(map(float, box)) for box in (read if isinstance(read[0], list) else [read])]
    except (ValueError, TypeError, IndexError, KeyError):
        raise ValueError(f"{where}, field bbox_xywh: not [x, y, w, h] or a list of them: {text!r}") from None
    if any(len(box) != 4 or box[2] <= 0 or box[3] <= 0 for box in boxes):
        raise ValueError(f"{where}, field bbox_xywh: need x, y, w, h with w, h above 0: {text!r}")
    detected = re.search(r"bbox_det=(\[[^\]]*\])", row.get("note") or "")
    if len(boxes) == 1 or detected is None:
        if len(boxes) > 1:
            raise ValueError(f"{where}: {len(boxes)} boxes and no bbox_det=[x, y, w, h] in 'note' to choose by")
        return boxes[0]  # type: ignore[return-value]
    chosen = tuple(json.loads(detected[1]))
    return max(boxes, key=lambda box: _iou(box, chosen))  # type: ignore[return-value,arg-type]


def _iou(a: Box, b: Box) -> float:
    wide = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    high = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def _crop(picture: PILImage.Image, box: Box, where: str) -> PILImage.Image:
    x, y, w, h = box
    edges = (x - w / 10, y - h / 10, x + w * 1.1, y + h * 1.1)
    left, top = max(0, round(edges[0])), max(0, round(edges[1]))
    right, bottom = min(picture.width, round(edges[2])), min(picture.height, round(edges[3]))
    if right <= left or bottom <= top:
        raise ValueError(f"{where}, field bbox_xywh: {box} lies outside the {picture.width} x {picture.height} picture")
    return picture.crop((left, top, right, bottom))
