"""What is drawn for one picture, and how it moves the numbers of a row. Pixels: `data.augment.pictures`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.augment.options import AugmentConfig
from data.common.rows import Row

Extent = tuple[float, float, float, float]  # left, top, right, bottom of all that is labelled in a picture
Point = Sequence[float]
BOXES, POINTS = ("box", "boxes"), ("points", "polygon", "polygons")  # columns of a row


@dataclass(frozen=True)
class Draw:
    """What happens to one picture, in the order of the attributes.

    Attributes:
        crop: left, top, right, bottom in whole pixels.
        mirrored: left to right.
        turn: degrees, counterclockwise, about the middle; of pictures without coordinates alone.
        size: width and height of the result.
        colours: factors of brightness, contrast and saturation.
    """

    crop: tuple[int, int, int, int]
    mirrored: bool
    turn: float
    size: tuple[int, int]
    colours: tuple[float, float, float]

    def point(self, point: Point) -> list[float]:
        """A point x, y in pixels of the result."""
        left, top, right, bottom = self.crop
        x = (point[0] - left) * self.size[0] / (right - left)
        y = (point[1] - top) * self.size[1] / (bottom - top)
        return [self.size[0] - x if self.mirrored else x, y]

    def box(self, box: Sequence[float]) -> list[float]:
        """Corners x1, y1, x2, y2 in pixels of the result, in order."""
        (x1, y1), (x2, y2) = self.point(box[:2]), self.point(box[2:])
        return [min(x1, x2), y1, max(x1, x2), y2]

    def polygon(self, points: Sequence[Point]) -> list[list[float]]:
        """Corners in pixels of the result; a mirrored one keeps its sense, and begins with what was the second."""
        moved = [self.point(point) for point in points]
        return [moved[1], moved[0], *moved[:1:-1]] if self.mirrored else moved


def draw(
    options: AugmentConfig,
    rng: np.random.Generator,
    size: tuple[int, int],
    extent: Extent | None,
    may_crop: bool = True,
    may_mirror: bool = True,
) -> Draw:
    """Draw what happens to a picture.

    Args:
        size: width and height of the picture.
        extent: of all that is labelled in it; a crop keeps all of it. None: nothing is.
        may_crop, may_mirror: whether what its rows say stays true.
    """
    # All numbers are drawn whatever is on, so that one option doesn't change what another does.
    shares, places = rng.uniform(size=2), rng.uniform(size=2)
    mirror, turn, scale = rng.uniform(size=3)
    jitter = rng.uniform(-1, 1, size=3)
    crop = (0, 0, *size)
    if options.crop is not None and may_crop:
        low, high = (extent[:2], extent[2:]) if extent else (None, None)
        sides = [
            _window(size[axis], options.crop, shares[axis], places[axis], low and low[axis], high and high[axis])
            for axis in (0, 1)
        ]
        crop = (sides[0][0], sides[1][0], sides[0][1], sides[1][1])
    width, height = crop[2] - crop[0], crop[3] - crop[1]
    factor = 1.0 if options.scale is None else options.scale + (1 - options.scale) * scale
    return Draw(
        crop,
        options.flip is not None and may_mirror and bool(mirror < options.flip),
        0.0 if options.clock_rotation is None else float(options.clock_rotation * (2 * turn - 1)),
        (max(1, round(width * factor)), max(1, round(height * factor))),
        _colours(options.color_jitter, jitter),
    )


def _colours(most: float | None, jitter: np.ndarray) -> tuple[float, float, float]:
    brightness, contrast, saturation = (1.0 if most is None else float(1 + most * j) for j in jitter)
    return brightness, contrast, saturation


def _window(
    side: int, least: float, share: float, place: float, low: float | None, high: float | None
) -> tuple[int, int]:
    """First pixel of a crop and the one after its last, along one side; from `low` to `high` all stays in it."""
    length = max(1, round(side * (least + (1 - least) * share)))
    if low is None or high is None:
        first, last = 0, side - length
    else:  # what is labelled beyond the picture's edge is cut there anyway
        start, end = max(0, math.floor(low)), min(side, math.ceil(high))
        length = max(length, end - start)
        first, last = max(0, end - length), min(start, side - length)
    begin = first + min(int(place * (last - first + 1)), last - first)
    return begin, begin + length


def moved(row: Row, drawn: Draw) -> Row:
    """The row's coordinates, width and height after what was drawn; all else, the picture too, is as before."""
    maps: dict[str, Callable[[Any], Any]] = {
        "box": drawn.box,
        "boxes": lambda boxes: [drawn.box(box) for box in boxes],
        "points": lambda points: [drawn.point(point) for point in points],
        "polygon": drawn.polygon,
        "polygons": lambda polygons: [drawn.polygon(polygon) for polygon in polygons],
    }
    changed = {name: change(row[name]) for name, change in maps.items() if row.get(name) is not None}
    sides = {
        name: side for name, side in zip(("width", "height"), drawn.size, strict=True) if row.get(name) is not None
    }
    return {**row, **changed, **sides}


def extent_of(row: Row) -> Extent | None:
    """The smallest rectangle around all that is labelled in a row; None where nothing is."""
    points: list[Point] = []
    for name in (*BOXES, *POINTS):
        values = row.get(name)
        if values:
            shapes = values if name in ("boxes", "polygons") else [values]
            for shape in shapes:
                points += [shape[:2], shape[2:]] if name in BOXES else shape
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def joined(first: Extent | None, second: Extent | None) -> Extent | None:
    """The smallest rectangle around both."""
    if first is None or second is None:
        return first or second
    return (*map(min, first[:2], second[:2]), *map(max, first[2:], second[2:]))  # type: ignore[return-value]
