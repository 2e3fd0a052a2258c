"""Scores of lists of boxes and points without confidences: F1, repeats, counts, and COCO's mAP by the answer's order.

Matching is COCO's (pycocotools' `COCOeval`), with the order of the answer in place of confidences: box after box takes
the free true box of its label with the largest overlap, if that reaches the threshold; what falls on a crowd (one box
around several objects) counts for nothing. So the counts behind F1 are those of pycocotools on the same boxes.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.objects.schema import plain_label
from tasks.metrics.boxes import box_iou

THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
REPEATED = 0.9  # overlap with an earlier box of its label from which a box repeats it
MOST = 1000  # boxes of a picture that count for mAP (COCO's own limit of 100 cuts crowded answers)


@dataclass(frozen=True)
class Labelled:
    """A box, x1, y1, x2, y2 in pixels, and its label (empty: none). `crowd`: around several objects."""

    box: Sequence[float]
    label: str = ""
    crowd: bool = False


def matched(predicted: Sequence[Labelled], true: Sequence[Labelled], threshold: float) -> tuple[int, int]:
    """How many boxes are matched with a true one, and how many count at all (those on a crowd don't)."""
    free = set(range(len(true)))
    right = counted = 0
    for item in predicted:
        same = [i for i, truth in enumerate(true) if same_label(truth.label, item.label)]
        overlaps = {i: box_iou(item.box, true[i].box) for i in same if i in free and not true[i].crowd}
        best = max(overlaps, key=lambda i: (overlaps[i], i), default=None)
        if best is not None and overlaps[best] >= min(threshold, 1 - 1e-10):
            free.remove(best)
            right, counted = right + 1, counted + 1
        elif not any(true[i].crowd and inside(item.box, true[i].box) >= threshold for i in same):
            counted += 1
    return right, counted


def inside(box: Sequence[float], crowd: Sequence[float]) -> float:
    """Share of a box that lies in a crowd, which is what overlap with a crowd means in COCO."""
    wide = min(box[2], crowd[2]) - max(box[0], crowd[0])
    high = min(box[3], crowd[3]) - max(box[1], crowd[1])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return max(wide, 0.0) * max(high, 0.0) / area if area > 0 else 0.0


def same_label(first: str, second: str) -> bool:
    """Whether two labels are the same but for case and blanks."""
    return plain_label(first) == plain_label(second)


def f1(right: float, predicted: float, true: float) -> float:
    """F1 of counts; 1 where nothing is there and nothing was predicted."""
    return 2 * right / (predicted + true) if predicted + true else 1.0


def repeats(predicted: Sequence[Labelled]) -> int:
    """How many boxes repeat an earlier one of the same label."""
    return sum(
        any(same_label(item.label, other.label) and box_iou(item.box, other.box) >= REPEATED for other in predicted[:i])
        for i, item in enumerate(predicted)
    )


def mean_average_precision(pictures: Iterable[tuple[Sequence[Labelled], Sequence[Labelled]]]) -> dict[str, float]:
    """`map` (IoU 0.5 to 0.95), `map_0.5` and `map_0.75` by pycocotools over pictures of (predicted, true).

    The order of an answer stands for its confidences: its k-th box has 1 / k. Labels that no picture has are left out,
    as COCO leaves out categories without a true box. Empty without any true box.
    """
    images: list[dict[str, Any]] = []
    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    names: dict[str, int] = {}

    def category(label: str) -> int:
        return names.setdefault(plain_label(label), len(names) + 1)

    for number, (predicted, true) in enumerate(pictures, start=1):
        images.append({"id": number})
        for item in true:
            entry = _entry(item, number, category(item.label))
            truths.append({**entry, "id": len(truths) + 1, "iscrowd": int(item.crowd)})
        for rank, item in enumerate(predicted, start=1):
            results.append({**_entry(item, number, category(item.label)), "score": 1 / rank})
    if not any(not truth["iscrowd"] for truth in truths):
        return {}
    categories = [{"id": number, "name": name} for name, number in names.items()]
    precision = _evaluated(images, categories, truths, results)
    mean = {"map": precision, "map_0.5": precision[:1], "map_0.75": precision[5:6]}
    return {name: float(values[values > -1].mean()) for name, values in mean.items()}


def _entry(item: Labelled, image: int, category: int) -> dict[str, Any]:
    x1, y1, x2, y2 = item.box
    bbox = [x1, y1, x2 - x1, y2 - y1]
    return {"image_id": image, "category_id": category, "bbox": bbox, "area": bbox[2] * bbox[3]}


def _evaluated(images: list[Any], categories: list[Any], truths: list[Any], results: list[Any]) -> np.ndarray:
    """Pycocotools' precision [thresholds, recalls, categories] over all areas; -1 where there is none."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": images, "categories": categories, "annotations": truths}
        truth.createIndex()
        if not results:
            real = {entry["category_id"] for entry in truths if not entry["iscrowd"]}
            return np.zeros((len(THRESHOLDS), 1, len(real)))
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.maxDets = [1, 10, MOST]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]
