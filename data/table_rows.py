"""Rows of a user's tables, whatever holds them: roles by columns, pictures, answers by a metric, repeated rows.

`data.jsonl` says what a row holds; files are read there, data sets of the `datasets` library in `data.hub`.
"""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset, Features, Image, Value

from data.common import fields
from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, InvalidOption, RowErrors, short
from data.common.frames import Frames
from data.common.images import given_picture
from data.common.repeats import WEIGHT, check_repeat, repeated
from data.common.rows import RowWriter, undecoded
from data.common.source import Source
from data.common.table_files import Located
from data.grounding.schema import BoxForm
from data.table_answers import TRUTH, AnswerColumn, Metric

OPTIONAL = ("image", "id", "group", "level", "width", "height", WEIGHT)
ROLES = ("prompt", "answer", *OPTIONAL)
HELD_OUT = 20
MARK = "<image>"  # of the picture in the questions of LLaVA's tables
WITHOUT_SIZE = ("exact", "numeric", "time", "count")  # metrics whose answers lie nowhere in a picture
END = 4096  # bytes at each end of a stored picture that tell it from others


class Form(NamedTuple):
    """How the rows of tables are read.

    Attributes:
        columns: role -> column, where it isn't the role's name; a column of weights has to be named here.
        question: of all rows of a table without a column of prompts; None: such a table is refused.
    """

    metric: Metric
    columns: dict[str, str]
    box_format: BoxForm = "xyxy"
    question: str | None = None

    def of(self, split: str) -> Form:
        """The form of one split's table: weights are of rows that are trained on, and others need none."""
        columns = {role: name for role, name in self.columns.items() if split == "train" or role != WEIGHT}
        return self._replace(columns=columns)

    @property
    def key(self) -> list[str]:
        """What rows depend on, for a cache of them."""
        return [self.metric, str(self.columns), self.box_format, *filter(None, [self.question])]


class Table(NamedTuple):
    """One table.

    Attributes:
        where: its name in messages. stem: of the ids of rows without one.
        columns: the names of its columns.
        rows: the rows with their places.
        images: the folder that picture paths start from.
    """

    where: str
    stem: str
    columns: Callable[[], list[str]]
    rows: Iterator[Located]
    images: Path


class TableSource(Source):
    """Source of tables: a subclass says which there are, and reads one split of them.

    Args:
        form: how rows are read.
        tables: splits that have a table; without `validation` some rows of `train` are held out for it, see `held_out`.
        repeat: how often every training row stands in the split; null: once.
    """

    def __init__(self, form: Form, tables: Iterable[str], repeat: int | None, row_errors: RowErrors) -> None:
        tables = set(tables)
        if unknown := sorted(set(form.columns) - set(ROLES)):
            raise InvalidOption(f"task.source.columns.{unknown[0]}: there is no such role; known: {', '.join(ROLES)}")
        check_repeat(repeat)
        self.form, self.repeat, self.row_errors = form, repeat, row_errors
        self.holds_out = "train" in tables and "validation" not in tables
        self.splits = tuple(s for s in Source.splits if s in tables or (s == "validation" and self.holds_out))
        self._read: dict[str, Dataset] = {}
        self._held_out: set[int] | None = None

    @abstractmethod
    def read_table(self, split: str) -> Dataset:
        """All rows of the split's table."""

    def rows(self, split: str) -> Dataset:
        rows = self._selected(split)
        return repeated(rows, self.repeat) if split == "train" else _without_weights(rows)

    def _selected(self, split: str) -> Dataset:
        if not self.holds_out or split not in ("train", "validation"):
            return self._rows_of_table(split)
        rows = self._rows_of_table("train")
        if len(rows) < 2:
            raise InvalidOption(
                "one row can't be both trained on and validated with; set task.source.validation=<file>"
            )
        if self._held_out is None:
            self._held_out = held_out(rows)
        return rows.select([i for i in range(len(rows)) if (i in self._held_out) == (split == "validation")])

    def _rows_of_table(self, split: str) -> Dataset:
        if split not in self._read:
            self._read[split] = self.read_table(split)
        return self._read[split]


def held_out(rows: Dataset) -> set[int]:
    """Every twentieth row, for validation; where rows share pictures, every twentieth picture with all its rows.

    Rows of one picture alone are held out one by one.
    """
    keys = [str(i) if key is None else key for i, key in enumerate(_picture_keys(rows))]
    number_of = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    numbers = [number_of[key] for key in keys] if len(number_of) > 1 else range(len(rows))
    return {i for i, number in enumerate(numbers) if number % HELD_OUT == 0}


def _picture_keys(rows: Dataset) -> Iterator[str | None]:
    """What tells the pictures of rows apart: path, or length and ends of the bytes, which are not copied."""
    for batch in undecoded(rows.select_columns("image")).with_format("arrow").iter(1000):
        for picture in batch["image"].combine_chunks():
            content = picture["bytes"].as_buffer() if picture.is_valid and picture["bytes"].is_valid else None
            if content is not None:
                ends = content[:END].to_pybytes() + content[max(0, content.size - END) :].to_pybytes()
                yield f"{content.size}-{hashlib.blake2b(ends, digest_size=16).hexdigest()}"
            else:
                yield picture["path"].as_py() if picture.is_valid else None


def _without_weights(rows: Dataset) -> Dataset:
    return rows.remove_columns(WEIGHT) if WEIGHT in rows.column_names else rows


def features(form: Form) -> Features:
    """Columns of the rows, see the docstring of `data.jsonl`; `weight` where a column of weights is named."""
    texts = {name: Value("string") for name in ("id", "prompt", "answer", "group")}
    sizes = {name: Value("int32") for name in ("width", "height", "level")}
    weight = {WEIGHT: Value("float64")} if WEIGHT in form.columns else {}
    return Features({**texts, "image": Image(), **sizes, **weight, **TRUTH[form.metric]})


def read_tables(
    tables: Callable[[RowErrors], Iterable[Table]], form: Form, where: str, illustrated: bool, row_errors: RowErrors
) -> Dataset:
    """The rows of the tables of one split.

    Args:
        tables: gives them anew at each call.
        where: name of all of them in messages.
        illustrated: whether rows have pictures; a row that differs from the others is refused.

    Raises:
        InvalidData: no such column, a column of answers that isn't of its form, or (on_error=raise) a row that can't be
            used.
    """

    def read(policy: RowErrors) -> Dataset:
        truth = list(TRUTH[form.metric]) or ["answer"]
        writer = RowWriter(features(form), where, policy, "prompt", truth)
        answers, frames, remarks = AnswerColumn(form.metric, form.box_format), Frames("shown"), dict[str, str]()
        first = ""
        for table in tables(policy):
            first, names = first or table.where, dict[str, str]()
            for number, row_name, item in table.rows:
                names = names or _names(table.columns(), form, table.where)
                reader = _RowReader(form, names, answers, illustrated, table.images, frames, remarks)
                with policy.row():
                    writer.add(row_name, reader.row(item, row_name, f"{table.stem}-{number}"))
            if names:
                answers.check(table.where, names["answer"], policy)
        frames.note(first, policy)
        for remark in remarks.values():
            policy.note(first, remark)
        return writer.dataset()

    return read_with_evidence(read, row_errors)


def _names(columns_there: list[str], form: Form, where: str) -> dict[str, str]:
    names = {role: form.columns.get(role, role) for role in ROLES if role != WEIGHT or WEIGHT in form.columns}
    needed = {"answer"} if form.question else {"prompt", "answer"}
    for role, name in names.items():
        if name not in columns_there and (role in needed or name != role):
            problem = f"no such column; found {', '.join(map(str, columns_there))}"
            raise InvalidData(where, name, problem, f"set task.source.columns.{role} to one")
    return {role: name for role, name in names.items() if name in columns_there}


class _RowReader(NamedTuple):
    """What turns the records of one table into rows; `remarks` gets what it did on its own, by kind."""

    form: Form
    names: dict[str, str]
    answers: AnswerColumn
    illustrated: bool
    images: Path
    frames: Frames
    remarks: dict[str, str]

    def row(self, item: dict[str, Any], where: str, fallback: str) -> dict[str, Any]:
        names = self.names

        def value(role: str) -> Any:
            return fields.filled(item.get(names.get(role, role)))

        prompt, answer = value("prompt") if "prompt" in names else self.form.question, value("answer")
        if not isinstance(prompt, str):
            raise InvalidData(where, names.get("prompt"), f"{short(prompt)} is no question", "give a text")
        if answer is None:
            raise InvalidData(where, names["answer"], "is missing or empty", "give an answer or drop the row")
        image, size = None, self._size(value("width"), value("height"), where)
        if value("image") is not None:
            image, true_size = given_picture(value("image"), self.images, where, names["image"])
            remedy = "use the pictures that the answers were made on"
            declared = size or (None, None)
            image, size = self.frames.choose(image, true_size, declared, where, "the table", remedy, names["image"])
        truth = self.answers.read(answer, size, where, names["answer"])
        if self.illustrated != (image is not None):
            problem = "has a picture and most rows have none" if image else "has no picture and most rows have one"
            raise InvalidData(where, names.get("image"), problem, "give every row a picture, or none")
        return {
            "id": _name(value("id"), fallback, where, names.get("id", "id")),
            "image": image,
            "width": size[0] if size else None,
            "height": size[1] if size else None,
            "prompt": self._prompt(prompt, image is not None, where),
            "group": _name(value("group"), None, where, names.get("group", "group")),
            "level": self._level(value("level"), where),
            **self._weight(item, where),
            **({"answer": json.dumps(answer, default=_written)} | truth),
        }

    def _prompt(self, prompt: str, illustrated: bool, where: str) -> str:
        """The question, without the mark of the picture that LLaVA's tables begin or end it with."""
        field = self.names.get("prompt", "prompt")
        if illustrated and MARK in prompt:
            stripped = prompt.strip().removeprefix(MARK).removesuffix(MARK).strip()
            if MARK in stripped or prompt.count(MARK) > 1:
                problem = f"{MARK} stands for one picture, before the question or after it"
                raise InvalidData(where, field, problem, f"leave {MARK} out, or take the question's words for it")
            self.remarks["mark"] = f"{MARK} at an end of the questions is left out: each model has a mark of its own"
            prompt = stripped
        return fields.text(prompt, where, field)

    def _level(self, level: Any, where: str) -> int:
        if isinstance(level, str) and "level" not in self.form.columns and not _is_number(level):
            self.remarks["level"] = (
                f"the column level has {short(level)}, which is no number: it is left alone; "
                "task.source.columns.level names the levels of a curriculum"
            )
            return 0
        return fields.whole(level or 0, where, self.names.get("level", "level"))

    def _size(self, width: Any, height: Any, where: str) -> tuple[int, int] | None:
        """The declared size; where no answer needs one, columns that merely have such a name are left alone."""
        if self.form.metric in WITHOUT_SIZE and not {"width", "height"} & {*self.form.columns}:
            return None
        return fields.size(width, height, where)

    def _weight(self, item: dict[str, Any], where: str) -> dict[str, float]:
        if WEIGHT not in self.names:
            return {}
        name = self.names[WEIGHT]
        weight = fields.number(item.get(name), where, name, "write how often the row is to be drawn in a pass")
        if weight < 0:
            raise InvalidData(where, name, f"{short(weight)} is below 0", "write 0 for a row that is not trained on")
        return {WEIGHT: weight}


def _is_number(text: str) -> bool:
    try:
        fields.number(text, "", "")
    except InvalidData:
        return False
    return True


def _written(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else str(value)


def _name(value: Any, fallback: str | None, where: str, field: str) -> str | None:
    if value is None:
        return fallback
    if not isinstance(value, str | int | float | Decimal):
        raise InvalidData(where, field, f"{short(value)} is neither text nor number", "write it as a text")
    return str(value)
