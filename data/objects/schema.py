"""The columns that every source of several objects a row gives: what is asked for, and where all of it is.

Columns: id, image, width, height, `question` (what is asked for in words: an expression, an instruction, or the names
asked for, joined by commas), `asked` (the names asked for; empty where the answer has no names), `boxes` (x1, y1, x2,
y2 in pixels of the picture as viewers show it; empty where nothing fits, or where only points are known), `labels` (of
the boxes), `crowd` (of the boxes: one around several objects, which counts for nothing), `points` (x, y in pixels; in
the middle of the boxes where no others are known), split, level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from datasets import Features, Image, List, Value

FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "width": Value("int32"),
        "height": Value("int32"),
        "question": Value("string"),
        "asked": List(Value("string")),
        "boxes": List(List(Value("float64"))),
        "labels": List(Value("string")),
        "crowd": List(Value("bool")),
        "points": List(List(Value("float64"))),
        "split": Value("string"),
        "level": Value("int32"),
    }
)
TRUTH = ("boxes", "labels", "points")


def plain_label(label: str) -> str:
    """A label without what doesn't count: case, and more blanks than one."""
    return " ".join(label.split()).casefold()


def objects_row(
    row_id: str,
    picture: tuple[Any, tuple[int, int]],
    question: str,
    boxes: Sequence[Sequence[float]],
    split: str,
    labels: Sequence[str] | None = None,
    crowd: Sequence[bool] | None = None,
    points: Sequence[Sequence[float]] | None = None,
    asked: Sequence[str] = (),
) -> dict[str, Any]:
    """A row; `level` is the number of objects. `picture`: as stored, and its width and height."""
    image, (width, height) = picture
    middles = [[(x1 + x2) / 2, (y1 + y2) / 2] for x1, y1, x2, y2 in boxes]
    return {
        "id": row_id,
        "image": image,
        "width": width,
        "height": height,
        "question": question,
        "asked": list(asked),
        "boxes": [list(box) for box in boxes],
        "labels": list(labels) if labels is not None else [""] * len(boxes),
        "crowd": list(crowd) if crowd is not None else [False] * len(boxes),
        "points": middles if points is None else [list(point) for point in points],
        "split": split,
        "level": len(boxes if points is None else points),
    }
