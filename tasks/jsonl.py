"""Tasks on a user's table, scored by a chosen metric.

    ntil train task=jsonl task.metric=numeric task.source.train=my.jsonl task.source.test=test.jsonl

What a row holds: `data.jsonl`. How answers are written, read and scored, by `metric`:

| metric | taught | scores (headline first) | strict reading | lenient reading |
|---|---|---|---|---|
| `exact` | the answer's text | `exact` | the whole text | case, spaces and quotes or stops at the ends ignored |
| `numeric` | the number | `tasks.numeric`: `exact`, `relative_error`, ... | one plain number | the last quantity |
| `box` | in the model's format | `tasks.grounding`: `acc_0.5`, `iou`, ... | one box | the first four numbers together |
| `polygon` | in the model's format | `acc_0.5`, `iou`, `acc_0.75` | one polygon | the first shape |
| `time` | `HH:MM` | `tasks.clock`: `exact`, `within_1`, ... | `HH:MM` | the first possible time |
| `boxes` | in the model's format | `tasks.detection`: `f1_0.5`, `map`, ... | a list of boxes | boxes anywhere |
| `points` | in the model's format | `tasks.pointing`: `f1`, `in_box`, ... | a list of points | points anywhere |
| `count` | the number | `tasks.numeric` and `within_1` | one whole number | the last quantity |

Boxes and points are taught in the table's own order, boxes with their names where the table has labels.

`iou` of polygons is that of their areas; a polygon that crosses itself covers what either of its parts covers.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from decimal import Decimal

from PIL import Image, ImageDraw

from data.common.source import Source
from data.table_answers import Metric
from tasks.answers.coordinates import FORMATS, Coords, Item, Point, Polygon
from tasks.base import ParseFailure, Row, Scores, Task
from tasks.clock import Clock
from tasks.detection import Detection, Prediction
from tasks.drawing import PREDICTION, TRUTH, captioned, enlarged, picture_of
from tasks.grounding import Grounding
from tasks.metrics.boxes import polygon_iou
from tasks.metrics.objects import Labelled
from tasks.numeric import NumberTask
from tasks.pointing import Pointing

UNLIMITED = sys.maxsize  # objects that a taught answer lists: those of the table, none left out


def table_task(
    source: Source,
    metric: Metric = "exact",
    coords: Coords = FORMATS["int1000"],
    max_new_tokens: int | None = None,
) -> Task:
    """Build the task that scores the answers of a table by `metric`.

    Args:
        source: rows of `data.jsonl` with the truth that the metric needs.
        metric: exact, numeric, box, polygon, time, boxes, points or count.
        coords: the model's coordinate format.
        max_new_tokens: what generation may write at most; null: the metric's own.
    """
    kinds: dict[Metric, Callable[[], Task]] = {
        "exact": lambda: ExactAnswers(source),
        "numeric": lambda: NumericAnswers(source),
        "box": lambda: Grounding(source, coords),
        "polygon": lambda: PolygonAnswers(source, coords),
        "time": lambda: Clock(source),
        "boxes": lambda: BoxLists(source, coords),
        "points": lambda: PointLists(source, coords),
        "count": lambda: Counts(source),
    }
    task = kinds[metric]()
    task.max_new_tokens = max_new_tokens or task.max_new_tokens
    return task


class ExactAnswers(Task):
    """Texts, equal character by character without whitespace at the ends."""

    metric = "exact"
    max_new_tokens = 64

    def __init__(self, source: Source) -> None:
        self.source = source

    def prompt(self, row: Row) -> str:
        return str(row["prompt"])

    def answer(self, row: Row) -> str:
        return str(row["answer"])

    def parse(self, text: str, row: Row) -> str | ParseFailure:
        return text.strip() or ParseFailure("nothing was written")

    def parse_lenient(self, text: str, row: Row) -> str | ParseFailure:
        # What counts as the same is judged against the truth, so that the truth itself is always accepted.
        read = self.parse(text, row)
        same = not isinstance(read, ParseFailure) and _loosened(read) == _loosened(row["answer"])
        return str(row["answer"]) if same else read

    def score(self, prediction: str | ParseFailure, row: Row) -> Scores:
        return {"exact": float(prediction == row["answer"])}


class NumericAnswers(NumberTask):
    """Numbers, compared by value."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def prompt(self, row: Row) -> str:
        return str(row["prompt"])

    def answer(self, row: Row) -> str:
        return str(row["answer"])

    def truth(self, row: Row) -> Decimal:
        return Decimal(row["answer"])


class Counts(NumericAnswers):
    """How many there are; besides the scores of numbers the share that is off by one at most."""

    survives = frozenset({"flip", "scale", "color_jitter"})

    def parse(self, text: str, row: Row) -> Decimal | ParseFailure:
        return _as_count(super().parse(text, row))

    def search(self, text: str, row: Row) -> Decimal | ParseFailure:
        return _as_count(super().search(text, row))

    def score(self, prediction: Decimal | ParseFailure, row: Row) -> Scores:
        near = not isinstance(prediction, ParseFailure) and abs(prediction - self.truth(row)) <= 1
        return {**super().score(prediction, row), "within_1": float(near)}


class BoxLists(Detection):
    """Any number of boxes a row, each with its name where the row's have labels."""

    protocol = 5  # 2: mAP counts the labelled boxes of pictures without objects; 3, 4, 5: as detection's 2, 3, 4
    columns = ("prompt", "boxes", "labels", "width", "height")

    def __init__(self, source: Source, coords: Coords = FORMATS["int1000"]) -> None:
        super().__init__(source, coords=coords, question="{names}", max_instances=UNLIMITED)

    def asked_for(self, row: Row) -> str:
        return str(row["prompt"])

    def names_in_answer(self, row: Row) -> bool:
        return any(row["labels"])

    def takes_names(self, row: Row) -> bool:
        """Also where the row has no box, which doesn't say whether the table's have names."""
        return self.names_in_answer(row) or not row["boxes"]

    def taught(self, row: Row) -> list[Labelled]:
        return self.truth(row)

    def predicted(self, prediction: Prediction, row: Row) -> list[Labelled]:
        """The boxes of an answer; without a true box their labels stay, since mAP counts them by category."""
        if row["boxes"]:
            return super().predicted(prediction, row)
        return [Labelled(item.box, item.label) for item in prediction]

    def search(self, text: str, row: Row) -> list[Item] | ParseFailure:
        return super().search(text, {**row, "asked": []})


class PointLists(Pointing):
    """Any number of points a row."""

    columns = ("prompt", "points", "width", "height")

    def __init__(self, source: Source, coords: Coords = FORMATS["int1000"]) -> None:
        super().__init__(source, coords=coords, question="{question}", max_instances=UNLIMITED)

    def asked_for(self, row: Row) -> str:
        return str(row["prompt"])

    def taught(self, row: Row) -> list[Point]:
        return [(x, y) for x, y in row["points"]]


class PolygonAnswers(Task):
    """One polygon a row."""

    metric = "acc_0.5"
    # 2: the lenient reading takes numbers that stand together, in any nesting
    # 3: the strict one takes what the format's models write by themselves (a label, two decimals)
    # 4: the lenient one takes Arabic digits
    protocol = 4
    coordinates = True
    columns = ("polygon", "width", "height")
    survives = frozenset({"crop", "flip", "scale", "color_jitter"})
    max_new_tokens = 256

    def __init__(self, source: Source, coords: Coords = FORMATS["int1000"]) -> None:
        self.source, self.coords = source, coords

    def prompt(self, row: Row) -> str:
        return str(row["prompt"])

    def answer(self, row: Row) -> str:
        return self.coords.polygon(row["polygon"], (row["width"], row["height"]))

    def number_ranges(self, answer: str, row: Row) -> list[tuple[int, int]] | None:
        return self.coords.number_ranges(answer)

    def parse(self, text: str, row: Row) -> Polygon | ParseFailure:
        return self.coords.parse_polygon(text, (row["width"], row["height"])) or ParseFailure("no polygon")

    def search(self, text: str, row: Row) -> Polygon | ParseFailure:
        shapes = self.coords.find_shapes(text, (row["width"], row["height"]))
        return shapes[0] if shapes else ParseFailure("no three points in range")

    def distance(self, first: Polygon, second: Polygon, row: Row) -> float:
        """1 - IoU; 0 between equal ones, also without an area."""
        return 0.0 if first == second else 1.0 - polygon_iou(first, second)

    def score(self, prediction: Polygon | ParseFailure, row: Row) -> Scores:
        overlap = 0.0 if isinstance(prediction, ParseFailure) else polygon_iou(prediction, row["polygon"])
        return {"iou": overlap, **{f"acc_{t}": float(overlap >= t) for t in (0.5, 0.75)}}

    def draw(self, row: Row, prediction: Polygon | ParseFailure) -> Image.Image:
        """Truth in green under the prediction in red."""
        picture, scale = enlarged(picture_of(row))
        pen = ImageDraw.Draw(picture)
        scores = self.score(prediction, row)
        outlines = [(row["polygon"], TRUTH, 4)]
        if not isinstance(prediction, ParseFailure):
            outlines.append((prediction, PREDICTION, 1))
        for points, colour, width in outlines:
            pen.line([(x * scale, y * scale) for x, y in [*points, points[0]]], fill=colour, width=width)
        caption = prediction.reason if isinstance(prediction, ParseFailure) else f"IoU {scores['iou']:.2f}"
        return captioned(picture, row["prompt"], caption, scores["acc_0.5"] == 1.0)


def _as_count(read: Decimal | ParseFailure) -> Decimal | ParseFailure:
    if isinstance(read, ParseFailure) or (read >= 0 and read == read.to_integral_value()):
        return read
    return ParseFailure(f"{read} is no count")


def _loosened(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip(" \t\"'`.,;:!?()[]").casefold() or text
