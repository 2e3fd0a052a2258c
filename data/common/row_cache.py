"""Rows read from files, kept on disk so that a machine reads a release once: not once a split, a rank and a run.

An entry is a folder with the rows (memory-mapped by all who read them), their places and what the reader noted. It is
used while the annotation files, the pictures that were looked at, the reader's options and the code of `data` are those
that it was made from: of files the size and the time of change, as in git's index. Files that changed in the last
seconds may change again unseen, so their rows aren't kept. An entry that is damaged is made anew. One process of the
machine reads, under a lock that the kernel frees, while others wait for its entry.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset

import data
from data.common.cache import cache_folder
from data.common.errors import InvalidData, RowErrors
from data.common.files import replacing
from data.common.images import seen_pictures
from data.common.rows import LOCATIONS
from data.common.source import Source
from data.common.web_pictures import web_pictures

Read = Callable[[RowErrors], Dataset]
State = tuple[int, int]  # size in bytes, time of change in ns
SETTLED = 2.0  # seconds since the last change of a file after which its rows are kept
UNUSED = 24 * 3600.0  # seconds after which an entry of other contents of the same files is removed
CHECKED_WHOLE = 1 << 26  # bytes of rows up to which their checksum is compared too
ENTRY = "entry.json"
log = logging.getLogger(__name__)


def cached_rows(
    source: Source,
    split: str,
    files: Sequence[Path],
    options: Mapping[str, Any],
    row_errors: RowErrors,
    open_files: Callable[[RowErrors], Mapping[str, Read]],
) -> Dataset:
    """Rows of a split, from the cache or read.

    Args:
        source: whose rows they are; its class is part of the key.
        files: annotation files, and folders all of whose files count.
        options: what else the rows depend on, `split` and `row_errors.on_error` aside.
        open_files: read what the splits share; the result maps a split to what reads its rows. It must have `split`;
            the rows of the others are kept too, if they can be read.

    Raises:
        InvalidData: as the readers.
    """
    fetches = {"allow_urls": True} if source.allow_urls else {}
    store = _Store(source, files, {**options, **fetches, "on_error": row_errors.on_error})
    entry = store.load(split, row_errors)
    if entry is not None:
        return entry
    with store.lock(), web_pictures(source.allow_urls):
        entry = store.load(split, row_errors)
        return store.read(split, row_errors, open_files) if entry is None else entry


class _Store:
    """Entries of one source's splits."""

    def __init__(self, source: Any, files: Sequence[Path], options: Mapping[str, Any]) -> None:
        self._states = dict(_states_of(files))
        what = [type(source).__qualname__, sorted(self._states), sorted(options.items())]
        self._name = f"{type(source).__name__.lower()}-{_hash([type(source).__module__, *what])}"
        self._root = cache_folder() / "datasets"

    def folder(self, split: str) -> Path:
        return self._root / f"{self._name}-{_hash([split, sorted(self._states.items()), _code()])}"

    def load(self, split: str, row_errors: RowErrors) -> Dataset | None:
        """The rows kept for a split; None where there are none, or none that still hold."""
        folder = self.folder(split)
        if not folder.is_dir():
            return None  # another process may rename one into place from here on, which isn't to be removed
        try:
            entry = json.loads((folder / ENTRY).read_text())
            if any(_checksum(folder / name) != tuple(sums) for name, sums in entry["files"].items()):
                raise ValueError("damaged")
            if any(_state(Path(path)) != (state and tuple(state)) for path, state in entry["pictures"]):
                raise ValueError("other pictures")
            rows = Dataset.from_file(str(folder / "rows.arrow"))
            skipped, notes = list(entry["skipped"]), list(entry["notes"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError, pyarrow.ArrowException) as error:
            log.info("%s: made anew (%s)", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):
            os.utime(folder / ENTRY)  # for `_remove_unused`
        for line in notes:
            log.warning("%s", line)
        if skipped:
            log.warning("%d rows kept, %d skipped, the first: %s", len(rows), len(skipped), skipped[0])
        row_errors.replay(skipped, notes)
        return rows

    def read(self, split: str, row_errors: RowErrors, open_files: Callable[[RowErrors], Mapping[str, Read]]) -> Dataset:
        """Read the rows, and keep them and those of the other splits.

        Raises:
            InvalidData: as the readers.
        """
        started = time.time()
        shared = RowErrors(row_errors.on_error)
        with seen_pictures() as seen:
            try:
                readers = open_files(shared)
                rows_of = {split: _read(readers[split], shared)}
            finally:
                row_errors.replay(shared.skipped, shared.notes)
            for other, read in readers.items():
                if other != split:
                    with suppress(InvalidData):  # it is told when that split is asked for
                        rows_of[other] = _read(read, shared)
        pictures = {str(path): _state(path) for path in sorted(seen)}
        changed = [state[1] for state in [*self._states.values(), *pictures.values()] if state is not None]
        if started - max(changed, default=0) / 1e9 > SETTLED:
            self._keep(rows_of, pictures)
        rows, errors = rows_of[split]
        row_errors.replay(errors.skipped, errors.notes)
        return rows

    def _keep(self, rows_of: Mapping[str, tuple[Dataset, RowErrors]], pictures: Mapping[str, State | None]) -> None:
        try:
            for split, (rows, errors) in rows_of.items():
                with replacing(self.folder(split)) as partial:
                    _write_entry(partial, rows, errors, pictures)
            self._remove_unused()
        except OSError as error:
            log.warning("%s: rows can't be kept (%s)", self._root, error)

    def _remove_unused(self) -> None:
        """Remove entries of the same files with other contents, so that an edited table isn't kept in all versions."""
        for folder in self._root.glob(f"{self._name}-*"):
            with suppress(OSError):
                if time.time() - (folder / ENTRY).stat().st_mtime > UNUSED:
                    shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one process of the machine read; where the file system has no locks, several may."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / f".{self._name}.lock").open("w") as file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _read(read: Read, shared: RowErrors) -> tuple[Dataset, RowErrors]:
    errors = RowErrors(shared.on_error)
    errors.replay(shared.skipped, shared.notes)
    try:
        return read(errors), errors
    except InvalidData:
        shared.replay(errors.skipped, errors.notes)
        raise


def _write_entry(folder: Path, rows: Dataset, errors: RowErrors, pictures: Mapping[str, State | None]) -> None:
    folder.mkdir()
    arrow = Path(rows.cache_files[0]["filename"])
    for file in (arrow, arrow.with_name(LOCATIONS)):
        try:
            os.link(file, folder / file.name)
        except OSError:  # another file system, or one without links
            shutil.copyfile(file, folder / file.name)
    entry = {
        "files": {name: _checksum(folder / name) for name in (arrow.name, LOCATIONS)},
        "pictures": list(pictures.items()),
        "skipped": errors.skipped,
        "notes": errors.notes,
    }
    (folder / ENTRY).write_text(json.dumps(entry))


def _states_of(files: Iterable[Path]) -> Iterator[tuple[str, State | None]]:
    """Path and state of every file; of a folder's files all; of a path into an archive, the archive's."""
    for path in files:
        path = path.absolute()
        path = next((file for file in (path, *path.parents[:-1]) if file.is_file()), path)
        if not path.is_dir():
            yield str(path), _state(path)
        for folder, _, names in os.walk(path):
            yield from ((f"{folder}/{name}", _state(Path(folder, name))) for name in names)


def _state(path: Path) -> State | None:
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _checksum(file: Path) -> tuple[int, int]:
    size = file.stat().st_size
    return size, zlib.crc32(file.read_bytes()) if size <= CHECKED_WHOLE else 0


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode("utf-8", "backslashreplace")).hexdigest()[:16]


@cache
def _code() -> str:
    """Hash of the code of all readers, so that editing one never serves old rows."""
    files = sorted(Path(str(data.__file__)).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
