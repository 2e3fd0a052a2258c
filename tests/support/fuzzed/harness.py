"""Seeded mutations of the files of a source, and what must hold for each.

A `FuzzedSource` writes a small valid file set once. `Fuzzer.run(seed)` changes one file in one place - a value, a key,
an entry, the encoding, some bytes - reads the split with `on_error=skip`, and puts the file back. It must end in

* one `UserError`: a sentence in one line, not longer than a screen, that names a file of the set; or
* rows. Those of units that the mutation did not touch are there with the same truth; where one is missing, something
  was counted as skipped or noted. Those of the touched unit may be gone or say what the file now says, but a mutation
  that changes the notation only (12 as "12") changes no truth.

A unit is what one mutation may change alone: a row of a table, a picture with all its objects.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import pickle
import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.parquet
import yaml

from data.common.cache import cache_folder
from data.common.errors import UserError
from data.common.source import Source

Steps = tuple[Any, ...]
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif")
LONGEST_MESSAGE = 2500
JUNK: list[Any] = [
    None, True, False, "", " ", "0", "-1", "nan", "NaN", "inf", "1e999", "1_0", "１２", "é", "x", "\ud800", "a\0b",
    "a\nb", math.nan, math.inf, -math.inf, 1e308, 1e-320, -0.0, 0, -1, 0.5, 7, 2**31, 2**63, 10**400, [], {}, [[]],
    [None], ["a"], {"a": 1}, [1, 2, 3, 4], "[1, 2, 3, 4]", "[", '{"a": 1}', "../..", "/", "~", "~nobody/x", "..\\a.png",
    "data:image/png;base64,AAAA", "A" * 5000, "é" * 300, b"\xff\x00", "https://example.org/a.png", [True] * 4, "1,5",
]  # fmt: skip


def _load_parquet(content: bytes) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()


def _dump_parquet(rows: Any) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def _load_csv(content: bytes, delimiter: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode()), delimiter=delimiter))


def _dump_csv(rows: Any, delimiter: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    for row in rows:
        writer.writerow([v if isinstance(v, str) else json.dumps(v) for v in row])
    return out.getvalue().encode("utf-8", "surrogatepass")


def _dump_lines(rows: Any, separator: str) -> bytes:
    lines = (separator.join(map(str, row)) if isinstance(row, list) else str(row) for row in rows)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


class Codec(NamedTuple):
    """How a file's content becomes lists and dicts, and back."""

    load: Callable[[bytes], Any]
    dump: Callable[[Any], bytes]


def lines_of(separator: str) -> Codec:
    """Lines of fields."""
    return Codec(
        lambda content: [line.split(separator) for line in content.decode().splitlines()],
        lambda rows: _dump_lines(rows, separator),
    )


CODECS: dict[str, Codec] = {
    ".json": Codec(json.loads, lambda tree: json.dumps(tree).encode()),
    ".jsonl": Codec(
        lambda content: [json.loads(line) for line in content.splitlines()],
        lambda rows: "\n".join(map(json.dumps, rows)).encode(),
    ),
    ".csv": Codec(lambda content: _load_csv(content, ","), lambda rows: _dump_csv(rows, ",")),
    ".tsv": Codec(lambda content: _load_csv(content, "\t"), lambda rows: _dump_csv(rows, "\t")),
    ".parquet": Codec(_load_parquet, _dump_parquet),
    ".p": Codec(pickle.loads, pickle.dumps),
    ".yaml": Codec(yaml.safe_load, lambda tree: yaml.safe_dump(tree).encode()),
}


def row_unit(_file: str, _tree: Any, steps: Steps) -> str | None:
    """Unit of a place in a table: the row's number from 0."""
    return str(steps[0]) if steps else None


@dataclass
class FuzzedSource:
    """A source with a valid file set.

    Attributes:
        name: for the test's name.
        write: writes the files into a folder.
        source: the source of them, with `on_error=skip`.
        truth: columns that are compared.
        split: the split that is read.
        unit_of_place: unit of a place in a file (its name in the folder, its content, the steps to it; of a picture no
            content and no steps); None: all.
        unit_of_row: unit of a row that was read.
        codecs: of files by suffix, where they aren't `CODECS`.
        selecting: fields whose change may take a row away without a word: a split, a flag, "field 0" of a line.
        unread: files that are part of the set but never mutated.
    """

    name: str
    write: Callable[[Path], None]
    source: Callable[[Path], Source]
    truth: tuple[str, ...]
    split: str = "test"
    unit_of_place: Callable[[str, Any, Steps], str | None] = row_unit
    unit_of_row: Callable[[dict[str, Any]], str] = lambda row: str(row["id"]).rpartition("-")[2]
    codecs: dict[str, Codec] = field(default_factory=dict)
    selecting: tuple[str, ...] = ("split",)
    unread: tuple[str, ...] = ()


Kind = Literal["notation", "value", "loss", "shape"]


class Mutation(NamedTuple):
    """One change: the file's new content, what was done, and the unit it touches (None: any).

    `kind` is `notation` where the file means what it meant, `value` where one value is another, `loss` where an entry
    may go without a word, `shape` for all else.
    """

    file: Path
    content: bytes
    what: str
    kind: Kind
    unit: str | None


class Fuzzer:
    """Mutations of one source's files, written to `folder` at first."""

    def __init__(self, fuzzed: FuzzedSource, folder: Path) -> None:
        self.fuzzed, self.folder = fuzzed, folder
        fuzzed.write(folder)
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in fuzzed.unread)
        self.contents = {file: file.read_bytes() for file in files}
        self.trees = {f: codec.load(c) for f, c in self.contents.items() if (codec := self._codec(f))}
        self.pickles = {file: pickle.dumps(tree) for file, tree in self.trees.items()}
        self.places = {file: list(_places(tree)) for file, tree in self.trees.items()}
        self.valid, skipped, notes = self._read()
        assert self.valid, f"{fuzzed.name}: the valid files give no row"
        assert not skipped, f"{fuzzed.name}: the valid files are not: {skipped + notes}"

    def run(self, seed: int) -> None:
        """Check one mutation.

        Raises:
            AssertionError: it ends in what it must not.
        """
        mutation = self.mutation(seed)
        mutation.file.write_bytes(mutation.content)
        label = f"{self.fuzzed.name}, seed {seed}: {mutation.what}"
        try:
            rows, skipped, notes = self._read()
        except UserError as error:
            _check_message(str(error), self.folder, label)
        except Exception as error:
            raise AssertionError(f"{label}: {type(error).__name__}: {error}"[:1000]) from error
        else:
            for line in (*skipped, *notes):
                _check_message(line, self.folder, label)
            self._check_rows(rows, mutation, len(skipped) + len(notes), label)
        finally:
            mutation.file.write_bytes(self.contents[mutation.file])

    def mutation(self, seed: int) -> Mutation:
        """The mutation of a seed, the same on every machine."""
        random_ = random.Random(f"{self.fuzzed.name} {seed}")
        structured = list(self.trees)
        file = random_.choice(structured if structured and random_.random() < 0.85 else list(self.contents))
        if file in self.trees and random_.random() < 0.85:
            for _ in range(20):
                if mutation := self._structured(file, random_):
                    return mutation
        return self._of_bytes(file, random_)

    def _codec(self, file: Path) -> Codec | None:
        return (CODECS | self.fuzzed.codecs).get(file.suffix)

    def _read(self) -> tuple[dict[str, dict[str, Any]], list[str], list[str]]:
        source = self.fuzzed.source(self.folder)
        dataset = source.rows(self.fuzzed.split)
        columns = ["id", *self.fuzzed.truth]
        selected = dataset.data.table.select(columns)  # without the fingerprints of `select_columns`
        indices = None if dataset._indices is None else dataset._indices.column(0).to_pylist()
        stored = selected.to_pylist()
        rows = {row["id"]: row for row in (stored if indices is None else [stored[i] for i in indices])}
        shutil.rmtree(cache_folder() / "tables", ignore_errors=True)
        return rows, source.row_errors.skipped, source.row_errors.notes

    def _check_rows(self, rows: dict[str, Any], mutation: Mutation, counted: int, label: str) -> None:
        if mutation.unit is None and mutation.kind != "notation":
            return
        for key, valid in self.valid.items():
            touched = self.fuzzed.unit_of_row(valid) == mutation.unit
            may_go = counted or (touched and mutation.kind == "loss")
            if key not in rows:
                assert may_go or (touched and mutation.kind == "shape"), f"{label}: row {key} is gone without a word"
            elif not touched or mutation.kind == "notation":
                assert _equal(rows[key], valid), f"{label}: {valid} became {rows[key]}"

    def _structured(self, file: Path, random_: random.Random) -> Mutation | None:
        tree, steps = pickle.loads(self.pickles[file]), random_.choice(self.places[file])
        name = str(file.relative_to(self.folder))
        operation = random_.choice(OPERATIONS)
        parent, last = _parent(tree, steps), steps[-1]
        kind, what = operation(parent, last, random_)
        if not what:
            return None
        if kind == "value" and len(steps) == 1:
            kind = "shape"  # an entry is something else altogether
        unit = self.fuzzed.unit_of_place(name, self.trees[file], steps)
        fields = _fields(self.trees[file], steps)
        if kind == "value" and fields & set(self.fuzzed.selecting):
            kind = "loss"
        codec = self._codec(file)
        assert codec
        try:
            content = codec.dump(tree)
        except Exception:  # what can't be written can't be met
            return None
        return Mutation(file, content, f"{name} {list(steps)}: {what}"[:300], kind, unit)

    def _of_bytes(self, file: Path, random_: random.Random) -> Mutation:
        content, name = self.contents[file], str(file.relative_to(self.folder))
        at = random_.randrange(len(content) + 1)
        is_text = file.suffix not in (*PICTURES, ".p", ".parquet", ".zip", ".mat")
        changes: list[tuple[str, Kind, bytes]] = [
            ("cut", "shape", content[:at]),
            ("empty", "shape", b""),
            ("byte", "shape", content[:at] + bytes([random_.randrange(256)]) + content[at + 1 :]),
            ("bytes taken out", "shape", content[:at] + content[at + random_.randrange(1, 20) :]),
            ("NUL", "shape", content[:at] + b"\0" + content[at:]),
            ("not UTF-8", "shape", content[:at] + b"\xe9\xff" + content[at:]),
        ]
        if is_text:
            changes += [
                ("byte order mark", "notation", b"\xef\xbb\xbf" + content),
                ("CRLF", "notation", content.replace(b"\n", b"\r\n")),
                ("UTF-16", "shape", content.decode().encode("utf-16")),
                ("blank line at the end", "notation", content + b"\n\n"),
            ]
        what, kind, changed = random_.choice(changes)
        unit = self.fuzzed.unit_of_place(name, None, ()) if file.suffix in PICTURES else None
        return Mutation(file, changed, f"{name}: {what} at {at}", kind, unit)


def _places(tree: Any, steps: Steps = ()) -> Any:
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for step, child in children:
        yield (*steps, step)
        yield from _places(child, (*steps, step))


def _fields(tree: Any, steps: Steps) -> set[str]:
    """Names of the keys, or of the column of a table of lists, on the way to a place."""
    header = tree[0] if isinstance(tree, list) and isinstance(tree[0], list) else []
    column = header[steps[1]] if len(steps) > 1 and isinstance(steps[1], int) and steps[1] < len(header) else ""
    number = f"field {steps[1]}" if len(steps) > 1 else ""
    return {step for step in steps if isinstance(step, str)} | {column, number}


def _parent(tree: Any, steps: Steps) -> Any:
    for step in steps[:-1]:
        tree = tree[step]
    return tree


Operation = Callable[[Any, Any, random.Random], tuple[Kind, str]]


def _junk(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    parent[last] = random_.choice(JUNK)
    return "value", f"is {parent[last]!r:.80}"


def _sibling(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
    other = random_.choice(keys)
    if other == last:
        return "shape", ""
    parent[last] = copy.deepcopy(parent[other])
    return "shape", f"is what {other} is"


def _as_text(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    value = parent[last]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "notation", ""
    parent[last] = str(value)
    return "notation", f"is the text {parent[last]!r}"


def _as_float(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    value = parent[last]
    if isinstance(value, bool) or not isinstance(value, int):
        return "notation", ""
    parent[last] = float(value)
    return "notation", f"is {parent[last]}"


def _removed(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    del parent[last]
    return "loss", "is taken out"


def _twice(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    if not isinstance(parent, list):
        return "shape", ""
    parent.append(copy.deepcopy(parent[last]))
    return "shape", "is there twice"


def _wrapped(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    parent[last] = random_.choice([[parent[last]], {"value": parent[last]}, [parent[last]] * 2, str(parent[last])])
    return "value", f"is {parent[last]!r:.80}"


def _renamed(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    if not isinstance(parent, dict):
        return "shape", ""
    parent[f"{last}x"] = parent.pop(last)
    return "shape", "has another name"


def _added(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    if not isinstance(parent, dict):
        return "notation", ""
    parent["extra"] = random_.choice([None, 1, "x", [1], {"a": None}])
    return "notation", "has a new neighbour"


def _scaled(parent: Any, last: Any, random_: random.Random) -> tuple[Kind, str]:
    value = parent[last]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "value", ""
    parent[last] = value * random_.choice([-1, 0, 0.001, 2, 1000, 1e300])
    return "value", f"is {parent[last]}"


OPERATIONS: list[Operation] = [
    _junk, _junk, _junk, _junk, _sibling, _as_text, _as_float, _removed, _twice, _wrapped, _renamed, _added, _scaled
]  # fmt: skip


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(a == b) or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-9))


def _check_message(message: str, folder: Path, label: str) -> None:
    assert len(message) < LONGEST_MESSAGE, f"{label}: {len(message)} characters"
    assert len(message.splitlines()) == 1, f"{label}: {message!r:.300}"
    message.encode()
    assert re.search(r"[;:] .", message), f"{label}: {message:.300}"
    assert str(folder) in message or "task.source" in message, f"{label}: names no file: {message:.300}"
