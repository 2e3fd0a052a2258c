"""Tars in webdataset's layout as tables: files that share a name up to its first dot, one after another, are a row.

`0001.jpg` and `0001.json` are a row with the columns `jpg` and `json`. JSON is read as everywhere in `data`: numbers as
they are written, no key twice. The library's own reader takes the types of the first five rows for those of all, and
drops what doesn't fit them: 2.5 becomes 2. Nothing is unpickled; sounds, films and tensors are no columns.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.common.errors import InvalidData, RowErrors, short
from data.common.table_files import Located, read_json

LARGEST_FILE = 64 << 20  # bytes of a file, unpacked
LARGEST_ROW = 256 << 20  # bytes of a row's files, unpacked
KEY, URL = "__key__", "__url__"  # further columns of every row: its name and its tar
_NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]+)", re.DOTALL)  # a hidden file has none
_META = re.compile(r"__[^/]*__(?:$|/)")  # of webdataset itself
_WHOLE = re.compile(rb"\s*-?[0-9]{1,18}\s*")
_PACKED: dict[str, Callable[..., Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}
_DAMAGED = (tarfile.TarError, OSError, EOFError, ValueError, zlib.error, lzma.LZMAError)
_SOUNDS = frozenset(("wav", "flac", "ogg", "mp3", "opus", "m4a", "aac", "aiff"))
_FILMS = frozenset(("mp4", "mkv", "avi", "mov", "mpeg", "webm"))
_OBJECTS = frozenset(("pth", "pt", "pyd", "pickle", "pkl", "npz", "mp", "msg", "cbor", "ten", "tb"))
_NOT_READ = _SOUNDS | _FILMS | _OBJECTS


class _Member(NamedTuple):
    """A file of a row: its name in the tar, the row's name, its column, and its content or why that can't be read."""

    name: str
    key: str
    column: str
    content: bytes | InvalidData


def read_tar(path: Path, row_errors: RowErrors) -> Iterator[Located]:
    """The rows of a tar, which may be compressed, and where each stands.

    Raises:
        InvalidData: no tar, or (on_error=raise) a row that can't be read.
    """
    with _opened(path) as archive:
        members = (_member(archive, entry, path) for entry in _files(archive))
        for number, (key, files) in enumerate(groupby(members, key=lambda member: member.key)):
            where = f"{path}, {key}"
            with row_errors.row():
                yield number, where, _row(list(_bounded(files, where)), where, path)


def tar_columns(path: Path) -> list[str]:
    """The columns of a tar, by the names of its files alone.

    Raises:
        InvalidData: no tar.
    """
    with _opened(path) as archive:
        columns = dict.fromkeys(_split(entry.name)[1] for entry in _files(archive))
    return [*columns, KEY, URL]


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(path, "r:*") as archive:
            yield archive
    except InvalidData:
        raise
    except _DAMAGED as error:
        raise InvalidData(str(path), None, f"can't be read as a tar ({error})", "fetch the file again") from error


def _files(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files that are columns of rows, in their order."""
    for entry in archive:
        # As `datasets` does: else a tar of a million files stays in memory as a list (Python 3.11 to 3.14).
        archive.members = []  # type: ignore[attr-defined]
        is_column = entry.isreg() and not _META.match(entry.name) and _NAME.fullmatch(entry.name)
        if is_column and _split(entry.name)[1].rpartition(".")[2].lower() not in _NOT_READ:
            yield entry


def _split(name: str) -> tuple[str, str]:
    """The name of a row and of its column, the latter without the suffix of a compression."""
    match = _NAME.fullmatch(name)
    assert match is not None
    column, dot, suffix = match[2].rpartition(".")
    return match[1], column if dot and suffix.lower() in _PACKED else match[2]


def _member(archive: tarfile.TarFile, entry: tarfile.TarInfo, path: Path) -> _Member:
    key, column = _split(entry.name)
    where = f"{path}, {entry.name}"
    content: bytes | InvalidData
    if entry.size > LARGEST_FILE:
        content = _too_large(where)
    else:
        file = archive.extractfile(entry)
        assert file is not None
        content = file.read()
        kind = entry.name.rpartition(".")[2].lower()
        content = _unpacked(content, kind, where) if kind in _PACKED and not entry.name.endswith(column) else content
    return _Member(entry.name, key, column, content)


def _unpacked(content: bytes, kind: str, where: str) -> bytes | InvalidData:
    try:
        with _PACKED[kind](io.BytesIO(content)) as file:
            unpacked = file.read(LARGEST_FILE + 1)
    except _DAMAGED as error:
        return InvalidData(where, None, f"can't be unpacked ({error})", "fetch the file again, or drop the row")
    return _too_large(where) if len(unpacked) > LARGEST_FILE else unpacked


def _too_large(where: str) -> InvalidData:
    return InvalidData(where, None, f"has more than {LARGEST_FILE >> 20} MB", "drop the row")


def _bounded(files: Iterator[_Member], where: str) -> Iterator[_Member]:
    """The files of a row; beyond `LARGEST_ROW` none is held, and the row is refused."""
    left = LARGEST_ROW
    for file in files:
        if isinstance(file.content, bytes):
            left -= len(file.content)
        if left < 0:
            problem = InvalidData(where, None, f"has more than {LARGEST_ROW >> 20} MB in all its files", "drop the row")
            file = file._replace(content=problem)
        yield file


def _row(files: list[_Member], where: str, path: Path) -> dict[str, Any]:
    """The row of these files.

    Raises:
        InvalidData: one that can't be read, or two of one column.
    """
    row: dict[str, Any] = {}
    for file in files:
        if file.column in row:
            raise InvalidData(where, file.column, "is there twice", "give every row files of a name that no other has")
        if isinstance(file.content, InvalidData):
            raise file.content
        row[file.column] = _value(file.column, file.content, f"{path}, {file.name}")
    return {**row, KEY: files[0].key, URL: str(path)}


def _value(column: str, content: bytes, where: str) -> Any:
    """What a file holds, by its suffix: JSON, a text, a whole number or an array; of others, as pictures, the bytes."""
    kind = column.rpartition(".")[2].lower()
    if kind in ("json", "jsn"):
        return read_json(_text(content, where, "utf-8-sig"), where, exact=True)
    if kind in ("txt", "text", "transcript"):
        return _text(content, where, "utf-8")
    if kind in ("cls", "cls2", "index", "inx", "id"):
        if not _WHOLE.fullmatch(content):
            raise InvalidData(where, None, f"{short(content)} is no whole number", "correct the file")
        return int(content)
    return _array(content, where) if kind == "npy" else content


def _text(content: bytes, where: str, encoding: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidData(where, None, f"is not UTF-8 ({error})", "save it as UTF-8") from error


def _array(content: bytes, where: str) -> Any:
    try:
        return np.load(io.BytesIO(content), allow_pickle=False).tolist()
    except Exception as error:  # a damaged array raises nearly anything
        raise InvalidData(where, None, f"is no array of numbers ({error})", "save it again, or drop the row") from error
