"""Broken input: one clear error with file, row, field and remedy, or a counted and listed skip."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features
from datasets.arrow_writer import ArrowWriter

from data.cache import cache_folder

OnError = Literal["raise", "skip"]
log = logging.getLogger(__name__)


class BrokenInput(ValueError):
    """A row (or a whole file) of a source that can't be used."""

    def __init__(self, where: str, field: str | None, problem: str, remedy: str) -> None:
        place = f"{where}, field {field}" if field else where
        super().__init__(f"{place}: {problem}; {remedy}")


class Tolerance:
    """What to do with broken rows: `raise` at the first, or `skip` them and list what was skipped.

    Only rows are skipped, a line that is no JSON among them. A broken file, a missing column or an empty split is an
    error either way, because nothing sensible can be done without it.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"task.on_error must be 'raise' or 'skip', got {on_error!r}")
        self.on_error = on_error
        self._skipped: dict[str, None] = {}  # ordered and without repeats, when a split is read twice

    @property
    def skipped(self) -> list[str]:
        """One line for every row skipped so far."""
        return list(self._skipped)

    @contextmanager
    def row(self) -> Iterator[None]:
        """Around the reading of one row."""
        try:
            yield
        except BrokenInput as error:
            if self.on_error == "raise":
                raise
            self._skipped[str(error)] = None


class Table:
    """Collects the rows of one split: ids are unique, and an empty split is an error.

    Rows go to disk as they come (pictures may lie in them: RefCOCOg's validation split holds 1.3 GB), into a folder
    under the cache that is removed when the process ends.
    """

    def __init__(self, features: Features, where: str, tolerance: Tolerance) -> None:
        self.features, self.where, self.tolerance = features, where, tolerance
        self._writer: ArrowWriter | None = None
        self._file = Path()
        self._seen: dict[str, str] = {}
        self._skipped_before = len(tolerance.skipped)

    def add(self, where: str, row: dict[str, Any]) -> None:
        """
        Raises:
            BrokenInput: another place has used the row's id, or a text can't be stored.
        """
        for name, value in row.items():
            if isinstance(value, str) and not value.isascii():
                try:
                    value.encode()
                except UnicodeEncodeError as error:
                    raise BrokenInput(where, name, f"is no Unicode text ({error})", "correct the row") from error
        first = self._seen.setdefault(row["id"], where)
        if first != where:
            raise BrokenInput(where, "id", f"{row['id']!r} was already used in {first}", "give every row its own id")
        if self._writer is None:
            self._file = _scratch() / "rows.arrow"
            self._writer = ArrowWriter(path=str(self._file), features=self.features, writer_batch_size=100)
        self._writer.write(row)

    def dataset(self) -> Dataset:
        """The rows as a typed dataset.

        Raises:
            BrokenInput: not one row is left.
        """
        skipped = len(self.tolerance.skipped) - self._skipped_before
        if self._writer is None:
            remedy = "see why in the list of skipped rows" if skipped else "choose another split or check the folder"
            raise BrokenInput(self.where, None, f"the split is empty ({skipped} rows skipped)", remedy)
        if skipped:
            # Whatever reads the rows, training too, says so; `ntil data check` lists them all.
            first = self.tolerance.skipped[self._skipped_before]
            log.warning("%s: %d rows kept, %d skipped, the first: %s", self.where, len(self._seen), skipped, first)
        self._writer.finalize()
        self._writer.close()
        return Dataset.from_file(str(self._file))


def _scratch() -> Path:
    root = cache_folder() / "tables"
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=root))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
