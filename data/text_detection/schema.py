"""The columns that every source of text detection gives, and the check of a polygon.

Columns: id, image, width, height, polygons (each [[x, y], ...] in pixels, 3 points or more), ignore (one flag per
polygon: a don't-care region), texts (transcriptions, empty where a source has none), split (as asked for), level (for
a curriculum, 0 where a source knows none).
"""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Features, Image, List, Value
from shapely import Polygon

from data.common.errors import InvalidData
from data.text_detection.ground_truth import Instance

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


def check_instances(instances: Sequence[Instance], size: tuple[int, int], where: str) -> None:
    """Check that polygons have an area and lie in the picture.

    Raises:
        InvalidData: text without an area, or outside the picture; don't-care regions may be anything.
    """
    width, height = size
    for number, instance in enumerate(instances):
        if instance.ignore:
            continue
        field = f"polygon {number}"
        if Polygon(instance.points).area == 0:
            remedy = "repair it, mark it ### or drop the picture"
            raise InvalidData(where, field, f"{instance.points} has no area", remedy)
        x_out, y_out = width * SLACK, height * SLACK
        if not all(-x_out <= x <= width + x_out and -y_out <= y <= height + y_out for x, y in instance.points):
            problem = f"{instance.points} lies outside the {width} x {height} picture"
            remedy = "check that coordinates are x, y in pixels of the picture as shown"
            raise InvalidData(where, field, problem, remedy)
