"""Interface of a task: rows, prompt, answer text, parse, score, summary, drawing. No tensors, no models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from datasets import Dataset
from datasets import Image as Picture
from PIL import Image

from data.common.errors import InvalidOption
from data.common.images import stored_key, stored_size
from data.common.rgb import rgb
from data.common.rows import Row
from data.common.source import Source
from tasks.answers.coordinates import WrittenBox
from tasks.answers.failure import ParseFailure
from tasks.drawing import captioned, text_picture

Scores = dict[str, float]
Style = Literal["common", "family"] | None  # of a question; null: common


@dataclass(frozen=True)
class OwnQuestion:
    """A question in the words that a model's family was taught with.

    Attributes:
        text: with the task's own fields, as `{expression}` of grounding.
        separator: between several things that are asked for.
    """

    text: str
    separator: str = ", "

    @classmethod
    def in_style(cls, style: Style, taught: OwnQuestion | None, subject: str, common: str) -> OwnQuestion:
        """The family's own question where the style asks for it, else the common one.

        Raises:
            InvalidOption: the family has none.
        """
        if style != "family":
            return cls(common)
        if taught is None:
            raise InvalidOption(
                "task.question_style=family: the authors of this model's family publish no words of their own for "
                f"{subject}; leave it out, or set task.question"
            )
        return taught


class Task(ABC):
    """Task: one subclass in `tasks/` and one or more YAML files in `conf/task`.

    A subclass may ask for `source` in its constructor, the rows that its YAML chooses; for `coords`, the coordinate
    format of the model in use; and for `own_question`, the words of the model in use for the task's `subject`.

    Attributes:
        metric: the summary's headline figure.
        greater_is_better: which way `metric` is better.
        secondary_metrics: further metrics that reports compare -> whether greater is better.
        subject: what the task asks for, by which a model family says how it was taught to be asked (`own_prompts`);
            None where families have no words for it.
        protocol: version of how answers are read and scored; increment it when a score of the same answer changes.
        max_new_tokens: what generation may write at most, in tokens, the end token included.
        coordinates: the answer's numbers are coordinates written with `coords` (some models have tokens of their own
            for them).
        number_count: how many numbers every answer has, for models whose numbers are read, not generated (`written`);
            None: it isn't fixed.
        columns: what a row of the source must have.
        survives: the augmentations of a picture after which the answer is still right, or moves with it.
        source: where the rows come from; None for a task that makes its own.
        members: name -> task of a mixture; empty for a task that is none, see `tasks.mixture`.
        mixes_pictures: some tasks of the mixture have pictures and others have none, as far as their rows were read.
    """

    metric: str
    greater_is_better: bool = True
    secondary_metrics: Mapping[str, bool] = MappingProxyType({})
    subject: str | None = None
    protocol: int = 1
    max_new_tokens: int = 32
    coordinates: bool = False
    number_count: int | None = None
    columns: tuple[str, ...] = ()
    survives: frozenset[str] = frozenset({"scale", "color_jitter"})
    source: Source | None = None
    members: Mapping[str, Task] = MappingProxyType({})
    mixes_pictures: bool = False

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits that `rows` gives."""
        return self.source.splits if self.source else Source.splits

    @property
    def skipped(self) -> list[str]:
        """One line for every broken row that reading has left out so far (`on_error=skip`)."""
        return self.source.row_errors.skipped if self.source else []

    @property
    def notes(self) -> list[str]:
        """One line for everything that the task's reader resolved by itself and that costs no row."""
        return self.source.row_errors.notes if self.source else []

    def rows(self, split: str) -> Dataset:
        """The split's rows: `id`, perhaps `image` (`datasets.Image`) and `level` (for a curriculum), and the truth."""
        if self.source is None:
            raise NotImplementedError(f"{type(self).__name__} has neither a source nor rows of its own")
        rows = self.source.rows(split)
        if missing := [name for name in self.columns if name not in rows.column_names]:
            raise InvalidOption(
                f"task.source: {type(self.source).__name__} gives no column {', '.join(missing)}, which "
                f"{type(self).__name__} needs; choose a source of this task"
            )
        return rows

    def by_member(self, rows: Dataset) -> dict[str, Dataset]:
        """The rows of each task of a mixture that has any, as its source gave them; of a single task all, under ""."""
        return {"": rows}

    def mixed(self, parts: Mapping[str, Dataset]) -> Dataset:
        """The rows of a split, of those of each task; the inverse of `by_member`."""
        return parts[""]

    def member_of(self, row: Row) -> str:
        """Name of the row's task in a mixture; empty for a single task."""
        return ""

    def shares(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Share of each task of a mixture in the rows that are drawn, from its training rows; they add up to 1."""
        return {"": 1.0}

    @property
    def protocols(self) -> dict[str, int]:
        """Protocol of each task of a mixture."""
        return {name: task.protocol for name, task in self.members.items()}

    def origins(self, splits: Iterable[str]) -> dict[str, str | None]:
        """Split -> where its rows come from, and in which revision, see `Source.origin`."""
        return {split: self.source.origin(split) if self.source else None for split in splits}

    def expected_rows(self, split: str) -> int | None:
        """About how many rows a split has, without reading data; None where that isn't known."""
        return self.source.expected_rows(split) if self.source else None

    def expected_rows_per_picture(self, split: str) -> float | None:
        """About how many rows show one picture, without reading data; None where that isn't known."""
        return self.source.expected_rows_per_picture(split) if self.source else None

    def check_split(self, split: str) -> None:
        """Check that a split exists, without reading data.

        Raises:
            UserError: there is no such split, as far as can be known without reading anything.
        """
        if self.source is not None:
            self.source.check_split(split)

    def check_files(self) -> None:
        """Check that the files and folders of the task's data exist.

        Raises:
            UserError: a file or folder that the task's data needs isn't there.
        """
        if self.source is not None:
            self.source.check_files()

    def check_augmentation(self, names: Iterable[str]) -> None:
        """Check that the task's answers stay true when pictures are augmented.

        Args:
            names: of augmentations, as of `augment.<name>`.

        Raises:
            InvalidOption: one of them would make answers false.
        """
        for name in names:
            if name not in self.survives:
                taken = ", ".join(f"augment.{one}" for one in sorted(self.survives)) or "none"
                raise InvalidOption(
                    f"augment.{name} would make answers of {type(self).__name__} false; it takes {taken}: set "
                    f"augment.{name}=null"
                )

    @abstractmethod
    def prompt(self, row: Row) -> str:
        """The question, without any model's own wrapping."""

    @abstractmethod
    def answer(self, row: Row) -> str:
        """The exact text that the model is taught."""

    def written(self, numbers: Sequence[float], row: Row) -> str:
        """The answer with these `number_count` numbers, in its own order and unit, rounded and moved into its range."""
        raise NotImplementedError(f"the answers of {type(self).__name__} have no fixed count of numbers")

    def number_ranges(self, answer: str, row: Row) -> list[tuple[int, int]] | None:
        """Characters of a row's answer that are numbers to be measured, each the first and the one after the last.

        Losses, coverage and digit statistics see no digit outside of them. None: every digit is one of a number.
        """
        return None

    def groups_thousands(self, row: Row) -> bool:
        """Whether a comma before three digits belongs to a number in the row's answers, as in `1,000`."""
        return False

    def shapes(self, answer: str, row: Row) -> list[WrittenBox]:
        """The boxes of a row's answer, by the characters of their numbers, for losses on boxes (`needs_shapes`)."""
        return []

    def picture(self, row: Row) -> Image.Image | None:
        """The model's picture, in RGB; None for a row without a picture."""
        return rgb(row["image"]) if row.get("image") is not None else None

    def shows_stored(self, row: Row) -> bool:
        """Whether the model's picture is the one that is stored."""
        return type(self).picture is Task.picture

    def picture_size(self, row: Row) -> tuple[int, int] | None:
        """Width and height of `picture`, for a row whose picture is as stored (see `undecoded`); None without one."""
        if row.get("image") is None:
            return None
        if self.shows_stored(row):
            return stored_size(row["image"])
        picture = self.picture({**row, "image": Picture().decode_example(row["image"])})
        return picture.size if picture else None

    def picture_key(self, row: Row) -> str | None:
        """What tells the row's picture from those of other rows, for a row whose picture is as stored.

        Rows with one key have one picture. None: a row without a picture, or nothing is known of it.
        """
        if row.get("image") is None or not self.shows_stored(row):
            return None
        return stored_key(row["image"])

    @abstractmethod
    def parse(self, text: str, row: Row) -> Any | ParseFailure:
        """Strict reading of a generated text. Never raises, whatever the text."""

    def parse_lenient(self, text: str, row: Row) -> Any | ParseFailure:
        """Lenient reading, reported besides the strict one, so that a loss doesn't gain by formatting alone.

        What the strict reading takes, the lenient one takes with the same value, so no lenient score is below it.
        """
        strict = self.parse(text, row)
        return self.search(text, row) if isinstance(strict, ParseFailure) else strict

    def search(self, text: str, row: Row) -> Any | ParseFailure:
        """Find the answer in a text that the strict reading refuses. Never raises; here nothing is found."""
        return self.parse(text, row)

    @abstractmethod
    def score(self, prediction: Any | ParseFailure, row: Row) -> Scores:
        """Scores of one example; the same keys for every example, a failure included."""

    def distance(self, first: Any, second: Any, row: Row) -> float:
        """How far two readings of a row's answer are apart, from 0; symmetric. Decoding takes the least expected one.

        Here 1 where they aren't equal, so that the commonest reading is the nearest to all.
        """
        return float(first != second)

    def groups(self, row: Row) -> list[str]:
        """Names of the groups the row belongs to; every group gets metrics of its own, as `<group>/<metric>`."""
        return [row["group"]] if row.get("group") is not None else []

    def summarize(self, records: Iterable[Row]) -> dict[str, float]:
        """Metrics of many records (see `record`), read once, in constant memory."""
        return self.metrics_from_sums(self.sum_scores(records))

    def sum_scores(self, records: Iterable[Row]) -> dict[str, float]:
        """Sums over records; those of several ranks, added key by key, are those of all records."""
        sums: dict[str, float] = {}
        for record in records:
            flat = {**record["scores"], **{f"lenient_{k}": v for k, v in record["lenient"].items()}}
            flat |= {"examples": 1.0, "parse_failure_rate": float(record["failure"] is not None)}
            for group in ("", *(f"{name}/" for name in record.get("groups", ()))):
                for key, value in flat.items():
                    sums[group + key] = sums.get(group + key, 0.0) + value
        return sums

    def metrics_from_sums(self, sums: dict[str, float]) -> dict[str, float]:
        """Metrics from the sums of `sum_scores`; here the mean of every score."""
        metrics = {"examples": sums.get("examples", 0.0)}
        for key, value in sums.items():
            group, slash, name = key.rpartition("/")
            metrics[key] = value if name == "examples" else value / sums[f"{group}{slash}examples"]
        return metrics

    def draw(self, row: Row, prediction: Any | ParseFailure) -> Image.Image:
        """The row's picture with truth and prediction; here as a caption of both texts."""
        text = prediction.reason if isinstance(prediction, ParseFailure) else str(prediction)
        right = not isinstance(prediction, ParseFailure) and prediction == self.parse(self.answer(row), row)
        picture = row.get("image") or text_picture(self.prompt(row))
        return captioned(picture, f"true {self.answer(row)}", f"read {text}", right)

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
