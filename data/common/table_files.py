"""Tables as files: .parquet, .jsonl, .json (a list of objects, or one a line), .csv, .tsv; each row with its place."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow
import pyarrow.parquet

from data.common.errors import InvalidData, RowErrors, short
from data.common.fields import filled

Located = tuple[int, str, dict[str, Any]]  # the row's number from 0, "file, line 3", and the row
Reader = Callable[[Path, RowErrors], Iterator[Located]]
LOOKED_AT = 5  # lines of a JSON file that tell its layout
LOSES_DIGITS = 1e-300  # floats below have fewer digits than others
LARGEST_FIELD = 1 << 28  # characters of a CSV field: tables hold pictures as base64


def read_table(path: Path, row_errors: RowErrors, reader: Reader | None = None) -> Iterator[Located]:
    """The rows of a file and where each stands: lines count from 1, rows of parquet and .json from 0.

    The reader is that of the file's suffix, if none is given. Rows that `row_errors` skips have a number too, so that
    the others keep theirs when the file is fixed.

    Raises:
        InvalidData: missing or unreadable, or (on_error=raise) a row that can't be read.
    """
    if not path.is_file():
        raise InvalidData(str(path), None, "there is no such file", "correct the path")
    reader = reader or READERS.get(path.suffix.lower())
    if reader is None:
        kind = path.suffix or "a file without suffix"
        raise InvalidData(str(path), None, f"can't read {kind}", f"use one of {', '.join(READERS)}")
    try:
        yield from reader(path, row_errors)
    except UnicodeDecodeError as error:
        raise InvalidData(str(path), None, f"is not UTF-8 ({error})", "save it as UTF-8") from error


def columns(path: Path, row_errors: RowErrors, reader: Reader | None = None) -> list[str]:
    """The columns of a file: its header's, or all that any of its JSON objects has, in the order first met.

    Raises:
        InvalidData: as `read_table`.
    """
    rows: Iterator[dict[str, Any]] = (row for _, _, row in read_table(path, row_errors, reader))
    if (reader or READERS.get(path.suffix.lower())) not in (_jsonl, _json):
        rows = islice(rows, 1)  # every row has the header's
    return list(dict.fromkeys(name for row in rows for name in row))


def mostly_filled(paths: Sequence[Path], column: str) -> bool:
    """Whether at least half of the rows of some files have something in a column; unreadable rows don't count."""
    return at_least_half(filled(cell) is not None for path in paths for cell in _cells(path, column))


def at_least_half(answers: Iterable[bool]) -> bool:
    """Whether at least half of some answers are yes; False without any."""
    counts = Counter(answers)
    return counts[True] >= counts[False] and bool(counts)


def _cells(path: Path, column: str) -> Iterator[Any]:
    if path.suffix.lower() == ".parquet":  # the other columns, of a table of pictures, are not unpacked
        yield from (row.get(column) for _, _, row in _parquet_rows(path, column))
    else:
        yield from (row.get(column) for _, _, row in read_table(path, RowErrors("skip")))


def matching(pattern: str, key: str) -> list[Path]:
    """The file of that path, else all files that match it as a glob: `br[1].jsonl` is first of all a name.

    Raises:
        InvalidData: none, or nothing in any of them; the message names the key that gave the pattern.
    """
    paths = _matching(pattern, key)
    if not any(path.stat().st_size for path in paths):
        raise InvalidData(str(paths[0]), None, "the file is empty", f"correct {key}")
    return paths


def _matching(pattern: str, key: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    if path.is_dir():
        raise InvalidData(str(path), None, "is a folder where a file belongs", f"correct {key}")
    if not any(c in path.name for c in "*?["):
        raise InvalidData(str(path), None, "there is no such file", f"correct {key}")
    paths = sorted(p for p in path.parent.glob(path.name) if p.is_file())
    if not paths:
        raise InvalidData(str(path), None, "no file matches", f"correct {key}")
    return paths


def _parquet(path: Path, _row_errors: RowErrors) -> Iterator[Located]:
    yield from _parquet_rows(path)


def _parquet_rows(path: Path, column: str | None = None) -> Iterator[Located]:
    """All rows, or those of one column, which need not exist."""
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            _require_unique_names(schema.names, str(path))
            names = schema.names if column is None else [column] if column in schema.names else []
            inexact = {name: kind for name in names if holds_short_floats(kind := schema.field(name).type)}
            number = 0
            for batch in file.iter_batches(batch_size=64, columns=names):
                for row in _records(batch):
                    for name, kind in inexact.items():
                        row[name] = shortest(row[name], kind)
                    yield number, f"{path}, row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidData(str(path), None, f"no whole parquet file ({error})", "fetch the file again") from error


def _records(batch: pyarrow.RecordBatch) -> Iterator[dict[str, Any]]:
    columns_of_cells = [_python_values(column) for column in batch.columns]
    rows = zip(*columns_of_cells, strict=True) if columns_of_cells else [()] * batch.num_rows
    return (dict(zip(batch.schema.names, row, strict=True)) for row in rows)


def _python_values(column: pyarrow.Array) -> list[Any]:
    """A column's values; those that Python can't hold stay pyarrow's, which every reader refuses with their row.

    A date before the year 1, an unknown time zone, or a text that isn't UTF-8 costs rows that need it, not the file.
    """
    try:
        return list(column.to_pylist())
    except (pyarrow.ArrowException, ValueError, OverflowError):
        return [_python_value(scalar) for scalar in column]


def _python_value(scalar: pyarrow.Scalar) -> Any:
    try:
        return scalar.as_py()
    except (pyarrow.ArrowException, ValueError, OverflowError):
        return scalar


def holds_short_floats(kind: pyarrow.DataType) -> bool:
    """Whether a column has floats of 32 or 16 bits, which `shortest` gives back as they were written."""
    if pyarrow.types.is_nested(kind):
        return any(holds_short_floats(kind.field(i).type) for i in range(kind.num_fields))
    return pyarrow.types.is_float32(kind) or pyarrow.types.is_float16(kind)


def shortest(value: Any, kind: pyarrow.DataType) -> Any:
    """A value with its floats of 32 and 16 bits as they were written: 0.1, not 0.10000000149011612."""
    if value is None:
        return None
    if pyarrow.types.is_float32(kind) or pyarrow.types.is_float16(kind):
        return float(str(np.dtype(kind.to_pandas_dtype()).type(value)))
    if pyarrow.types.is_struct(kind):
        return {name: shortest(one, kind.field(name).type) for name, one in value.items()}
    return [shortest(one, kind.value_type) for one in value] if _is_list(kind) else value


def _is_list(kind: pyarrow.DataType) -> bool:
    types = pyarrow.types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _require_unique_names(names: Sequence[str], where: str) -> None:
    # Spreadsheets end their lines with separators: columns without a name, which nothing asks for.
    repeated = [name for name, count in Counter(names).items() if count > 1 and name.strip()]
    if repeated:
        problem = "there are several columns of this name, and only one can be read"
        raise InvalidData(where, repeated[0], problem, "rename or drop the others")


def _json_lines(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    with path.open(encoding="utf-8-sig") as file:
        lines = ((line_where, line) for line_where, line in enumerate(file, start=1) if line.strip())
        for number, (line_where, line) in enumerate(lines):
            where = f"{path}, line {line_where}"
            with row_errors.row():
                row = read_json(line, where, exact=True)
                if not isinstance(row, dict):
                    raise InvalidData(where, None, "is no object", "write an object a line")
                yield number, where, row


def _jsonl(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    is_list = _layout(path) == "list"
    yield from (_json_list if is_list else _json_lines)(path, row_errors)


def _json(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    is_lines = _layout(path) == "lines"
    yield from (_json_lines if is_lines else _json_list)(path, row_errors)


def _layout(path: Path) -> Literal["list", "lines"] | None:
    """What a file holds, whatever its name: `Dataset.to_json` writes an object a line into .json; None: neither."""
    with path.open(encoding="utf-8-sig") as file:
        first_lines = list(islice((line for line in file if line.strip()), LOOKED_AT))
    begins = first_lines[0].lstrip()[:1] if first_lines else ""
    values = [_parsed(line) for line in first_lines]
    alone = len(first_lines) == 1
    if begins == "[":
        return "list" if alone or values[0] is None else None
    # An object of columns, as pandas writes one by default, is no row.
    of_columns = alone and isinstance(values[0], dict) and all(isinstance(v, dict | list) for v in values[0].values())
    return "lines" if not of_columns and any(isinstance(value, dict) for value in values) else None


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _json_list(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    document = read_json(path.read_text(encoding="utf-8-sig"), str(path), exact=True)
    if not isinstance(document, list):
        raise InvalidData(str(path), None, "is no list of objects", "write one, or an object a line")
    for number, row in enumerate(document):
        where = f"{path}, row {number}"
        with row_errors.row():
            if not isinstance(row, dict):
                raise InvalidData(where, None, "is not an object", "write a list of objects")
            yield number, where, row


def separated(delimiter: str) -> Reader:
    """The reader of tables whose lines have a header's fields, with this character between them."""

    def read(path: Path, row_errors: RowErrors) -> Iterator[Located]:
        limit = csv.field_size_limit(LARGEST_FIELD)
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                yield from _separated_rows(csv.DictReader(file, delimiter=delimiter, strict=True), path, row_errors)
        finally:
            csv.field_size_limit(limit)

    return read


def _separated_rows(reader: csv.DictReader[str], path: Path, row_errors: RowErrors) -> Iterator[Located]:
    try:
        header = list(reader.fieldnames or [])
    except csv.Error as error:
        raise InvalidData(f"{path}, line 1", None, str(error), "repair the line") from error
    _require_unique_names(header, f"{path}, line 1")
    for number in count():
        first = reader.reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            _refuse_line(error, path, first, reader.reader.line_num, row_errors)
            continue
        where = f"{path}, line {reader.line_num}"
        with row_errors.row():
            if None in row or None in row.values():
                problem = f"has not the {len(header)} fields of the header"
                raise InvalidData(where, None, problem, "put fields that hold the separator in quotes")
            if list(row.values()) == header:
                raise InvalidData(where, None, "repeats the header", "drop the line")
            yield number, where, row


def _refuse_line(error: csv.Error, path: Path, first: int, last: int, row_errors: RowErrors) -> None:
    """Raise or skip a row with a wrong quote; one that is never closed has swallowed the rest, which isn't skipped."""
    remedy = "put the field in quotes, and write a quote within it twice"
    if "unexpected end" in str(error):
        problem = "a quote opens in this row or later, and the file ends within it"
        raise InvalidData(f"{path}, line {first}", None, problem, remedy) from error
    lines = f"line {first}" if first >= last else f"lines {first} to {last}"
    with row_errors.row():
        raise InvalidData(f"{path}, {lines}", None, f"can't be read as a row ({error})", remedy) from error


def read_json(text: str, where: str, exact: bool = False) -> Any:
    """JSON in which no object has a key twice.

    Args:
        exact: a number that a float would round is a Decimal.

    Raises:
        InvalidData: it isn't.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys, parse_float=_unrounded if exact else None)
    except (ValueError, RecursionError) as error:
        raise InvalidData(where, None, f"not JSON ({error})", "repair the line or fetch the file again") from error


def _unrounded(text: str) -> float | Decimal | str:
    """The number; one too small for a float stays text, and one too large is infinite, which no cell may be."""
    value = float(text)
    if math.isinf(value) or (len(text) <= 15 and abs(value) > LOSES_DIGITS):
        return value
    try:
        exact = Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits
        return text
    if exact and not value:
        return text
    return value if Decimal(repr(value)) == exact else exact


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {short(repeated)} is there twice")
    return value


READERS: dict[str, Reader] = {
    ".parquet": _parquet,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": separated(","),
    ".tsv": separated("\t"),
}
