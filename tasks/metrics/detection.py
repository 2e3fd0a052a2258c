"""Protocols that score detected against annotated text, one picture at a time.

Every protocol gives, for one picture, sums that add up over pictures (and over ranks): so a data set's figures are
micro-averages, computed by `figures` from sums alone, as the official scripts compute them.

* **IoU** (`match`): the ICDAR2015 script, and the polygon protocol of Total-Text and CTW1500 in the TIoU repository.
  A detection of which more than half of the area lies on one don't-care region is left out. Then, over annotations and
  detections in their own order, a pair that is still free and has IoU > 0.5 is a match.
* **SIoU, TIoU** (Liu et al., CVPR 2019): the same matches, each counting its IoU, or its tightness-aware IoU, not 1.
* **Acc@0.5**: matches / (annotations + detections - matches), don't-care regions aside. The paper (arXiv 2505.13077)
  prints an Acc@0.5 of text detection and doesn't define it: this definition is OURS. It equals the share of right boxes
  among all boxes that either side names, so both missing and superfluous boxes lower it.
* **DetEval** (Wolf and Jolion 2006), in two versions: `icdar2013` is the script of the ICDAR2013 challenge (boxes of
  whole pixels, area recall 0.8 and precision 0.4, many-to-one free of penalty), `totaltext` that of the Total-Text
  repository (polygons, 0.7 and 0.6, split and merged text count 0.8).

Self-intersecting polygons: the official IoU scripts clip them by the even-odd rule and take their area by the shoelace
formula (so one that covers half of a text can match it), the Total-Text script clips what `buffer(0)` leaves of them;
both are done so here. A detection without area matches nothing and is counted. Differences: the official scripts
refuse counter-clockwise polygons and the ICDAR ones cut coordinates to whole pixels, here any orientation and any
fraction is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import shapely

Points = Sequence[Sequence[float]]
Sums = dict[str, float]
DetEval = Literal["icdar2013", "totaltext"]

IOU = 0.5
DONT_CARE_SHARE = 0.5


class TrueText(NamedTuple):
    """One annotated text. `ignore`: a don't-care region, neither to be found nor wrong to be found."""

    points: Points
    ignore: bool


def match(truth: Sequence[TrueText], detections: Sequence[Points]) -> Sums:
    """The IoU protocol: how many `true`, `found` and `matched` of one picture, and its SIoU and TIoU sums."""
    true, detected = shapes([t.points for t in truth]), shapes(detections)
    care = np.array([not t.ignore for t in truth], dtype=bool)
    shared = shared_areas(true.region, detected.region)
    counted = ~(_ratio(shared[~care], detected.area) > DONT_CARE_SHARE).any(axis=0)
    # A self-intersecting polygon may share more than its shoelace area: it matches, as in the scripts, but counts once.
    iou = np.minimum(_ratio(shared, true.area[:, None] + detected.area - shared), 1.0)
    sums = {"true": float(care.sum()), "found": float(counted.sum()), "matched": 0.0}
    sums |= {"siou": 0.0, "tiou_recall": 0.0, "tiou_precision": 0.0}
    free = np.array(counted)
    for row in np.flatnonzero(care).tolist():
        candidates = np.flatnonzero(free & (iou[row] > IOU))
        if candidates.size:
            column = int(candidates[0])
            free[column] = False
            sums["matched"] += 1
            sums["siou"] += iou[row, column]
            cut = true.area[row] - shared[row, column]
            outside = _other_text(true.region, shared[:, column] > 0, row, detected.region[column])
            sums["tiou_recall"] += iou[row, column] * _tight(cut, true.area[row])
            sums["tiou_precision"] += iou[row, column] * _tight(outside, detected.area[column])
    return sums


def deteval(
    truth: Sequence[TrueText],
    detections: Sequence[Points],
    version: DetEval,
    thresholds: tuple[float, float] | None = None,
) -> Sums:
    """DetEval's sums of one picture: `true` and `found` count, `recall` and `precision` are the points given.

    `thresholds`: area recall and area precision, where not the version's own.
    """
    if version == "icdar2013":
        return _deteval_boxes(truth, detections, *(thresholds or (0.8, 0.4)))
    return _deteval_polygons(truth, detections, *(thresholds or (0.7, 0.6)))


def figures(sums: Sums) -> dict[str, float]:
    """Precision, recall, hmean, Acc@0.5, SIoU and TIoU from (added) sums of `match`."""
    true, detected, matched = sums["true"], sums["found"], sums["matched"]
    means_of = {
        "": (matched, matched),
        "siou_": (sums["siou"], sums["siou"]),
        "tiou_": (sums["tiou_recall"], sums["tiou_precision"]),
    }
    values: dict[str, float] = {}
    for prefix, (recalled, precise) in means_of.items():
        values |= {prefix + k: v for k, v in means(recalled, true, precise, detected).items()}
    return {**values, "acc_0.5": _part(matched, true + detected - matched)}


def means(recalled: float, true: float, precise: float, detected: float) -> dict[str, float]:
    """Recall, precision and their harmonic mean; 0 where there is nothing to divide by, as in the official scripts."""
    recall, precision = _part(recalled, true), _part(precise, detected)
    return {"recall": recall, "precision": precision, "hmean": _part(2 * precision * recall, precision + recall)}


class Shapes(NamedTuple):
    """Polygons of one side: `region` [n] clips by the even-odd rule, `area` [n] is the shoelace formula's."""

    region: np.ndarray
    area: np.ndarray


def even_odd(polygons: np.ndarray) -> np.ndarray:
    """Regions of self-intersecting polygons: the points from which a ray crosses the outline an odd number of times.

    Shapely's `make_valid` follows this rule too, but not where an outline runs along itself.
    """
    return np.array([_odd_faces(polygon) for polygon in polygons], dtype=object)


def _odd_faces(polygon: shapely.Polygon) -> shapely.Geometry:
    edges = shapely.get_parts(shapely.node(polygon.exterior))
    faces = shapely.get_parts(shapely.polygonize(edges))
    within = shapely.get_coordinates(shapely.point_on_surface(faces))
    starts = shapely.get_coordinates(polygon.exterior)[:-1]
    (x1, y1), (x2, y2) = starts.T[:, :, None], np.roll(starts, -1, axis=0).T[:, :, None]
    x, y = within.T
    with np.errstate(divide="ignore", invalid="ignore"):
        crossed = ((y1 > y) != (y2 > y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return shapely.union_all(faces[crossed.sum(axis=0) % 2 == 1])


def shapes(polygons: Iterable[Points], repair: Callable[[np.ndarray], np.ndarray] = even_odd) -> Shapes:
    """Polygons as `Shapes`, empty for fewer than 3 points; `repair` gives the regions of self-intersecting ones."""
    drawn = np.array([shapely.Polygon(p) if len(p) >= 3 else shapely.Polygon() for p in polygons], dtype=object)
    if not drawn.size:
        return Shapes(drawn, np.zeros(0))
    region = drawn.copy()
    broken = ~shapely.is_valid(drawn)
    if broken.any():
        region[broken] = repair(drawn[broken])
    return Shapes(region, shapely.area(drawn))


def shared_areas(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Area of every intersection [n, m]; only pairs that meet are clipped."""
    shared = np.zeros((len(first), len(second)))
    if first.size and second.size:
        rows, columns = shapely.STRtree(second).query(first, predicate="intersects")
        shared[rows, columns] = shapely.area(shapely.intersection(first[rows], second[columns]))
    return shared


def _other_text(regions: np.ndarray, touching: np.ndarray, region: int, detection: shapely.Geometry) -> float:
    """Area of the detection on annotations other than its own (don't-care ones too), where its own doesn't lie."""
    other_regions = touching.copy()
    other_regions[region] = False
    if not other_regions.any():
        return 0.0
    united = shapely.union_all(regions[other_regions])
    on_others = shapely.area(shapely.intersection(detection, united))
    on_both = shapely.area(shapely.intersection(shapely.intersection(detection, regions[region]), united))
    return float(on_others - on_both)


def _tight(wrong: float, area: float) -> float:
    """TIoU's factor: one minus the share that is cut off, or lies on other text, if that is above 1 percent.

    A polygon whose areas contradict each other (it intersects itself) has no tightness: 0, as in the script.
    """
    if area <= 0 or not -1e-9 * area <= wrong <= area:
        return 0.0
    return 1.0 if wrong <= 0.01 * area else 1 - float(wrong / area)


def _deteval_polygons(
    truth: Sequence[TrueText],
    detections: Sequence[Points],
    recall_at: float,
    precision_at: float,
    shared_points: float = 0.8,
) -> Sums:
    detected = shapes(detections, buffered)
    ignored = shapes([t.points for t in truth if t.ignore], buffered)
    # The script adds one pixel to the detection's area here, and nowhere else.
    covered = _ratio(shared_areas(ignored.region, detected.region), detected.area + 1.0)
    counted = ~(covered > DONT_CARE_SHARE).any(axis=0)
    detected = Shapes(detected.region[counted], detected.area[counted])
    true = shapes([t.points for t in truth if not t.ignore], buffered)
    shared = shared_areas(true.region, detected.region)
    sigma = np.round(_ratio(shared, true.area[:, None]), 2)
    tau = np.round(_ratio(shared, detected.area), 2)
    sums = {"true": float(len(true.area)), "found": float(len(detected.area)), "recall": 0.0, "precision": 0.0}
    truth_free, free = np.ones(len(true.area), dtype=bool), np.ones(len(detected.area), dtype=bool)

    def give(rows: np.ndarray, columns: np.ndarray, points: float) -> None:
        truth_free[rows], free[columns] = False, False
        sums["recall"] += points * len(rows)
        sums["precision"] += points * len(columns)

    covering, precise = sigma > recall_at, tau > precision_at
    for row in range(len(true.area)):
        # The script takes one candidate by sigma and one by tau, and doesn't ask whether they are the same.
        one, other = np.flatnonzero(covering[row]), np.flatnonzero(precise[row])
        if len(one) == len(other) == 1 and covering[:, one].sum() == 1 and precise[:, other].sum() == 1:
            give(np.array([row]), one, 1.0)
    for row in np.flatnonzero(truth_free).tolist():
        columns = np.flatnonzero((tau[row] >= precision_at) & free)
        if (sigma[row] > 0).sum() >= 2 and len(columns) and sigma[row, columns].sum() >= recall_at:
            give(np.array([row]), columns, 1.0 if len(columns) == 1 else shared_points)
    for column in np.flatnonzero(free):
        # The lower threshold is the script's own, here too.
        rows = np.flatnonzero((sigma[:, column] >= precision_at) & truth_free)
        if (tau[:, column] > 0).sum() < 2 or not len(rows) or tau[rows, column].sum() < precision_at:
            continue
        if len(rows) > 1:
            give(rows, np.array([column]), shared_points)
        elif sigma[rows[0], column] >= recall_at:
            give(rows, np.array([column]), 1.0)
    return sums


def _deteval_boxes(
    truth: Sequence[TrueText],
    detections: Sequence[Points],
    recall_at: float,
    precision_at: float,
    split_points: float = 0.8,
) -> Sums:
    true, detected = _boxes([t.points for t in truth]), _boxes(detections)
    care = np.array([not t.ignore for t in truth], dtype=bool)
    shared = _pixels(np.maximum(true[:, None, :2], detected[:, :2]), np.minimum(true[:, None, 2:], detected[:, 2:]))
    recall = shared / _pixels(true[:, :2], true[:, 2:])[:, None]
    precision = shared / _pixels(detected[:, :2], detected[:, 2:])[None, :]
    counted = ~(precision[~care] > precision_at).any(axis=0)
    sums = {"true": float(care.sum()), "found": float(counted.sum()), "recall": 0.0, "precision": 0.0}
    truth_free, free = care.copy(), counted.copy()
    good = (recall >= recall_at) & (precision >= precision_at)
    alone = (good.sum(axis=1) == 1)[:, None] & (good.sum(axis=0) == 1)[None, :]
    meets_found, meets_true = (recall[:, counted] > 0).sum(axis=1), (recall[care] > 0).sum(axis=0)

    def give(rows: np.ndarray, columns: np.ndarray, points: float) -> None:
        truth_free[rows], free[columns] = False, False
        sums["recall"] += points * len(rows)
        sums["precision"] += points * len(columns)

    for row, column in np.argwhere(good & alone):
        single = meets_found[row] == 1 and meets_true[column] == 1
        if truth_free[row] and free[column] and single and _near(true[row], detected[column]):
            give(np.array([row]), np.array([column]), 1.0)
    for row in np.flatnonzero(truth_free).tolist():
        columns = np.flatnonzero((precision[row] >= precision_at) & free)
        if meets_found[row] >= 2 and round(recall[row, columns].sum(), 4) >= recall_at:
            give(np.array([row]), columns, 1.0 if len(columns) == 1 else split_points)
    for column in np.flatnonzero(free):
        rows = np.flatnonzero((recall[:, column] >= recall_at) & truth_free)
        if meets_true[column] >= 2 and round(precision[rows, column].sum(), 4) >= precision_at:
            give(rows, np.array([column]), 1.0)
    return sums


def _boxes(polygons: Sequence[Points]) -> np.ndarray:
    """x1, y1, x2, y2 [n, 4] around each."""
    corners = [(*np.min(points, axis=0), *np.max(points, axis=0)) for points in polygons]
    return np.array(corners, dtype=float).reshape(len(corners), 4)


def _pixels(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Area of boxes that count whole pixels, both edges included; 0 where a corner pair is out of order."""
    sides = high - low + 1
    return np.where((sides >= 0).all(axis=-1), sides[..., 0] * sides[..., 1], 0.0)


def _near(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether the centres are closer than the boxes' mean diagonal."""
    apart = math.dist((first[:2] + first[2:] + 1) / 2, (second[:2] + second[2:] + 1) / 2)
    return 2 * apart < sum(math.hypot(*(box[2:] - box[:2] + 1)) for box in (first, second))


def buffered(polygons: np.ndarray) -> np.ndarray:
    """Regions that `buffer(0)` leaves of polygons, as in the Total-Text script."""
    return shapely.buffer(polygons, 0)


def _ratio(part: np.ndarray, total: np.ndarray) -> np.ndarray:
    total = np.broadcast_to(total, part.shape)
    return np.divide(part, total, out=np.zeros_like(part), where=total > 0)


def _part(part: float, total: float) -> float:
    """The share, or those of arrays that statistics resample."""
    if isinstance(total, np.ndarray):
        return np.divide(part, total, out=np.zeros_like(total), where=total != 0)
    return part / total if total else 0.0
