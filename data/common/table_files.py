"""Tables as files: .parquet, .jsonl, .json (a list of objects), .csv and .tsv, row by row with the place of each."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from data.common.counts import counted
from data.common.errors import InvalidData, RowErrors

Located = tuple[int, str, dict[str, Any]]  # the row's number from 0, "file, line 3", and the row
Reader = Callable[[Path, RowErrors], Iterator[Located]]


def read_table(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    """The rows of a file and where each stands: lines count from 1, rows of parquet and .json from 0.

    Rows that `row_errors` skips have a number too, so that the others keep theirs when the file is fixed.

    Raises:
        InvalidData: missing or unreadable, or (on_error=raise) a row that can't be read.
    """
    if not path.is_file():
        raise InvalidData(str(path), None, "there is no such file", "correct the path")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        kind = path.suffix or "a file without suffix"
        raise InvalidData(str(path), None, f"can't read {kind}", f"use one of {', '.join(READERS)}")
    try:
        yield from reader(path, row_errors)
    except UnicodeDecodeError as error:
        raise InvalidData(str(path), None, f"is not UTF-8 ({error})", "save it as UTF-8") from error


def columns(path: Path, row_errors: RowErrors) -> list[str]:
    """The columns of a file: its header's, or all that any of its JSON objects has, in the order first met.

    Raises:
        InvalidData: as `read_table`.
    """
    rows: Iterator[dict[str, Any]] = (row for _, _, row in read_table(path, row_errors))
    if path.suffix.lower() not in (".jsonl", ".json"):
        rows = islice(rows, 1)  # every row has the header's
    return list(dict.fromkeys(name for row in rows for name in row))


def matching(pattern: str, key: str) -> list[Path]:
    """The file of that path, or all that match it as a glob.

    Raises:
        InvalidData: none; the message names the key that gave the pattern.
    """
    path = Path(pattern).expanduser()
    if not any(c in path.name for c in "*?["):
        if not path.is_file():
            raise InvalidData(str(path), None, "there is no such file", f"correct {key}")
        return [path]
    paths = sorted(path.parent.glob(path.name))
    if not paths:
        raise InvalidData(str(path), None, "no file matches", f"correct {key}")
    return paths


def _parquet(path: Path, _row_errors: RowErrors) -> Iterator[Located]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=64):
                for row in batch.to_pylist():
                    yield number, f"{path}, row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidData(str(path), None, f"no whole parquet file ({error})", "fetch the file again") from error


def _jsonl(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    with path.open(encoding="utf-8-sig") as file:
        lines = ((line_where, line) for line_where, line in enumerate(file, start=1) if line.strip())
        for number, (line_where, line) in enumerate(lines):
            where = f"{path}, line {line_where}"
            with row_errors.row():
                yield number, where, _json(line, where, dict)


def _json_list(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    for number, row in enumerate(_json(path.read_text(encoding="utf-8-sig"), str(path), list)):
        where = f"{path}, row {number}"
        with row_errors.row():
            if not isinstance(row, dict):
                raise InvalidData(where, None, "is not an object", "write a list of objects")
            yield number, where, row


def _separated(delimiter: str) -> Reader:
    def read(path: Path, row_errors: RowErrors) -> Iterator[Located]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter, strict=True)
            try:
                for number, row in enumerate(reader):
                    where = f"{path}, line {reader.line_num}"
                    with row_errors.row():
                        if None in row or None in row.values():
                            problem = f"has not the {counted(len(reader.fieldnames or []), 'field')} of the header"
                            raise InvalidData(where, None, problem, "put fields that hold the separator in quotes")
                        yield number, where, row
            except csv.Error as error:
                raise InvalidData(f"{path}, line {reader.line_num}", None, str(error), "mend the line") from error

    return read


def _json(text: str, where: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidData(where, None, f"not JSON ({error})", "mend the line or fetch the file again") from error
    if not isinstance(value, kind):
        raise InvalidData(where, None, f"is no {'object' if kind is dict else 'list of objects'}", "see the layout")
    return value


READERS: dict[str, Reader] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json_list,
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
}
