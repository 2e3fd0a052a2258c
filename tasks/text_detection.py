"""Find all text in a picture: the answer is a list of boxes or polygons in reading order, or `none`.

Protocols: `tasks/detection_scores.py`, which follows the official scripts. All figures are micro-averages over all
boxes of a split. An answer that can't be read counts as no detections (and in `parse_failure_rate`), as a missing
result file does in the official scripts. The order of an answer isn't scored; which one is taught says
`tasks/reading_order.py`.

Metrics:

* `acc_0.5`, the headline: matched / (true + found - matched) at IoU > 0.5. Our definition, see there.
* `precision`, `recall`, `hmean`: the ICDAR2015 protocol, which is Total-Text's and CTW1500's too, with their polygons.
* `deteval_*` where the task asks for a version (ICDAR2013's and Total-Text's own protocol); `siou_*`, `tiou_*` with
  `tightness`.
* `true`, `found`: how many annotations and detections all that is of, don't-care regions aside.
* `untaught`: of `true`, how many lie beyond `max_instances` of their picture. The limit cuts the ANSWER that a model is
  taught (and `max_new_tokens` what it may write), never the truth that it is scored against, so a limit too low costs
  recall and is seen.
* every metric once more as `lenient_*`, for all shapes found anywhere in the text.

In `predictions.jsonl` each example has its own sums (`sum_*`) and figures. Pictures without text to be found count as
in the official scripts: recall 1, and precision 1 where nothing was found, 0 otherwise; a failure is 0 in all.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from PIL import Image, ImageDraw

from data import text_release, text_rendered
from data.broken import BrokenInput, OnError, Tolerance
from data.text_truth import FORMATS, Format
from tasks import coords as formats
from tasks.base import ParseFailure, Row, Scores, Task, captioned
from tasks.coords import Coords, Polygon, around, corners
from tasks.detection_scores import DetEval, Truth, deteval, figures, match, means
from tasks.grounding import enlarged
from tasks.reading_order import outline, reading_order

Prediction = list[Polygon]
FIGURES = ("acc_0.5", "recall", "precision", "hmean")
TILE = 320  # pixels of a drawn picture's side: scene text is small


class TextDetection(Task):
    """
    Args:
        source: `release` (ground truth as downloaded, beside its pictures) or `rendered`.
        format: of the release, see `data.text_truth`.
        truth, images: of the release: split -> path of its ground truth, of its pictures.
        holdout: which part of the training pictures is the validation split, where `truth` has none: every n-th. The
            official releases have no validation split, and choosing anything on the test split would be cheating.
        rows, size, difficulty, seed, backgrounds: of the renderer; `rows` maps a split to how many.
        shape: what an answer lists: `box` (axis-parallel) or `polygon`. Truth keeps the shape that its annotators gave.
        max_instances: how many texts, in reading order, a taught answer names at most.
        deteval: `icdar2013`, `totaltext` or null.
        tightness: SIoU and TIoU among the metrics.
        coords: the model's coordinate format.
        question: the prompt; `{shapes}` becomes boxes or polygons.
        on_error: what to do with a broken row.
        max_new_tokens: what generation may write at most.
    """

    metric = "acc_0.5"
    coordinates = True

    def __init__(
        self,
        source: Literal["release", "rendered"] = "rendered",
        format: Format | None = None,
        truth: dict[str, str] | None = None,
        images: dict[str, str] | None = None,
        holdout: float = 0.1,
        rows: dict[str, int] | None = None,
        size: int = 64,
        difficulty: text_rendered.Difficulty = "plain",
        seed: int = 0,
        backgrounds: str | None = None,
        shape: Literal["box", "polygon"] = "polygon",
        max_instances: int = 32,
        deteval: DetEval | None = None,
        tightness: bool = False,
        coords: Coords = formats.FORMATS["int1000"],
        question: str = "Find all the words in the picture and give their {shapes} in reading order.",
        on_error: OnError = "raise",
        max_new_tokens: int = 512,
    ) -> None:
        if source not in ("release", "rendered"):
            raise ValueError(f"task.source must be release or rendered, got {source!r}")
        if source == "release" and (format not in FORMATS or not truth or not images):
            raise ValueError(
                "task.source=release needs task.truth.<split>, task.images.<split> and task.format, "
                f"one of {', '.join(FORMATS)}; got truth={truth}, images={images}, format={format!r}"
            )
        if shape not in ("box", "polygon"):
            raise ValueError(f"task.shape must be box or polygon, got {shape!r}")
        if deteval not in (None, "icdar2013", "totaltext"):
            raise ValueError(f"task.deteval must be icdar2013, totaltext or null, got {deteval!r}")
        if max_instances < 1:
            raise ValueError(f"task.max_instances must be at least 1, got {max_instances}")
        if not 0 < holdout <= 0.5:
            raise ValueError(f"task.holdout must be above 0 and at most 0.5, got {holdout}")
        self.source, self.format, self.truth, self.images = source, format, truth or {}, images or {}
        self.every = round(1 / holdout)
        if source == "release":
            held = ["validation"] if "train" in self.truth and "validation" not in self.truth else []
            self.split_names = (*self.truth, *held)
        self.counts, self.size, self.difficulty, self.seed = rows or {}, size, difficulty, seed
        self.backgrounds = Path(backgrounds) if backgrounds else None
        self.shape, self.max_instances, self.coords = shape, max_instances, coords
        self.deteval, self.tightness = deteval, tightness
        self.question = question.replace("{shapes}", "boxes" if shape == "box" else "polygons")
        self.tolerance, self.max_new_tokens = Tolerance(on_error), max_new_tokens

    def rows(self, split: str) -> Dataset:
        if self.source == "release":
            rows = self._release(split)
            self._warn_of_cuts(rows, split)
            return rows
        if split not in self.counts:
            raise ValueError(f"task.rows has no count for the split {split!r}; set task.rows.{split}=...")
        return text_rendered.load(
            split,
            rows=self.counts[split],
            size=self.size,
            difficulty=self.difficulty,
            seed=self.seed,
            backgrounds=self.backgrounds,
        )

    def _release(self, split: str) -> Dataset:
        assert self.tolerance is not None and self.format is not None
        shared = "validation" not in self.truth and split in ("train", "validation")
        own = "train" if shared else split
        if own not in self.truth or own not in self.images:
            raise ValueError(f"task.truth and task.images must name the split {own!r}; set task.truth.{own}=...")
        rows = text_release.load(Path(self.truth[own]), Path(self.images[own]), self.format, own, self.tolerance)
        if not shared:
            return rows
        held = [i for i in range(len(rows)) if (i % self.every == self.every - 1) == (split == "validation")]
        if not held:
            problem = f"{len(rows)} training pictures leave none to hold out"
            raise BrokenInput(self.truth[own], None, problem, "set task.truth.validation or raise task.holdout")
        return rows.select(held)

    def _warn_of_cuts(self, rows: Dataset, split: str) -> None:
        wanted = [sum(not flag for flag in ignore) for ignore in rows["ignore"]]
        cut = [n - self.max_instances for n in wanted if n > self.max_instances]
        if cut:
            warnings.warn(
                f"{split}: task.max_instances={self.max_instances} cuts the answers of {len(cut)} of {len(wanted)} "
                f"pictures; {sum(cut)} of {sum(wanted)} texts are not taught (all are scored)",
                stacklevel=3,
            )

    def prompt(self, row: Row) -> str:
        return self.question

    def answer(self, row: Row) -> str:
        wanted = [p for p, ignore in zip(row["polygons"], row["ignore"], strict=True) if not ignore]
        taught = [wanted[i] for i in reading_order(wanted)[: self.max_instances]]
        size = row["width"], row["height"]
        if self.shape == "box":
            return self.coords.boxes([around(p) for p in taught], size)
        return self.coords.polygons([outline(p) for p in taught], size)

    def parse(self, text: str, row: Row) -> Prediction | ParseFailure:
        """Exactly a list of boxes (or polygons) in the format, or `none`."""
        size = row["width"], row["height"]
        if self.shape == "box":
            boxes = self.coords.parse_boxes(text, size)
            return ParseFailure("no list of boxes in the format") if boxes is None else [corners(b) for b in boxes]
        polygons = self.coords.parse_polygons(text, size)
        return ParseFailure("no list of polygons in the format") if polygons is None else polygons

    def parse_lenient(self, text: str, row: Row) -> Prediction | ParseFailure:
        """Every shape found anywhere, a box too where polygons are asked for; no shape is a failure unless `none`."""
        if text.strip().lower().rstrip(".") == formats.NONE:
            return []
        found = self.coords.find_shapes(text, (row["width"], row["height"]))
        return found or ParseFailure("no shape in the text")

    def score(self, prediction: Prediction | ParseFailure, row: Row) -> Scores:
        failed = isinstance(prediction, ParseFailure)
        found = [] if isinstance(prediction, ParseFailure) else prediction
        truth = [Truth(points, ignore) for points, ignore in zip(row["polygons"], row["ignore"], strict=True)]
        sums = match(truth, found)
        own = figures(sums)
        values = {name: own[name] for name in FIGURES}
        if failed or not sums["true"]:
            empty = 0.0 if failed or sums["found"] else 1.0
            values = dict.fromkeys(values, empty) | {"recall": 0.0 if failed else 1.0}
        if self.deteval:
            sums |= {f"deteval_{name}": v for name, v in deteval(truth, found, self.deteval).items()}
        sums["untaught"] = max(0.0, sums["true"] - self.max_instances)
        return {**values, **{f"sum_{name}": v for name, v in sums.items()}}

    def finish(self, sums: dict[str, float]) -> dict[str, float]:
        """Micro-averages from the sums of all examples, in place of the means of their own figures."""
        metrics = {}
        for prefix in [key.removesuffix("sum_true") for key in sums if key.endswith("sum_true")]:
            own = {k.removeprefix(f"{prefix}sum_"): v for k, v in sums.items() if k.startswith(f"{prefix}sum_")}
            values = {name: own[name] for name in ("true", "found", "untaught")}
            values |= {k: v for k, v in figures(own).items() if self.tightness or k in FIGURES}
            if self.deteval:
                given = (own[f"deteval_{name}"] for name in ("recall", "true", "precision", "found"))
                values |= {f"deteval_{name}": v for name, v in means(*given).items()}
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
            _outlined(pen, points, scale, (160, 160, 160) if ignore else (0, 230, 70), 4)
        for points in [] if isinstance(prediction, ParseFailure) else prediction:
            _outlined(pen, points, scale, (230, 30, 30), 2)
        values = self.score(prediction, row)
        said = f"{values['sum_matched']:.0f} of {values['sum_true']:.0f} in {values['sum_found']:.0f}"
        said = prediction.reason if isinstance(prediction, ParseFailure) else said
        return captioned(picture, str(row["id"]), said, values["acc_0.5"] == 1.0, TILE)


def _outlined(pen: ImageDraw.ImageDraw, points: Any, scale: float, colour: tuple[int, int, int], width: int) -> None:
    ring = [(x * scale, y * scale) for x, y in points]
    pen.line([*ring, ring[0]], fill=colour, width=width, joint="curve")
