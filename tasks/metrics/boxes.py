"""Overlap of boxes and polygons."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import shapely


def box_iou(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union of two x1, y1, x2, y2 boxes; 0 where there is no area to share."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return shared / (areas - shared) if shared > 0 else 0.0


def polygon_iou(first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]) -> float:
    """Shared over united area of two polygons, 0..1; one that crosses itself covers what either of its parts covers."""
    drawn = [shapely.Polygon(points) for points in (first, second)]
    if all(polygon.is_valid for polygon in drawn):
        a, b = drawn
        shared = shapely.intersection(a, b).area
    else:
        # Without a grid GEOS may clip the slivers of a repaired outline wrongly, and otherwise in the other order.
        largest = max(abs(v) for polygon in drawn for v in polygon.bounds)
        grid = 10.0 ** (math.ceil(math.log10(max(largest, 1e-9))) - 14)
        with np.errstate(all="ignore"):  # GEOS divides by the lengths of denormal edges
            a, b = (shapely.set_precision(_areas(polygon), grid) for polygon in drawn)
            shared = shapely.intersection(a, b).area
    return float(shared / (a.area + b.area - shared)) if shared > 0 else 0.0


def _areas(polygon: shapely.Polygon) -> shapely.MultiPolygon:
    """What a polygon covers, without the lines and points that an outline along itself leaves."""
    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(polygon)))
    return shapely.MultiPolygon([part for part in parts if part.geom_type == "Polygon"])
