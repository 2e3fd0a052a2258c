"""Point at all that an expression or an instruction means: the answer is a list of points.

Protocol: a point is right in the box of its target (ScreenSpot's rule; of a box in an answer the middle counts). Where
truth is points alone (PixMo), a target is the square of `reach` times the picture's longer side around one, which is
this project's choice. Points and targets are matched one to one, as many as can be.

Metrics (means over rows; an answer that can't be read scores 0):

* `f1`, the headline, of matched points; a row without targets scores 1 for the empty answer and 0 for any other.
* `in_box`: the first point lies in a target: ScreenSpot's accuracy, where every row has one.
* `count_error`: points too many or too few. `duplicates`: points within a hundredth of the longer side of an earlier.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment

from data.common.errors import InvalidOption
from data.common.source import Source
from tasks.answers.coordinates import FORMATS, Box, Coords, Item, Point
from tasks.answers.shape_forms import NONE
from tasks.base import ParseFailure, Row, Scores, Task
from tasks.drawing import PREDICTION, TRUTH, captioned, enlarged, picture_of
from tasks.metrics.objects import f1

Prediction = list[Point]
REPEATED = 0.01  # of the longer side


class Pointing(Task):
    """Task of pointing.

    Args:
        source: rows of `data.objects.schema`.
        headline: f1, or in_box for one target a row.
        reach: half side of the square around a true point without a box, in parts of the picture's longer side.
        coords: the model's coordinate format.
        question: the prompt, with `{question}`.
        max_instances: how many points a taught answer has at most, the topmost first.
        max_new_tokens: what generation may write at most.
    """

    # 2: strictly no words before a shape; bracketed points are apart, names in single quotes are read
    # 3: leniently Arabic digits are read
    protocol = 3
    secondary_metrics = MappingProxyType({"in_box": True, "count_error": False})
    coordinates = True
    survives = frozenset({"crop", "flip", "scale", "color_jitter"})
    columns: tuple[str, ...] = ("boxes", "points", "question", "width", "height")

    def __init__(
        self,
        source: Source,
        headline: Literal["f1", "in_box"] = "f1",
        reach: float = 0.05,
        coords: Coords = FORMATS["int1000"],
        question: str = "Point at {question}; if there is none, answer none.",
        max_instances: int = 32,
        max_new_tokens: int = 384,
    ) -> None:
        if "{question}" not in question:
            raise InvalidOption(f"task.question must hold {{question}}, got {question!r}")
        if not 0 < reach <= 1 or max_instances < 1:
            raise InvalidOption(f"task.reach must be in (0, 1] and task.max_instances at least 1, got {reach}")
        self.metric, self.source, self.reach, self.coords, self.question = headline, source, reach, coords, question
        self.max_instances, self.max_new_tokens = max_instances, max_new_tokens

    def asked_for(self, row: Row) -> str:
        """What to point at, in words."""
        return str(row["question"])

    def prompt(self, row: Row) -> str:
        return self.question.replace("{question}", self.asked_for(row))

    def taught(self, row: Row) -> list[Point]:
        """The points that an answer lists, from the top down."""
        return sorted(((x, y) for x, y in row["points"]), key=lambda point: (point[1], point[0]))

    def answer(self, row: Row) -> str:
        items = [Item((point,)) for point in self.taught(row)[: self.max_instances]]
        return self.coords.items(items, (row["width"], row["height"]), "point")

    def number_ranges(self, answer: str, row: Row) -> list[tuple[int, int]] | None:
        return self.coords.form.number_ranges(answer)

    def targets(self, row: Row) -> list[Box]:
        """Boxes within which a point is right."""
        if row["boxes"]:
            return [(x1, y1, x2, y2) for x1, y1, x2, y2 in row["boxes"]]
        half = self.reach * max(row["width"], row["height"])
        return [(x - half, y - half, x + half, y + half) for x, y in row["points"]]

    def parse(self, text: str, row: Row) -> Prediction | ParseFailure:
        """Exactly a list of points (or of boxes, as other models answer) in the format, or the empty answer."""
        size = row["width"], row["height"]
        items = self.coords.parse_unlabelled(text, size, "point")
        items = self.coords.parse_unlabelled(text, size, "box") if items is None else items
        return ParseFailure("no list of points in the format") if items is None else [item.point for item in items]

    def search(self, text: str, row: Row) -> Prediction | ParseFailure:
        if text.strip().lower().rstrip(".") in (NONE, self.coords.form.none):
            return []
        size = row["width"], row["height"]
        items = self.coords.find_items(text, size, "point") or self.coords.find_items(text, size, "box")
        return [item.point for item in items] or ParseFailure("no point in the text")

    def distance(self, first: Prediction, second: Prediction, row: Row) -> float:
        """1 - F1 of points that are matched within `reach` of the longer side."""
        largest = self.reach * max(row["width"], row["height"])
        near = np.array([[math.dist(p, q) <= largest for q in second] for p in first], dtype=float)
        rows, columns = linear_sum_assignment(-near) if near.size else ([], [])
        return 1.0 - f1(float(near[rows, columns].sum()) if near.size else 0.0, len(first), len(second))

    def score(self, prediction: Prediction | ParseFailure, row: Row) -> Scores:
        targets = self.targets(row)
        if isinstance(prediction, ParseFailure):
            return {"f1": 0.0, "in_box": 0.0, "count_error": float(max(len(targets), 1)), "duplicates": 0.0}
        right = np.array([[within(point, box) for box in targets] for point in prediction], dtype=float)
        rows, columns = linear_sum_assignment(-right) if right.size else ([], [])
        count = float(right[rows, columns].sum()) if right.size else 0.0
        first = bool(right[0].any()) if right.size else not prediction and not targets
        near = REPEATED * max(row["width"], row["height"])
        repeated = sum(any(math.dist(p, q) <= near for q in prediction[:i]) for i, p in enumerate(prediction))
        return {
            "f1": f1(count, len(prediction), len(targets)),
            "in_box": float(first),
            "count_error": float(abs(len(prediction) - len(targets))),
            "duplicates": float(repeated),
        }

    def groups(self, row: Row) -> list[str]:
        return [row["split"]] if row.get("split") else super().groups(row)

    def draw(self, row: Row, prediction: Prediction | ParseFailure) -> Image.Image:
        """Targets in green, points in red, with F1."""
        picture, scale = enlarged(picture_of(row))
        pen = ImageDraw.Draw(picture)
        for box in self.targets(row):
            pen.rectangle([v * scale for v in box], outline=TRUTH, width=3)
        for x, y in [] if isinstance(prediction, ParseFailure) else prediction:
            pen.ellipse([x * scale - 4, y * scale - 4, x * scale + 4, y * scale + 4], fill=PREDICTION)
        value = self.score(prediction, row)["f1"]
        caption = prediction.reason if isinstance(prediction, ParseFailure) else f"F1 {value:.2f}"
        return captioned(picture, self.asked_for(row), caption, value == 1.0)


def within(point: Point, box: Box) -> bool:
    """Whether a point lies in a box or on its edge."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]
