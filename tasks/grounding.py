"""Find the object of a referring expression: the answer is one box, in the model's coordinate format.

Protocol: that of RefCOCO, RefCOCO+ and RefCOCOg as usually reported: a prediction is right when its intersection over
union with the annotated box is at least 0.5, over all sentences of a split. COCO's [x, y, w, h] is read as the corners
x, y, x + w, y + h. The REFER code counts whole pixels (x + w - 1, and +1 on lengths), which is the same number, except
that it calls an overlap of at most one pixel none.

Metrics (means over all sentences; an answer that can't be read has IoU 0):

* `acc_0.5`, the headline; `acc_0.25`, `acc_0.75`, `acc_0.9`: the share with at least that IoU.
* `iou`: the mean.
* `<split>/...`: each metric per official split; `split_average/...`: the plain mean of the splits' figures, each split
  counting alike whatever its size.
* `parse_failure_rate`; and every metric once more as `lenient_*`: the first four numbers of the format's scale that
  stand together anywhere in the text, corners put in order.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from data.common.errors import InvalidOption
from data.common.source import Source
from tasks.answers.coordinates import FORMATS, Box, Coords, WrittenBox
from tasks.base import OwnQuestion, ParseFailure, Row, Scores, Style, Task
from tasks.drawing import PREDICTION, TRUTH, captioned, enlarged, picture_of
from tasks.metrics.boxes import box_iou

THRESHOLDS = (0.25, 0.5, 0.75, 0.9)


class Grounding(Task):
    """Task of grounding a referring expression with a box.

    Args:
        source: rows with `box`, `width`, `height` and `expression` (or a `prompt` of their own).
        coords: the model's coordinate format.
        question: the prompt, with `{expression}`.
        question_style: `family` asks in the words that the model's family was taught with, in place of `question`; null
            or `common` asks every model alike.
        own_question: those words, given by the model; None where its family states none.
        max_new_tokens: what generation may write at most.
    """

    metric = "acc_0.5"
    subject = "grounding"
    # 2: the lenient reading takes four numbers that stand together
    # 3: the strict one takes what the format's models write by themselves (a label, two decimals)
    # 4: the lenient one takes Arabic digits
    protocol = 4
    coordinates = True
    number_count = 4
    columns = ("box", "width", "height")
    survives = frozenset({"crop", "flip", "scale", "color_jitter"})

    def __init__(
        self,
        source: Source,
        coords: Coords = FORMATS["int1000"],
        question: str = "Where is {expression}? Answer with its box.",
        question_style: Style = None,
        own_question: OwnQuestion | None = None,
        max_new_tokens: int = 48,
    ) -> None:
        question = OwnQuestion.in_style(question_style, own_question, self.subject, question).text
        if "{expression}" not in question:
            raise InvalidOption(f"task.question must hold {{expression}}, got {question!r}")
        self.source, self.coords, self.question, self.max_new_tokens = source, coords, question, max_new_tokens

    def prompt(self, row: Row) -> str:
        return row.get("prompt") or self.question.replace("{expression}", row["expression"])

    def answer(self, row: Row) -> str:
        return self.coords.box(row["box"], (row["width"], row["height"]))

    def written(self, numbers: Sequence[float], row: Row) -> str:
        size = (row["width"], row["height"])
        return self.coords.box(self.coords.box_of(numbers, size), size)

    def number_ranges(self, answer: str, row: Row) -> list[tuple[int, int]] | None:
        return self.coords.number_ranges(answer)

    def shapes(self, answer: str, row: Row) -> list[WrittenBox]:
        return self.coords.written_boxes(answer, (row["width"], row["height"]))

    def parse(self, text: str, row: Row) -> Box | ParseFailure:
        """Exactly one box in the format, x1 <= x2 and y1 <= y2."""
        return self.coords.parse_box(text, (row["width"], row["height"])) or ParseFailure("no box in the format")

    def search(self, text: str, row: Row) -> Box | ParseFailure:
        return self.coords.find_box(text, (row["width"], row["height"])) or ParseFailure("no four numbers in range")

    def distance(self, first: Box, second: Box, row: Row) -> float:
        """1 - IoU; 0 between equal ones, also without an area."""
        return 0.0 if first == second else 1.0 - box_iou(first, second)

    def score(self, prediction: Box | ParseFailure, row: Row) -> Scores:
        overlap = 0.0 if isinstance(prediction, ParseFailure) else box_iou(prediction, row["box"])
        return {"iou": overlap, **{f"acc_{t}": float(overlap >= t) for t in THRESHOLDS}}

    def groups(self, row: Row) -> list[str]:
        return [row["split"]] if "split" in row else super().groups(row)

    def metrics_from_sums(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = super().metrics_from_sums(sums)
        names = [key for key in metrics if "/" not in key and key != "examples"]
        splits = [key.removesuffix("/examples") for key in sums if key.endswith("/examples")]
        averages = {
            f"split_average/{n}": sum(metrics[f"{s}/{n}"] for s in splits) / len(splits) for n in names if splits
        }
        return {**metrics, **averages}

    def draw(self, row: Row, prediction: Box | ParseFailure) -> Image.Image:
        """Truth in green under the prediction in red, with the expression and the IoU."""
        scores = self.score(prediction, row)
        picture, scale = enlarged(picture_of(row))
        pen = ImageDraw.Draw(picture)
        pen.rectangle([v * scale for v in row["box"]], outline=TRUTH, width=4)
        if isinstance(prediction, ParseFailure):
            caption = prediction.reason
        else:
            pen.rectangle([v * scale for v in prediction], outline=PREDICTION, width=1)
            caption = f"IoU {scores['iou']:.2f}"
        return captioned(picture, row.get("expression") or self.prompt(row), caption, scores["acc_0.5"] == 1.0)
