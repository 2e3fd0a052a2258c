"""Find all text in a picture: the answer is a list of boxes or polygons in reading order, or `none`.

Protocols: `tasks/metrics/detection.py`, which follows the official scripts. All figures are micro-averages over all
boxes of a split. An answer that can't be read counts as no detections (and in `parse_failure_rate`), as a missing
result file does in the official scripts. The order of an answer isn't scored; the one that is taught is defined in
`tasks/answers/reading_order.py`.

Metrics:

* `acc_0.5`, the headline: matched / (true + found - matched) at IoU > 0.5. Our definition, see there.
* `precision`, `recall`, `hmean`: the ICDAR2015 protocol, which is Total-Text's and CTW1500's too, with their polygons.
* `deteval_*` where the task asks for a version (ICDAR2013's and Total-Text's own protocol); `siou_*`, `tiou_*` with
  `tightness`.
* `true`, `found`: how many annotations and detections all that is of, don't-care regions aside.
* `untaught`: of `true`, how many lie beyond `max_instances` of their picture. The limit cuts the ANSWER that a model is
  taught (and `max_new_tokens` what it may write), never the truth that it is scored against, so a limit too low lowers
  the recall.
* every metric once more as `lenient_*`, for all shapes found anywhere in the text.

In `predictions.jsonl` each example has its own sums (`sum_*`) and figures. Pictures without text to be found count as
in the official scripts: recall 1, and precision 1 where nothing was found, 0 otherwise; a failure is 0 in all.
"""

from __future__ import annotations

import warnings
from typing import Any, Literal

from datasets import Dataset
from PIL import Image, ImageDraw

from data.common.counts import counted
from data.common.errors import InvalidOption
from data.common.source import Source
from tasks.answers.coordinates import FORMATS, Coords, Polygon, WrittenBox, around, corners
from tasks.answers.reading_order import outline, reading_order
from tasks.answers.shape_forms import NONE
from tasks.base import ParseFailure, Row, Scores, Task
from tasks.drawing import PREDICTION, TRUTH, captioned, enlarged
from tasks.metrics.detection import DetEval, TrueText, deteval, figures, match, means

Prediction = list[Polygon]
FIGURES = ("acc_0.5", "recall", "precision", "hmean")
TILE = 320  # pixels of a drawn picture's side: scene text is small
DONT_CARE = (160, 160, 160)


class TextDetection(Task):
    """Task of finding all text in a picture.

    Args:
        source: rows with `polygons`, `ignore`, `width` and `height`.
        shape: what an answer lists: `box` (axis-parallel) or `polygon`. Truth keeps the shape that its annotators gave.
        max_instances: how many texts, in reading order, a taught answer names at most.
        deteval: `icdar2013`, `totaltext` or null.
        tightness: SIoU and TIoU among the metrics.
        coords: the model's coordinate format.
        question: the prompt; `{shapes}` becomes boxes or polygons.
        max_new_tokens: what generation may write at most.
    """

    metric = "acc_0.5"
    # 2: the lenient reading takes numbers that stand together, in any nesting
    # 3: the strict one takes what the format's models write by themselves (labels, two decimals)
    # 4: the lenient one takes Arabic digits
    protocol = 4
    coordinates = True
    columns = ("polygons", "ignore", "width", "height")
    survives = frozenset({"crop", "scale", "color_jitter"})  # mirrored letters are none

    def __init__(
        self,
        source: Source,
        shape: Literal["box", "polygon"] = "polygon",
        max_instances: int = 32,
        deteval: DetEval | None = None,
        tightness: bool = False,
        coords: Coords = FORMATS["int1000"],
        question: str = "Find all the words in the picture and give their {shapes} in reading order.",
        max_new_tokens: int = 512,
    ) -> None:
        if max_instances < 1:
            raise InvalidOption(f"task.max_instances must be at least 1, got {max_instances}")
        self.source, self.shape, self.max_instances, self.coords = source, shape, max_instances, coords
        self.deteval, self.tightness, self.max_new_tokens = deteval, tightness, max_new_tokens
        self.question = question.replace("{shapes}", "boxes" if shape == "box" else "polygons")

    def rows(self, split: str) -> Dataset:
        rows = super().rows(split)
        self._warn_of_cuts(rows, split)
        return rows

    def _warn_of_cuts(self, rows: Dataset, split: str) -> None:
        legible = [sum(not flag for flag in ignore) for ignore in rows["ignore"]]
        untaught = [n - self.max_instances for n in legible if n > self.max_instances]
        if untaught:
            warnings.warn(
                f"{split}: task.max_instances={self.max_instances} cuts the answers of {len(untaught)} of "
                f"{counted(len(legible), 'picture')}; {sum(untaught)} of {counted(sum(legible), 'text')} "
                f"{'is' if sum(untaught) == 1 else 'are'} not taught (all are scored)",
                stacklevel=3,
            )

    def prompt(self, row: Row) -> str:
        return self.question

    def answer(self, row: Row) -> str:
        legible = [p for p, ignore in zip(row["polygons"], row["ignore"], strict=True) if not ignore]
        taught = [legible[i] for i in reading_order(legible)[: self.max_instances]]
        size = row["width"], row["height"]
        if self.shape == "box":
            return self.coords.boxes([around(p) for p in taught], size)
        return self.coords.polygons([outline(p) for p in taught], size)

    def number_ranges(self, answer: str, row: Row) -> list[tuple[int, int]] | None:
        return self.coords.number_ranges(answer)

    def shapes(self, answer: str, row: Row) -> list[WrittenBox]:
        return self.coords.written_boxes(answer, (row["width"], row["height"])) if self.shape == "box" else []

    def parse(self, text: str, row: Row) -> Prediction | ParseFailure:
        """Exactly a list of boxes (or polygons) in the format, or `none`."""
        size = row["width"], row["height"]
        if self.shape == "box":
            boxes = self.coords.parse_boxes(text, size)
            return ParseFailure("no list of boxes in the format") if boxes is None else [corners(b) for b in boxes]
        polygons = self.coords.parse_polygons(text, size)
        return ParseFailure("no list of polygons in the format") if polygons is None else polygons

    def search(self, text: str, row: Row) -> Prediction | ParseFailure:
        """Every shape found anywhere, a box too where polygons are asked for; no shape is a failure unless `none`."""
        if text.strip().lower().rstrip(".") in (NONE, self.coords.form.none):
            return []
        shapes = self.coords.find_shapes(text, (row["width"], row["height"]))
        return shapes or ParseFailure("no shape in the text")

    def distance(self, first: Prediction, second: Prediction, row: Row) -> float:
        """1 - Acc@0.5, the mean of each as the truth of the other; 0 between equal lists."""
        if first == second or not first or not second:
            return float(first != second)
        pairs = ((first, second), (second, first))
        values = [figures(match([TrueText(p, False) for p in true], read))["acc_0.5"] for true, read in pairs]
        return 1.0 - sum(values) / 2

    def score(self, prediction: Prediction | ParseFailure, row: Row) -> Scores:
        failed = isinstance(prediction, ParseFailure)
        detections = [] if isinstance(prediction, ParseFailure) else prediction
        truth = [TrueText(points, ignore) for points, ignore in zip(row["polygons"], row["ignore"], strict=True)]
        sums = match(truth, detections)
        of_row = figures(sums)
        values = {name: of_row[name] for name in FIGURES}
        if failed or not sums["true"]:
            empty = 0.0 if failed or sums["found"] else 1.0
            values = dict.fromkeys(values, empty) | {"recall": 0.0 if failed else 1.0}
        if self.deteval:
            sums |= {f"deteval_{name}": v for name, v in deteval(truth, detections, self.deteval).items()}
        sums["untaught"] = max(0.0, sums["true"] - self.max_instances)
        return {**values, **{f"sum_{name}": v for name, v in sums.items()}}

    def metrics_from_sums(self, sums: dict[str, float]) -> dict[str, float]:
        """Micro-averages from the sums of all examples, in place of the means of their own figures."""
        metrics: dict[str, float] = {}
        for prefix in [key.removesuffix("sum_true") for key in sums if key.endswith("sum_true")]:
            totals = {k.removeprefix(f"{prefix}sum_"): v for k, v in sums.items() if k.startswith(f"{prefix}sum_")}
            values = {name: totals[name] for name in ("true", "found", "untaught")}
            values |= {k: v for k, v in figures(totals).items() if self.tightness or k in FIGURES}
            if self.deteval:
                deteval = (totals[f"deteval_{name}"] for name in ("recall", "true", "precision", "found"))
                values |= {f"deteval_{name}": v for name, v in means(*deteval).items()}
            metrics |= {prefix + name: v for name, v in values.items()}
        for key in [key for key in sums if key.endswith("parse_failure_rate")]:
            group = key.removesuffix("parse_failure_rate")
            metrics[f"{group}examples"] = sums[f"{group}examples"]
            metrics[key] = sums[key] / sums[f"{group}examples"]
        return {"examples": sums.get("examples", 0.0), **metrics}

    def draw(self, row: Row, prediction: Prediction | ParseFailure) -> Image.Image:
        """Truth in green (don't-care regions in grey) under the prediction in red, with what was matched."""
        picture, scale = enlarged(row["image"], TILE * 2)
        pen = ImageDraw.Draw(picture)
        for points, ignore in zip(row["polygons"], row["ignore"], strict=True):
            _outlined(pen, points, scale, DONT_CARE if ignore else TRUTH, 4)
        for points in [] if isinstance(prediction, ParseFailure) else prediction:
            _outlined(pen, points, scale, PREDICTION, 2)
        values = self.score(prediction, row)
        caption = f"{values['sum_matched']:.0f} of {values['sum_true']:.0f} in {values['sum_found']:.0f}"
        caption = prediction.reason if isinstance(prediction, ParseFailure) else caption
        return captioned(picture, str(row["id"]), caption, values["acc_0.5"] == 1.0, TILE)


def _outlined(pen: ImageDraw.ImageDraw, points: Any, scale: float, colour: tuple[int, int, int], width: int) -> None:
    ring = [(x * scale, y * scale) for x, y in points]
    pen.line([*ring, ring[0]], fill=colour, width=width, joint="curve")
