"""Check of every row before it costs a training: what a family makes of it, and what its taught answer scores.

A row is refused where the family can't use it: a picture of a shape that it doesn't take, an answer that its ids don't
give back. The ceiling is the score of the taught answers themselves, read back from their ids as a generated text is:
a model that does exactly as it is taught reaches it (a polygon that is taught as an upright box is not matched by it).

`pictures=True` decodes and encodes every picture, as training does. Without, only the size in a picture's header is
read, and only for a family to which it matters; the lengths and scores are the same.
"""

from __future__ import annotations

import heapq
import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from datasets import Dataset
from torch.utils.data import DataLoader

from data.common.errors import UserError
from data.common.rows import Row, locations, undecoded
from ntil.config.errors import ConfigError
from ntil.distributed.interrupt import ignore_signals_in_data_worker
from ntil.models.base import Encoded, Family
from tasks.base import Task

NEAR_BEST = 0.01  # how far below the best score a ceiling may be without a warning
EXAMPLES = 20
LONGEST = 512  # rows that a rehearsal may train on: eight steps of 64
BATCH = 16  # rows that a worker sends at once
Progress = Callable[[Iterable[Any], int], Iterable[Any]]


@dataclass(frozen=True)
class Finding:
    """What is wrong with one row.

    Attributes:
        index, row_id: of the row in its split. column: the part of it, such as `answer`.
        skippable: `on_error=skip` may leave the row out; not, where the code failed rather than the row.
    """

    index: int
    row_id: str
    column: str | None
    problem: str
    skippable: bool = True


@dataclass
class RowResult:
    """What checking one row found; `record` is that of its taught answer, None for a refused row."""

    refused: Finding | None = None
    unscored: Finding | None = None
    row_id: str = ""
    answer: str = ""
    answer_tokens: int = 0
    tokens: int = 0
    record: Row | None = None


@dataclass
class SplitCheck:
    """What checking the rows of a split found.

    Attributes:
        rows: how many there are.
        refused: rows that the family can't use.
        unscored: rows whose taught answer can't be read, or without a question.
        below: the first rows whose answer, although taught, doesn't reach the best score; `below_count`: of all.
        characters: of the longest answer.
        answer_tokens, tokens: length -> how many rows have it, of answers with their end and of whole rows.
        longest_answer, longest_row: index of the row with the longest.
        longest_rows: indices of the `LONGEST` longest rows, the longest first.
        ceiling: the task's metrics of the taught answers.
    """

    rows: int
    refused: list[Finding] = field(default_factory=list)
    unscored: list[Finding] = field(default_factory=list)
    below: list[Finding] = field(default_factory=list)
    below_count: int = 0
    characters: int = 0
    answer_tokens: dict[int, int] = field(default_factory=dict)
    tokens: dict[int, int] = field(default_factory=dict)
    longest_answer: int = 0
    longest_row: int = 0
    longest_rows: list[int] = field(default_factory=list)
    ceiling: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> SplitCheck:
        lists = {name: [Finding(**entry) for entry in stored[name]] for name in ("refused", "unscored", "below")}
        counts = {name: {int(k): v for k, v in stored[name].items()} for name in ("answer_tokens", "tokens")}
        return cls(**{**stored, **lists, **counts})


class RowChecks(torch.utils.data.Dataset[RowResult]):
    """The checks of single rows, made as they are asked for.

    Args:
        family: None checks what holds for every model.
        pictures: decode and encode the pictures.
    """

    def __init__(self, task: Task, rows: Dataset, family: Family | None, pictures: bool) -> None:
        self.task, self.family, self.pictures = task, family, pictures
        self.rows = rows if pictures else undecoded(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> RowResult:
        reading = _Reading()
        try:
            return self._checked(index, reading)
        except (ValueError, OSError) as error:
            return RowResult(self._refused(index, reading, error, True))
        except Exception as error:
            # A row may be broken in any way; a full check names it and goes on, a training shows where.
            if not self.pictures:
                raise
            return RowResult(self._refused(index, reading, error, False))

    def _checked(self, index: int, reading: _Reading) -> RowResult:
        row = self.rows[index]
        reading.column = "prompt"
        prompt = self.task.prompt(row)
        reading.column = "answer"
        answer = self.task.answer(row)
        encoded, text = None, answer
        if self.family is not None:
            encoded = self.family.encode_text(prompt, answer, row.get("image") is not None)
            text = self.family.decode(encoded.answer_ids).strip()
        record = self.task.record(text, row)
        reading.column = "image"
        tokens = self._tokens(row, prompt, answer, encoded)
        unscored = self._unscored(index, str(row["id"]), prompt, answer, record)
        answer_tokens = len(encoded.answer_ids) if encoded else 0
        return RowResult(None, unscored, str(row["id"]), answer, answer_tokens, tokens, record)

    def _tokens(self, row: Row, prompt: str, answer: str, text: Encoded | None) -> int:
        """Length of the row in tokens, 0 without a family; the picture is read as far as `pictures` says."""
        if self.pictures:
            _require_size(row)
            picture = self.task.picture(row)
            return _length(self.family.encode(prompt, answer, picture)) if self.family else 0
        if self.family is None or text is None or row.get("image") is None:
            return _length(text) if text else 0
        size = (1, 1) if self.family.any_size else self.task.picture_size(row)
        if size is None:
            return _length(text)
        stand_in = 0 if self.family.image_token is None else 1
        return _length(text) - stand_in + self.family.picture_length(size)

    def _unscored(self, index: int, name: str, prompt: str, answer: str, record: Row) -> Finding | None:
        if record["failure"] is not None:
            problem = f"its own answer {answer[:80]!r} can't be parsed: {record['failure']}"
            return Finding(index, name, "answer", problem)
        return None if prompt.strip() else Finding(index, name, "prompt", "the prompt is empty")

    def _refused(self, index: int, reading: _Reading, error: Exception, skippable: bool) -> Finding:
        row_id = str(self.rows.select_columns(["id"])[index]["id"])
        problem = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        return Finding(index, row_id, reading.column, problem, skippable)


@dataclass
class _Reading:
    """The column of a row that is being read."""

    column: str = "image"


def _require_size(row: Row) -> None:
    """Check that the row's picture is decoded to its width and height, of a mixture's row too: boxes rely on them.

    Raises:
        UserError: it has another size.
    """
    for name in [name for name in row if name.rpartition("/")[2] == "width"]:
        declared = row[name], row.get(name.removesuffix("width") + "height")
        if row.get("image") is not None and None not in declared and row["image"].size != declared:
            size = "{} x {}".format(*row["image"].size)
            raise UserError(
                f"the picture is decoded to {size} pixels, and the row says {declared[0]} x {declared[1]}; "
                "store the picture upright, as PNG or JPEG"
            )


def _length(encoded: Encoded) -> int:
    return len(encoded.prompt_ids) + len(encoded.answer_ids)


class SplitChecker:
    """Check of the rows of a split, see the module's docstring.

    Args:
        workers: processes that check; 0: this one.
        progress: `progress(results, total)` may wrap the loop with a bar.
    """

    def __init__(
        self,
        task: Task,
        family: Family | None,
        pictures: bool,
        workers: int = 0,
        progress: Progress = lambda results, _total: results,
    ) -> None:
        self.task, self.family, self.pictures = task, family, pictures
        self.workers, self.progress = workers, progress

    def __call__(self, rows: Dataset) -> SplitCheck:
        check = SplitCheck(len(rows))
        self._longest = (0, 0)
        self._heap: list[tuple[int, int]] = []
        loader = DataLoader(
            RowChecks(self.task, rows, self.family, self.pictures),
            batch_size=BATCH,
            collate_fn=list,
            num_workers=self.workers,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # else it draws from the stream that initialises the model
        )
        results = (result for batch in loader for result in batch)
        check.ceiling = self.task.summarize(self._records(check, self.progress(results, len(rows))))
        check.longest_rows = [-index for _, index in sorted(self._heap, reverse=True)]
        return check

    def _records(self, check: SplitCheck, results: Iterable[RowResult]) -> Iterator[Row]:
        """Yield the records of usable rows, and note in `check` what else was found."""
        for index, result in enumerate(results):
            if result.refused is not None:
                check.refused.append(result.refused)
                continue
            assert result.record is not None
            if result.unscored is not None:
                check.unscored.append(result.unscored)
            self._note_lengths(check, index, result)
            self._note_score(check, index, result)
            yield result.record

    def _note_lengths(self, check: SplitCheck, index: int, result: RowResult) -> None:
        check.characters = max(check.characters, len(result.answer))
        for counts, length in ((check.answer_tokens, result.answer_tokens), (check.tokens, result.tokens)):
            counts[length] = counts.get(length, 0) + 1
        if result.answer_tokens > self._longest[0]:
            check.longest_answer = index
        if result.tokens > self._longest[1]:
            check.longest_row = index
        self._longest = max(self._longest[0], result.answer_tokens), max(self._longest[1], result.tokens)
        push = heapq.heappush if len(self._heap) < LONGEST else heapq.heappushpop
        push(self._heap, (result.tokens, -index))

    def _note_score(self, check: SplitCheck, index: int, result: RowResult) -> None:
        assert result.record is not None
        name, value = headline_score(self.task, result.record["scores"])
        if falls_short(value, best(self.task, name), 1e-9):
            check.below_count += 1
            if len(check.below) < EXAMPLES:
                problem = f"the taught answer {result.answer[:80]!r} has {name} {value:.4g}"
                check.below.append(Finding(index, result.row_id, "answer", problem))


def _start_worker(_index: int) -> None:
    torch.set_num_threads(1)
    ignore_signals_in_data_worker()


def headline_score(task: Task, scores: dict[str, float]) -> tuple[str, float]:
    """Name and value of the score of one example that is nearest to the headline metric of all."""
    name = task.metric if task.metric in scores else next(iter(scores))
    return name, scores[name]


def best(task: Task, name: str) -> float:
    """Best value of a metric: 1 where greater is better, else 0."""
    greater = task.greater_is_better if name == task.metric else task.secondary_metrics.get(name, True)
    return 1.0 if greater else 0.0


def falls_short(value: float, best_value: float, tolerance: float) -> bool:
    """Whether a metric whose best value is 1 or 0 misses it by more than `tolerance`."""
    return value < best_value - tolerance if best_value else value > tolerance


def low_ceilings(task: Task, check: SplitCheck) -> dict[str, float]:
    """The metrics with a known best that the taught answers miss by more than `NEAR_BEST`."""
    names = dict.fromkeys((task.metric, *task.secondary_metrics))
    values = {name: check.ceiling[name] for name in names if name in check.ceiling}
    return {name: value for name, value in values.items() if falls_short(value, best(task, name), NEAR_BEST)}


class Places:
    """Where the rows of a split are, for messages: file and line in a table, else the row's number."""

    def __init__(self, split: str, rows: Dataset) -> None:
        self.split, self.rows = split, rows

    @cached_property
    def _files(self) -> dict[str, str]:
        return locations(self.rows)

    def of(self, index: int, column: str | None = None) -> str:
        """Place of a row; `column` is named where a user can look it up in a table."""
        row_id = str(self.rows.select_columns(["id"])[index]["id"])
        place = self._files.get(row_id)
        if place is None:
            return f"{self.split}, row {index} ({row_id})"
        return f"{place}{f', field {column}' if column else ''} ({self.split}, {row_id})"

    def line(self, finding: Finding) -> str:
        """One line that names the row and what is wrong with it."""
        return f"{self.of(finding.index, finding.column)}: {finding.problem}"


def without_refused(task: Task, split: str, rows: Dataset, check: SplitCheck) -> Dataset:
    """The rows that the family can use; those left out are listed in `task.skipped`.

    Raises:
        UserError: there are others, and the task's source doesn't say `on_error=skip`; or none is left.
    """
    if not check.refused:
        return rows
    places, refused = Places(split, rows), check.refused
    policy = task.source.row_errors if task.source else None
    hard = [finding for finding in refused if not finding.skippable]
    if policy is None or policy.on_error != "skip" or hard or len(refused) == len(rows):
        raise UserError(f"{places.line((hard or refused)[0])}; {_how_many(task, check, bool(hard))}")
    for finding in refused:
        policy.skip(places.line(finding))
    left_out = {finding.index for finding in refused}
    return rows.select([index for index in range(len(rows)) if index not in left_out])


def _how_many(task: Task, check: SplitCheck, hard: bool) -> str:
    count = f"of {check.rows} rows, {len(check.refused)} can't be used with this model"
    can_skip = task.source is not None and "on_error" in inspect.signature(type(task.source)).parameters
    if hard or not can_skip or len(check.refused) == check.rows:
        return count
    return f"{count}, and task.source.on_error=skip leaves them out"


def too_long(check: SplitCheck, places: Places, max_new_tokens: int, max_length: int, option: str) -> list[str]:
    """One line for each limit that answers or rows exceed; `option` says how to set `max_new_tokens`."""
    lines = []
    longest, over = _exceeding(check.answer_tokens, max_new_tokens)
    if over:
        lines.append(
            f"{places.of(check.longest_answer)}: the answer has {longest} tokens with its end and generation stops "
            f"after {max_new_tokens}, so no model could give it ({_are(over)} too long); {option}={longest} or more "
            f"(this is the longest of {check.rows} rows looked at)"
        )
    longest, over = _exceeding(check.tokens, max_length)
    if over:
        lines.append(
            f"{places.of(check.longest_row)}: {longest} tokens, more than max_length={max_length} ({_are(over)} too "
            f"long); set max_length={longest} or more (this is the longest of {check.rows} rows looked at)"
        )
    return lines


def check_lengths(check: SplitCheck, places: Places, max_new_tokens: int, max_length: int, option: str) -> None:
    """Check that generation can write every answer, and that every row fits.

    Raises:
        ConfigError: one is longer than the limit; names the longest and the number to set.
    """
    for line in too_long(check, places, max_new_tokens, max_length, option):
        raise ConfigError(line)


def context_warning(check: SplitCheck, places: Places, family: Family) -> str | None:
    """One line if a row is longer than the context that the model was made for."""
    context = getattr(family.config.get_text_config(), "max_position_embeddings", None) if family.config else None
    longest, over = _exceeding(check.tokens, context) if context else (0, 0)
    if not over:
        return None
    return f"{places.of(check.longest_row)}: {longest} tokens, and the model was made for {context} ({over} rows)"


def _are(count: int) -> str:
    return "1 row is" if count == 1 else f"{count} rows are"


def _exceeding(lengths: dict[int, int], limit: int) -> tuple[int, int]:
    """The greatest length, and how many are above the limit."""
    return max(lengths, default=0), sum(count for length, count in lengths.items() if length > limit)
