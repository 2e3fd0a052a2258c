"""Find what a referring expression means: the answer is one box, written as the model's coordinate format writes it.

Protocol: that of RefCOCO, RefCOCO+ and RefCOCOg as everybody reports it: a prediction is right when its intersection
over union with the annotated box is at least 0.5, over all sentences of a split. COCO's [x, y, w, h] is read as the
corners x, y, x + w, y + h. The REFER code counts whole pixels (x + w - 1, and +1 on lengths), which is the same number,
except that it calls an overlap of at most one pixel none.

Metrics (means over all sentences; an answer that can't be read has IoU 0):

* `acc_0.5`, the headline; `acc_0.25`, `acc_0.75`, `acc_0.9`: the share with at least that IoU.
* `iou`: the mean.
* `<split>/...`: each metric per official split; `split_average/...`: the plain mean of the splits' figures, each split
  counting alike whatever its size.
* `parse_failure_rate`; and every metric once more as `lenient_*`: the first four numbers of the format's scale anywhere
  in the text, corners put in order.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from datasets import Dataset
from PIL import Image, ImageDraw

from data import category_boxes, grounding_export, grounding_rendered, refer
from data.broken import OnError, Tolerance
from data.rgb import rgb
from data.table_files import matching
from tasks import coords as formats
from tasks.base import ParseFailure, Row, Scores, Task, captioned
from tasks.coords import Box, Coords

THRESHOLDS = (0.25, 0.5, 0.75, 0.9)


class Grounding(Task):
    """
    Args:
        source: `refer` (the official release), `export` (a parquet or JSON table), `categories` (a YOLO or COCO folder)
            or `rendered`.
        folder: of the release or of the photographs.
        split_by: of the REFER release: unc, google or umd.
        images: the folder of pictures, where the source's usual place isn't right.
        annotations: COCO annotation file for `categories`; without it the folder is a YOLO one.
        files: for `export`: split -> path or glob of its tables.
        columns, box_format: for `export`, see `data.grounding_export`.
        splits: split as asked for -> the release's own name, several joined by `+`. Other names are taken as they are.
        rows, size, difficulty, seed: of the renderer; `rows` maps a split to how many.
        coords: the model's coordinate format.
        question: the prompt, with `{expression}`.
        on_error: what to do with a broken row.
        max_new_tokens: what generation may write at most.
    """

    metric = "acc_0.5"
    coordinates = True

    def __init__(
        self,
        source: Literal["refer", "export", "categories", "rendered"] = "rendered",
        folder: str | None = None,
        split_by: str = "unc",
        images: str | None = None,
        annotations: dict[str, str | None] | None = None,
        files: dict[str, str | None] | None = None,
        columns: dict[str, str | None] | None = None,
        box_format: grounding_export.BoxFormat | None = None,
        splits: dict[str, str] | None = None,
        rows: dict[str, int] | None = None,
        size: int = 64,
        difficulty: grounding_rendered.Difficulty = "plain",
        seed: int = 0,
        coords: Coords = formats.FORMATS["int1000"],
        question: str = "Where is {expression}? Answer with its box.",
        on_error: OnError = "raise",
        max_new_tokens: int = 48,
    ) -> None:
        if source not in ("refer", "export", "categories", "rendered"):
            raise ValueError(f"task.source must be refer, export, categories or rendered, got {source!r}")
        if source in ("refer", "categories") and not folder:
            raise ValueError(f"task.source={source} needs task.folder=<the folder of the release>")
        self.annotations, self.files, self.columns = _given(annotations), _given(files), _given(columns)
        if source == "export" and not self.files:
            raise ValueError("task.source=export needs task.files.<split>=<a .parquet, .json or .jsonl file>")
        if box_format not in (None, "xywh", "xyxy"):
            raise ValueError(f"task.box_format must be xywh or xyxy, got {box_format!r}")
        if "{expression}" not in question:
            raise ValueError(f"task.question must hold {{expression}}, got {question!r}")
        self.source, self.folder, self.split_by = source, Path(folder or "."), split_by
        self.images, self.box_format = Path(images) if images else None, box_format
        self.splits, self.counts, self.size, self.seed = splits or {}, rows or {}, size, seed
        self.difficulty, self.coords, self.question = difficulty, coords, question
        self.tolerance, self.max_new_tokens = Tolerance(on_error), max_new_tokens
        of_source = {"export": self.files, "categories": self.annotations, "rendered": self.counts}
        self.split_names = tuple(of_source.get(source, ())) or Task.split_names

    def rows(self, split: str) -> Dataset:
        assert self.tolerance is not None
        own = self.splits.get(split, split)
        if self.source == "refer":
            return refer.load(self.folder, self.split_by, own.split("+"), self.images, self.tolerance)
        if self.source == "export":
            if split not in self.files:
                raise ValueError(f"task.files has no file for the split {split!r}; set task.files.{split}=...")
            files = matching(self.files[split], f"task.files.{split}")
            return grounding_export.load(files, own, self.columns, self.box_format, self.images, self.tolerance)
        if self.source == "categories":
            annotations = self.annotations.get(split)
            if self.annotations and not annotations:
                raise ValueError(f"task.annotations has no file for the split {split!r}; set task.annotations.{split}")
            folder = (self.images or self.folder) if annotations else self.folder
            return category_boxes.load(folder, own, Path(annotations) if annotations else None, self.tolerance)
        if split not in self.counts:
            raise ValueError(f"task.rows has no count for the split {split!r}; set task.rows.{split}=...")
        count = self.counts[split]
        return grounding_rendered.load(split, rows=count, size=self.size, difficulty=self.difficulty, seed=self.seed)

    def prompt(self, row: Row) -> str:
        return self.question.replace("{expression}", row["expression"])

    def answer(self, row: Row) -> str:
        return self.coords.box(row["box"], (row["width"], row["height"]))

    def parse(self, text: str, row: Row) -> Box | ParseFailure:
        """Exactly one box in the format, x1 <= x2 and y1 <= y2."""
        return self.coords.parse_box(text, (row["width"], row["height"])) or ParseFailure("no box in the format")

    def parse_lenient(self, text: str, row: Row) -> Box | ParseFailure:
        return self.coords.find_box(text, (row["width"], row["height"])) or ParseFailure("no four numbers in range")

    def score(self, prediction: Box | ParseFailure, row: Row) -> Scores:
        overlap = 0.0 if isinstance(prediction, ParseFailure) else iou(prediction, row["box"])
        return {"iou": overlap, **{f"acc_{t}": float(overlap >= t) for t in THRESHOLDS}}

    def groups(self, row: Row) -> list[str]:
        return [row["split"]]

    def finish(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = super().finish(sums)
        names = [key for key in metrics if "/" not in key and key != "examples"]
        splits = [key.removesuffix("/examples") for key in sums if key.endswith("/examples")]
        averages = {
            f"split_average/{n}": sum(metrics[f"{s}/{n}"] for s in splits) / len(splits) for n in names if splits
        }
        return {**metrics, **averages}

    def draw(self, row: Row, prediction: Box | ParseFailure) -> Image.Image:
        """Truth in green under the prediction in red, with the expression and the IoU."""
        right = self.score(prediction, row)
        picture, scale = enlarged(pictured(row))
        pen = ImageDraw.Draw(picture)
        pen.rectangle([v * scale for v in row["box"]], outline=(0, 230, 70), width=4)
        if isinstance(prediction, ParseFailure):
            said = prediction.reason
        else:
            pen.rectangle([v * scale for v in prediction], outline=(230, 30, 30), width=1)
            said = f"IoU {right['iou']:.2f}"
        return captioned(picture, row.get("expression") or self.prompt(row), said, right["acc_0.5"] == 1.0)


def iou(first: Box | list[float], second: Box | list[float]) -> float:
    """Intersection over union of two x1, y1, x2, y2 boxes; 0 where there is no area to share."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = (first[2] - first[0]) * (first[3] - first[1]) + (second[2] - second[0]) * (second[3] - second[1])
    return shared / (areas - shared) if shared > 0 else 0.0


def pictured(row: Row) -> Image.Image:
    """The row's picture, or white of its size where only the size is known."""
    return row["image"] or Image.new("RGB", (row["width"], row["height"]), "white")


def enlarged(picture: Image.Image, side: int = 384) -> tuple[Image.Image, float]:
    """A copy whose longer side is `side`, so that lines drawn on it are as wide on every picture; and the scale."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return rgb(picture).resize(size, Image.Resampling.BICUBIC), scale


def _given(keys: dict[str, str | None] | None) -> dict[str, str]:
    return {key: value for key, value in (keys or {}).items() if value is not None}
