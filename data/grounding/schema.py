"""The columns that every source of referring expressions gives, and the check of a box.

Columns: id (of the expression, not of the picture: a picture has several), image, width, height, expression, box (x1,
y1, x2, y2 in pixels of the picture as viewers show it), split (the release's own name), level (how many objects compete
with the one meant, from 0, where a source knows it; a curriculum may schedule it).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from datasets import Features, Image, List, Value

from data.common.errors import InvalidData

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


def xyxy_from_xywh(box: Sequence[float]) -> list[float]:
    """Corners x1, y1, x2, y2 of a box given by its top left corner and its size."""
    x, y, w, h = box
    return [x, y, x + w, y + h]


def checked_box(box: Any, size: tuple[int, int], where: str, field: str = "box", xywh: bool = False) -> list[float]:
    """x1, y1, x2, y2 of a box that has an area and lies in the picture (`SLACK` pixels aside, which are kept).

    Raises:
        InvalidData: anything else.
    """
    form = "[x, y, w, h]" if xywh else "[x1, y1, x2, y2]"
    try:
        # A CSV field holds a box as JSON.
        values = [float(v) for v in (json.loads(box) if isinstance(box, str) else box)]
    except (TypeError, ValueError, RecursionError):
        values = []
    if len(values) != 4 or not all(map(math.isfinite, values)):
        raise InvalidData(where, field, f"{box!r} is not {form}", f"write a box as {form} in pixels")
    x1, y1, x2, y2 = xyxy_from_xywh(values) if xywh else values
    if x2 <= x1 or y2 <= y1:
        raise InvalidData(where, field, f"{box!r} has no area", f"check that boxes are {form}, or drop the row")
    width, height = size
    if x1 < -SLACK or y1 < -SLACK or x2 > width + SLACK or y2 > height + SLACK:
        remedy = f"check that boxes are {form} in pixels of the picture as shown"
        raise InvalidData(where, field, f"{box!r} lies outside the {width} x {height} picture", remedy)
    return [x1, y1, x2, y2]
