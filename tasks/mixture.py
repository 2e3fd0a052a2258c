"""Several tasks in one training, each with its own prompts, answers, reading and scores.

A mixture is a task whose rows are those of its tasks, one below the other. Whatever is asked of a row is answered by
the row's own task, so a model, a collator or a loss needs to know nothing of mixtures. `by_member` gives the rows of
each task back as its source gave them; evaluation goes through them task by task.

Metrics: those of every task as `<task>/<metric>`, and `mean_over_tasks`, the plain mean of the tasks' headline metrics.

Columns: `id`, as `<task>:<id of the row>`, `image` where any task has pictures, and the columns of each task as
`<task>/<column>`, which are null in the rows of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from datasets import Image as Picture
from PIL import Image

from data.common.errors import InvalidOption, UserError
from tasks.answers.coordinates import WrittenBox
from tasks.answers.failure import ParseFailure
from tasks.base import Row, Scores, Task

MEAN = "mean_over_tasks"


class Mixture(Task):
    """Task made of tasks.

    Args:
        tasks: name -> task; in a config `tasks.<name>` is the config of a task.
        weights: name -> how many rows are drawn, relative to the others; null: see `temperature`.
        temperature: T of shares n ** (1 / T), n being a task's training rows: 1 (and null) draws by row counts, a
            higher one draws more evenly.
        headline: the task whose headline metric chooses the best checkpoint; null: the mean over all tasks.

    Raises:
        InvalidOption: fewer than two tasks, weights or a temperature that can't be, or headline metrics that have no
            mean.
    """

    protocol = 1
    survives = frozenset()  # what moves with a picture lies in columns of the tasks' own

    def __init__(
        self,
        tasks: Mapping[str, Task],
        weights: Mapping[str, float | None] | None = None,
        temperature: float | None = None,
        headline: str | None = None,
    ) -> None:
        check_options({*tasks}, weights, temperature, headline)
        self.members = dict(tasks)
        stated = {name: weight for name, weight in (weights or {}).items() if weight is not None}
        self.weights, self.temperature = stated or None, temperature or 1.0
        self._with_column: set[str] = set()  # tasks whose rows have a column of pictures, perhaps an empty one
        self._with_pictures: set[str] = set()  # tasks whose rows have pictures
        self.max_new_tokens = max(task.max_new_tokens for task in tasks.values())
        directions = {task.greater_is_better for task in tasks.values()}
        if headline is not None:
            self.metric, self.greater_is_better = (
                f"{headline}/{tasks[headline].metric}",
                tasks[headline].greater_is_better,
            )
        elif len(directions) == 1:
            self.metric, self.greater_is_better = MEAN, directions.pop()
        else:
            lower = ", ".join(name for name, task in tasks.items() if not task.greater_is_better)
            raise InvalidOption(
                f"task.headline: less is better in the headline metric of {lower} and not in that of the others, so "
                "they have no mean; name one task, as in task.headline=" + next(iter(tasks))
            )

    def shares(self, counts: Mapping[str, int]) -> dict[str, float]:
        """Share of each task in the rows that are drawn; they add up to 1.

        Args:
            counts: task -> its training rows.
        """
        parts = self.weights or {name: count ** (1 / self.temperature) for name, count in counts.items()}
        total = sum(parts[name] for name in counts)
        return {name: parts[name] / total for name in counts}

    @property
    def coordinates(self) -> bool:  # type: ignore[override]
        return any(task.coordinates for task in self.members.values())

    @property
    def mixes_pictures(self) -> bool:  # type: ignore[override]
        return 0 < len(self._with_pictures) < len(self.members)

    @property
    def splits(self) -> tuple[str, ...]:
        of_each = [task.splits for task in self.members.values()]
        return tuple(name for name in of_each[0] if all(name in splits for splits in of_each))

    @property
    def skipped(self) -> list[str]:
        return [f"{name}: {line}" for name, task in self.members.items() for line in task.skipped]

    @property
    def notes(self) -> list[str]:
        return [f"{name}: {line}" for name, task in self.members.items() for line in task.notes]

    def rows(self, split: str) -> Dataset:
        """The split's rows, of the tasks that have it; `check_split` is refused where one has none."""
        having = {name: task for name, task in self.members.items() if has_split(task, split)}
        if not having:
            self.check_split(split)
        return self.mixed({name: named(name, task.rows, split) for name, task in having.items()})

    def mixed(self, parts: Mapping[str, Dataset]) -> Dataset:
        with_column = {name for name, rows in parts.items() if _pictures(rows)}
        self._with_column |= with_column
        self._with_pictures |= {name for name in with_column if _any_picture(parts[name])}
        return concatenate_datasets([_renamed(name, rows) for name, rows in parts.items() if len(rows)])

    def origins(self, splits: Iterable[str]) -> dict[str, str | None]:
        splits = list(splits)
        of_each = {
            name: task.origins([split for split in splits if has_split(task, split)])
            for name, task in self.members.items()
        }
        texts = {
            split: "; ".join(f"{name}: {one[split]}" for name, one in of_each.items() if one.get(split))
            for split in splits
        }
        return {split: text or None for split, text in texts.items()}

    def by_member(self, rows: Dataset) -> dict[str, Dataset]:
        names = np.array([name.partition(":")[0] for name in rows["id"]])
        places = {name: np.nonzero(names == name)[0] for name in self.members}
        return {name: self._restored(name, rows.select(chosen)) for name, chosen in places.items() if len(chosen)}

    def member_of(self, row: Row) -> str:
        return str(row["id"]).partition(":")[0]

    def expected_rows(self, split: str) -> int | None:
        counts = [task.expected_rows(split) for task in self.members.values()]
        return None if None in counts else sum(count for count in counts if count)

    def expected_rows_per_picture(self, split: str) -> float | None:
        rows = [task.expected_rows(split) for task in self.members.values()]
        shared = [task.expected_rows_per_picture(split) for task in self.members.values()]
        known = [(count, each) for count, each in zip(rows, shared, strict=True) if count and each]
        return sum(count for count, _ in known) / sum(count / each for count, each in known) if known else None

    def check_split(self, split: str) -> None:
        for name, task in self.members.items():
            named(name, task.check_split, split)

    def check_files(self) -> None:
        for name, task in self.members.items():
            named(name, task.check_files)

    def prompt(self, row: Row) -> str:
        task, inner = self._of(row)
        return task.prompt(inner)

    def answer(self, row: Row) -> str:
        task, inner = self._of(row)
        return task.answer(inner)

    def number_ranges(self, answer: str, row: Row) -> list[tuple[int, int]] | None:
        task, inner = self._of(row)
        return task.number_ranges(answer, inner)

    def groups_thousands(self, row: Row) -> bool:
        task, inner = self._of(row)
        return task.groups_thousands(inner)

    def shapes(self, answer: str, row: Row) -> list[WrittenBox]:
        task, inner = self._of(row)
        return task.shapes(answer, inner)

    def picture(self, row: Row) -> Image.Image | None:
        task, inner = self._of(row)
        return task.picture(inner)

    def shows_stored(self, row: Row) -> bool:
        task, inner = self._of(row)
        return task.shows_stored(inner)

    def picture_size(self, row: Row) -> tuple[int, int] | None:
        task, inner = self._of(row)
        return task.picture_size(inner)

    def picture_key(self, row: Row) -> str | None:
        task, inner = self._of(row)
        return task.picture_key(inner)

    def parse(self, text: str, row: Row) -> Any | ParseFailure:
        task, inner = self._of(row)
        return task.parse(text, inner)

    def parse_lenient(self, text: str, row: Row) -> Any | ParseFailure:
        task, inner = self._of(row)
        return task.parse_lenient(text, inner)

    def search(self, text: str, row: Row) -> Any | ParseFailure:
        task, inner = self._of(row)
        return task.search(text, inner)

    def score(self, prediction: Any | ParseFailure, row: Row) -> Scores:
        task, inner = self._of(row)
        return task.score(prediction, inner)

    def distance(self, first: Any, second: Any, row: Row) -> float:
        task, inner = self._of(row)
        return task.distance(first, second, inner)

    def groups(self, row: Row) -> list[str]:
        task, inner = self._of(row)
        return task.groups(inner)

    def draw(self, row: Row, prediction: Any | ParseFailure) -> Image.Image:
        task, inner = self._of(row)
        return task.draw(inner, prediction)

    def record(self, text: str, row: Row) -> Row:
        task, inner = self._of(row)
        return {"task": self.member_of(row), **task.record(text, inner)}

    def summarize(self, records: Iterable[Row]) -> dict[str, float]:
        """Metrics of many records, of which those of one task follow each other.

        Raises:
            ValueError: they don't.
        """
        of_tasks: dict[str, dict[str, float]] = {}
        for name, of_task in groupby(records, key=itemgetter("task")):
            if name in of_tasks:
                raise ValueError(f"the records of {name} must follow each other")
            of_tasks[name] = self.members[name].summarize(of_task)
        return self._joined(of_tasks)

    def sum_scores(self, records: Iterable[Row]) -> dict[str, float]:
        sums: dict[str, float] = {}
        for record in records:
            name = record["task"]
            for key, value in self.members[name].sum_scores([record]).items():
                sums[f"{name}/{key}"] = sums.get(f"{name}/{key}", 0.0) + value
        return sums

    def metrics_from_sums(self, sums: dict[str, float]) -> dict[str, float]:
        of_tasks: dict[str, dict[str, float]] = {}
        for key, value in sums.items():
            name, _, inner = key.partition("/")
            of_tasks.setdefault(name, {})[inner] = value
        return self._joined({name: self.members[name].metrics_from_sums(one) for name, one in of_tasks.items()})

    def _joined(self, of_tasks: Mapping[str, dict[str, float]]) -> dict[str, float]:
        """Metrics of the mixture from those of its tasks."""
        examples = sum(metrics.get("examples", 0.0) for metrics in of_tasks.values())
        metrics = {"examples": examples}
        metrics |= {f"{name}/{key}": value for name, one in of_tasks.items() for key, value in one.items()}
        headlines = [one[self.members[name].metric] for name, one in of_tasks.items()]
        if headlines and len({task.greater_is_better for task in self.members.values()}) == 1:
            metrics[MEAN] = sum(headlines) / len(headlines)
        return metrics

    def _of(self, row: Row) -> tuple[Task, Row]:
        """The task of a row, and the row as its source gave it."""
        name = self.member_of(row)
        start = f"{name}/"
        inner = {key.removeprefix(start): value for key, value in row.items() if key.startswith(start)}
        return self.members[name], inner | ({"image": row["image"]} if "image" in row else {})

    def _restored(self, name: str, rows: Dataset) -> Dataset:
        """A task's rows, which are all of these, as its source gave them."""
        start = f"{name}/"
        columns = {column: column.removeprefix(start) for column in rows.column_names if column.startswith(start)}
        if name in self._with_column:
            columns["image"] = "image"
        rows = rows.select_columns(list(columns))
        return rows.rename_columns({old: new for old, new in columns.items() if old != new})


def check_options(
    names: set[str],
    weights: Mapping[str, float | None] | None,
    temperature: float | None,
    headline: str | None,
) -> None:
    """Check a mixture's options against the names of its tasks.

    Raises:
        InvalidOption: one that can't be, with the remedy.
    """
    if len(names) < 2:
        raise InvalidOption(f"task.tasks: a mixture needs two tasks or more, and has {', '.join(names) or 'none'}")
    for name in names:
        if not name or any(sign in name for sign in "/:.\\"):
            raise InvalidOption(f"task.tasks.{name}: a task's name has none of / : . \\")
    listed = ", ".join(sorted(names))
    if unknown := sorted({*(weights or {})} - names):
        raise InvalidOption(f"task.weights.{unknown[0]}: the mixture has no such task, only {listed}")
    stated = {name: weight for name, weight in (weights or {}).items() if weight is not None}
    if stated and (missing := sorted(names - {*stated})):
        raise InvalidOption(f"task.weights names {', '.join(sorted(stated))} alone; set task.weights.{missing[0]} too")
    for name, weight in stated.items():
        if not 0 < weight < float("inf"):
            raise InvalidOption(f"task.weights.{name} must be above 0, got {weight}; leave the task out instead")
    if temperature is not None and stated:
        raise InvalidOption("task.weights and task.temperature both say how much is drawn of a task; take one away")
    if temperature is not None and not 1 <= temperature < float("inf"):
        raise InvalidOption(f"task.temperature must be at least 1 (by row counts), got {temperature}")
    if headline is not None and headline not in names:
        raise InvalidOption(f"task.headline={headline}: the mixture has no such task, only {listed}")


def has_split(task: Task, split: str) -> bool:
    """Whether a task has a split, as far as can be known without reading anything."""
    try:
        task.check_split(split)
    except UserError:
        return False
    return True


def named(name: str, act: Any, *arguments: Any) -> Any:
    """Call `act`; what it refuses names the task."""
    try:
        return act(*arguments)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error


def _renamed(name: str, rows: Dataset) -> Dataset:
    """The rows with the columns of a mixture."""
    columns = {column: f"{name}/{column}" for column in rows.column_names if column != "image" or not _pictures(rows)}
    ids = [f"{name}:{row_id}" for row_id in rows["id"]]
    return rows.rename_columns(columns).add_column("id", ids)


def _pictures(rows: Dataset) -> bool:
    """Whether rows have a column of pictures; those of a table have one in any case."""
    return isinstance(rows.features.get("image"), Picture)


def _any_picture(rows: Dataset) -> bool:
    pictures = rows.data.column("image")
    return pictures.null_count < len(pictures)
