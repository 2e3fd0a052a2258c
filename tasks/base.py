"""What every task offers: rows, prompt, answer text, parse, score, summary, drawing. No tensors, no models."""

from __future__ import annotations

import textwrap
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from data.broken import Tolerance
from data.rgb import rgb

Row = dict[str, Any]
Scores = dict[str, float]


@dataclass(frozen=True)
class ParseFailure:
    """The text isn't an answer. It scores the worst of every metric and is counted, never dropped."""

    reason: str


class Task(ABC):
    """A task is one subclass in `tasks/` and one or more YAML files in `conf/task`.

    A subclass may ask for `coords` in its constructor: the coordinate format of the model in use.

    Attributes:
        metric: the summary's headline figure.
        greater_is_better: which way `metric` is better.
        also: further metrics that reports compare -> whether greater is better.
        max_new_tokens: what generation may write at most, in tokens, the end token included.
        coordinates: the answer's numbers are coordinates written with `coords` (some models have tokens of their own
            for them).
        split_names: what `rows` can be asked for.
    """

    metric: str
    coordinates: bool = False
    greater_is_better: bool = True
    also: Mapping[str, bool] = MappingProxyType({})
    max_new_tokens: int = 32
    split_names: tuple[str, ...] = ("train", "validation", "test")
    tolerance: Tolerance | None = None

    @property
    def skipped(self) -> list[str]:
        """One line for every broken row that reading has left out so far (`on_error=skip`)."""
        return self.tolerance.skipped if self.tolerance else []

    @abstractmethod
    def rows(self, split: str) -> Dataset:
        """The split's rows: `id`, perhaps `image` (`datasets.Image`) and `level` (for a curriculum), and the truth."""

    @abstractmethod
    def prompt(self, row: Row) -> str:
        """The question, without any model's own wrapping."""

    @abstractmethod
    def answer(self, row: Row) -> str:
        """The exact text the model is taught."""

    def picture(self, row: Row) -> Image.Image | None:
        """What the model is to see, in RGB; None for a row without a picture."""
        return rgb(row["image"]) if row.get("image") is not None else None

    @abstractmethod
    def parse(self, text: str, row: Row) -> Any | ParseFailure:
        """Strict reading of a generated text. Never raises, whatever the text."""

    def parse_lenient(self, text: str, row: Row) -> Any | ParseFailure:
        """A forgiving reading, reported beside the strict one so that no loss is praised for formatting alone."""
        return self.parse(text, row)

    @abstractmethod
    def score(self, prediction: Any | ParseFailure, row: Row) -> Scores:
        """Numbers of one example; the same keys for every example, a failure included."""

    def groups(self, row: Row) -> list[str]:
        """Names of the groups the row belongs to; every group gets metrics of its own, as `<group>/<metric>`."""
        return []

    def summarize(self, records: Iterable[Row]) -> dict[str, float]:
        """Metrics of many records (see `record`), read once, in constant memory."""
        return self.finish(self.tally(records))

    def tally(self, records: Iterable[Row]) -> dict[str, float]:
        """Sums that stand for the records: those of several ranks added key by key are those of all records."""
        sums: dict[str, float] = {}
        for record in records:
            flat = {**record["scores"], **{f"lenient_{k}": v for k, v in record["lenient"].items()}}
            flat |= {"examples": 1.0, "parse_failure_rate": float(record["failure"] is not None)}
            for group in ("", *(f"{name}/" for name in record.get("groups", ()))):
                for key, value in flat.items():
                    sums[group + key] = sums.get(group + key, 0.0) + value
        return sums

    def finish(self, sums: dict[str, float]) -> dict[str, float]:
        """Metrics from the sums of `tally`; here the mean of every score."""
        metrics = {"examples": sums.get("examples", 0.0)}
        for key, value in sums.items():
            group, slash, name = key.rpartition("/")
            metrics[key] = value if name == "examples" else value / sums[f"{group}{slash}examples"]
        return metrics

    def draw(self, row: Row, prediction: Any | ParseFailure) -> Image.Image:
        """The row's picture with truth and prediction; here as a caption of both texts."""
        shown = prediction.reason if isinstance(prediction, ParseFailure) else str(prediction)
        right = not isinstance(prediction, ParseFailure) and prediction == self.parse(self.answer(row), row)
        picture = row.get("image") or _written(self.prompt(row))
        return captioned(picture, f"true {self.answer(row)}", f"read {shown}", right)

    def record(self, text: str, row: Row) -> Row:
        """One line of `predictions.jsonl`: what was generated, what it was read as, and its scores."""
        prediction, lenient = self.parse(text, row), self.parse_lenient(text, row)
        groups = self.groups(row)
        return {
            "id": row["id"],
            "answer": self.answer(row),
            "text": text,
            "failure": prediction.reason if isinstance(prediction, ParseFailure) else None,
            "scores": self.score(prediction, row),
            "lenient": self.score(lenient, row),
            **({"groups": groups} if groups else {}),
        }


def _written(text: str) -> Image.Image:
    """The text on white, for rows without a picture."""
    lines = [line for part in text.splitlines() for line in textwrap.wrap(part, 26)][:10]
    canvas = Image.new("RGB", (192, 192), "white")
    ImageDraw.Draw(canvas).multiline_text((4, 4), "\n".join(lines), fill="black", font=ImageFont.load_default(size=14))
    return canvas


def captioned(picture: Image.Image, first: str, second: str, right: bool, side: int = 192) -> Image.Image:
    """The picture in a `side`-wide square over two lines of text, the second green when right and red when not."""
    canvas = Image.new("RGB", (side, side + 40), "white")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    shown = rgb(picture).resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    canvas.paste(shown, ((side - size[0]) // 2, (side - size[1]) // 2))
    draw, colour = ImageDraw.Draw(canvas), (0, 120, 40) if right else (190, 20, 20)
    for text, top, fill in ((first, side + 2, (0, 0, 0)), (second, side + 20, colour)):
        size_of_text = max(8, min(15, int(15 * (side - 8) / max(1.0, ImageFont.load_default(size=15).getlength(text)))))
        draw.text((6, top), text, fill=fill, font=ImageFont.load_default(size=size_of_text))
    return canvas
