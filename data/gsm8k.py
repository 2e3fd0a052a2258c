"""Grade-school word problems in GSM8K's format: a JSON object a line (or parquet) with `question` and `answer`.

The answer is a worked solution with the calculator's annotations in it and the number after four hashes at its end:

    She sold 48/2 = <<48/2=24>>24 clips in May.
    #### 24

Columns: id (<file>-<line>), question, solution (without the last line; the annotations kept or taken out), answer (the
number without thousands commas, in its shortest form), level (how many lines the solution has, minus one).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Value

from data.broken import BrokenInput, Table, Tolerance
from data.decimals import plain
from data.table_files import read_table

FEATURES = Features(
    {
        "id": Value("string"),
        "question": Value("string"),
        "solution": Value("string"),
        "answer": Value("string"),
        "level": Value("int32"),
    }
)
_FINAL = re.compile(r"^(.*?)\s*#### *(-?[0-9][0-9.,]*) *$", re.DOTALL)
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def load(path: Path, calculator: bool, tolerance: Tolerance) -> Dataset:
    """All problems of a file.

    Raises:
        BrokenInput: no such file, or (on_error=raise) a line that can't be used.
    """
    table = Table(FEATURES, str(path), tolerance)
    for number, where, item in read_table(path, tolerance):
        with tolerance.row():
            table.add(where, {"id": f"{path.stem}-{number + 1}", **problem(item, calculator, where)})
    return table.dataset()


def problem(item: dict[str, Any], calculator: bool, where: str) -> dict[str, Any]:
    """The columns of one object.

    Raises:
        BrokenInput: a field is missing, or the answer has no number after `####`.
    """
    for field in ("question", "answer"):
        if not isinstance(item.get(field), str) or not item[field].strip():
            found = f"{item[field]!r} is no text" if field in item else f"is missing; found {', '.join(item)}"
            raise BrokenInput(where, field, found, "give question and answer as texts")
    match = _FINAL.match(item["answer"])
    try:
        value = Decimal(match[2].replace(",", "")) if match else None
    except InvalidOperation:
        value = None
    if match is None or value is None:
        raise BrokenInput(where, "answer", f"{item['answer'][-60:]!r} doesn't end in '#### <number>'", "write it so")
    solution = match[1].strip()
    return {
        "question": item["question"].strip(),
        "solution": solution if calculator else _CALCULATOR.sub("", solution),
        "answer": plain(value),
        "level": max(len(solution.splitlines()) - 1, 0),
    }
