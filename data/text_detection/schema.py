"""The columns that every source of text detection gives, and the check of its polygons.

Columns: id, image, width, height, polygons (each [[x, y], ...] in pixels, 3 points or more), ignore (one flag per
polygon: a don't-care region), texts (transcriptions, empty where a source has none), split (as asked for), level (for
a curriculum, 0 where a source knows none).
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Features, Image, List, Value
from shapely import Polygon

from data.common.column_form import ColumnForm, Misfit
from data.common.errors import InvalidData, short
from data.grounding.schema import BoxColumn, points_are_fractions
from data.text_detection.ground_truth import Instance, Points

FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "width": Value("int32"),
        "height": Value("int32"),
        "polygons": List(List(List(Value("float64")))),
        "ignore": List(Value("bool")),
        "texts": List(Value("string")),
        "split": Value("string"),
        "level": Value("int32"),
    }
)

# Annotators extrapolate text that the picture's edge cuts. Points further out than this part of a side are an error.
SLACK = 0.1


PIXELS = "x, y in pixels"


class OutlineColumn:
    """The outlines of a split: each is checked, and all together tell their form, see `ColumnForm`."""

    def __init__(self, rectangles: bool = False) -> None:
        """`rectangles`: outlines are boxes that were written as left, top, right, bottom, and may have been others."""
        self.boxes = BoxColumn("xyxy") if rectangles else None
        forms = {
            PIXELS: lambda points, size: _inside(points, size) and not points_are_fractions(points, size),
            "y, x in pixels": lambda points, size: _inside([(y, x) for x, y in points], size),
            "x, y as parts of 1": lambda points, size: points_are_fractions(points, size),
            "x, y from 0 to 1000": lambda points, _size: _inside(points, (1000, 1000)),
        }
        self.column = ColumnForm(PIXELS, forms, frozenset(("y, x in pixels", "x, y from 0 to 1000")))

    def check_instances(self, instances: Sequence[Instance], size: tuple[int, int], where: str) -> None:
        """Check that polygons have an area and lie in the picture.

        Raises:
            Misfit: text outside the picture, or in another unit; don't-care regions may be anything.
            InvalidData: text without an area.
        """
        legible = [(f"polygon {n}", one.points) for n, one in enumerate(instances) if not one.ignore]
        for _, points in legible:
            self.column.add(where, points, size)
            if self.boxes:
                self.boxes.column.add(where, [*points[0], *points[2]], size)
        for field, points in legible:
            _check_outline(points, size, where, field)

    def check(self, where: str) -> None:
        """Check that the outlines read so far don't show another form.

        Raises:
            ContradictedColumn: they do.
        """
        self.column.check(where, "outlines", "write x, y in pixels of the picture as shown, not {form}")
        if self.boxes:
            self.boxes.column.check(where, "boxes", "write left, top, right, bottom, not {form}")


def _check_outline(points: Points, size: tuple[int, int], where: str, field: str) -> None:
    if Polygon(points).area == 0:
        raise InvalidData(where, field, f"{short(points)} has no area", "repair it, mark it ### or drop the picture")
    if points_are_fractions(points, size):
        remedy = "write pixels: x times the picture's width, y times its height"
        raise Misfit(where, field, f"{short(points)} reads as parts of 1, not as pixels", remedy)
    if not _inside(points, size):
        problem = f"{short(points)} lies outside the {size[0]} x {size[1]} picture"
        raise Misfit(where, field, problem, "check that coordinates are x, y in pixels of the picture as shown")


def _inside(points: Points, size: tuple[int, int]) -> bool:
    (width, height), (x_out, y_out) = size, (side * SLACK for side in size)
    return all(-x_out <= x <= width + x_out and -y_out <= y <= height + y_out for x, y in points)
