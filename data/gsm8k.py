"""Grade-school word problems in GSM8K's format: a JSON object a line (or parquet) with `question` and `answer`.

The answer is a worked solution with the calculator's annotations in it and the number after four hashes at its end:

    She sold 48/2 = <<48/2=24>>24 clips in May.
    #### 24

Columns: id (<file>-<line>), question, solution (without the last line; the annotations kept or taken out), answer (the
number without thousands commas, in its shortest form), level (how many lines the solution has, minus one).
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from data.common import fields
from data.common.decimals import plain
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors, short
from data.common.rows import RowWriter
from data.common.source import Source, matching_file, without_nulls
from data.common.table_files import read_table

FEATURES = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "solution": Value("string"),
        "answer": Value("string"),
        "level": Value("int32"),
    }
)
_FINAL = re.compile(r"^(.*?)\s*#### *(-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?)[.,]? *$", re.DOTALL)
_CALCULATOR = re.compile(r"<<[^<>]*>>")


class GSM8KFiles(Source):
    """Source of word problems from files in GSM8K's format.

    Args:
        files: split -> a JSONL (or parquet) file, or null. The release has train and test only.
        holdout: how many rows at the end of train's file are validation instead, where `files` has no validation.
        calculator: keep the solutions' `<<48/2=24>>` annotations.
        on_error: what to do with a broken line.
    """

    def __init__(
        self, files: dict[str, str | None], holdout: int = 500, calculator: bool = False, on_error: OnError = "raise"
    ) -> None:
        if holdout < 0:
            raise InvalidOption(f"task.source.holdout must be at least 0, got {holdout}")
        self.files, self.holdout, self.calculator = without_nulls(files), holdout, calculator
        held_out = ("validation",) if holdout and "train" in self.files and "validation" not in self.files else ()
        self.splits, self.row_errors = (*self.files, *held_out), RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        shared = "validation" not in self.files and split in ("train", "validation")
        rows = load(matching_file(self.files, "train" if shared else split), self.calculator, self.row_errors)
        if not shared:
            return rows
        if self.holdout >= len(rows):
            raise InvalidOption(
                f"task.source.holdout={self.holdout} leaves no row of {len(rows)} to train on; make it smaller"
            )
        if split == "validation" and not self.holdout:
            raise InvalidOption(
                "task.source.holdout=0 leaves no validation rows; set it, or task.source.files.validation"
            )
        cut = len(rows) - self.holdout
        return rows.select(range(cut) if split == "train" else range(cut, len(rows)))

    def check_files(self) -> None:
        if not self.files:
            raise InvalidOption("give a file: task.source.files.train=<file> task.source.files.test=<file>")
        for split in self.files:
            matching_file(self.files, split)


def load(path: Path, calculator: bool, row_errors: RowErrors) -> Dataset:
    """All problems of a file.

    Raises:
        InvalidData: no such file, or (on_error=raise) a line that can't be used.
    """
    writer = RowWriter(FEATURES, str(path), row_errors)
    questions = []
    for number, where, item in read_table(path, row_errors):
        with row_errors.row():
            row = problem(item, calculator, where)
            writer.add(where, {"id": f"{path.stem}-{number + 1}", **row})
            questions.append(row["question"])
    if repeated := fields.repeated(questions):
        row_errors.note(
            str(path), f"{len(repeated)} questions occur more than once; the first: {short(next(iter(repeated)))}"
        )
    return writer.dataset()


def problem(item: dict[str, Any], calculator: bool, where: str) -> dict[str, Any]:
    """The columns of one object.

    Raises:
        InvalidData: a field is missing, or the answer has no number after `####`.
    """
    for field in ("question", "answer"):
        if field not in item:
            problem_text = f"is missing; found {', '.join(item)}"
            raise InvalidData(where, field, problem_text, "give question and answer as texts")
        fields.text(item[field], where, field, "give question and answer as texts")
    match = _FINAL.match(item["answer"].rstrip())
    if match is None:
        problem_text = f"{short(item['answer'][-60:])} doesn't end in '#### <number>'"
        raise InvalidData(where, "answer", problem_text, "write it so, with commas between thousands only")
    value = Decimal(match[2].replace(",", ""))
    solution = match[1].strip()
    return {
        "question": item["question"].strip(),
        "solution": solution if calculator else _CALCULATOR.sub("", solution),
        "answer": plain(value),
        "level": max(len(solution.splitlines()) - 1, 0),
    }
