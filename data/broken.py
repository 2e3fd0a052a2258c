"""Broken input: one clear error with file, row, field and remedy, or a counted and listed skip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from datasets import Dataset, Features

OnError = Literal["raise", "skip"]


class BrokenInput(ValueError):
    """A row (or a whole file) of a source that can't be used."""

    def __init__(self, where: str, field: str | None, problem: str, remedy: str) -> None:
        place = f"{where}, field {field}" if field else where
        super().__init__(f"{place}: {problem}; {remedy}")


class Tolerance:
    """What to do with broken rows: `raise` at the first, or `skip` them and list what was skipped.

    Only rows are skipped. A broken file, a missing column or an empty split is an error either way, because nothing
    sensible can be done without it.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
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
    """Collects the rows of one split: ids are unique, and an empty split is an error."""

    def __init__(self, features: Features, where: str, tolerance: Tolerance) -> None:
        self.features, self.where, self.tolerance = features, where, tolerance
        self._rows: list[dict[str, Any]] = []
        self._seen: dict[str, str] = {}

    def add(self, where: str, row: dict[str, Any]) -> None:
        first = self._seen.setdefault(row["id"], where)
        if first != where:
            raise BrokenInput(where, "id", f"{row['id']!r} was already used in {first}", "give every row its own id")
        self._rows.append(row)

    def dataset(self) -> Dataset:
        """The rows as a typed dataset.

        Raises:
            BrokenInput: not one row is left.
        """
        if not self._rows:
            skipped = len(self.tolerance.skipped)
            remedy = "see why in the list of skipped rows" if skipped else "choose another split or check the folder"
            raise BrokenInput(self.where, None, f"the split is empty ({skipped} rows skipped)", remedy)
        return Dataset.from_list(self._rows, features=self.features)
