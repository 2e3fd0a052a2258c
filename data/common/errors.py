"""Errors in input and settings, each one sentence; and broken rows, raised or skipped and listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

OnError = Literal["raise", "skip"]


class UserError(ValueError):
    """An error that the user can fix; the message is one sentence with the remedy, and no traceback is needed."""


class InvalidOption(UserError):
    """An option of a task or source can't be used as it stands; the message names its key."""


class InvalidData(UserError):
    """A row (or a whole file) of a source can't be used."""

    def __init__(self, where: str, field: str | None, problem: str, remedy: str) -> None:
        location = f"{where}, field {field}" if field else where
        super().__init__(f"{location}: {problem}; {remedy}")


class RowErrors:
    """Policy for broken rows: `raise` at the first, or `skip` them and list what was skipped.

    Only rows are skipped, a line that is no JSON among them. A broken file, a missing column or an empty split is an
    error either way, because nothing sensible can be done without it.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise InvalidOption(f"task.source.on_error must be 'raise' or 'skip', got {on_error!r}")
        self.on_error = on_error
        self._skipped: dict[str, None] = {}  # ordered and without repeats, when a split is read twice

    @property
    def skipped(self) -> list[str]:
        """One line for every row skipped so far."""
        return list(self._skipped)

    def skip(self, line: str) -> None:
        """List a row that is left out."""
        self._skipped[line] = None

    @contextmanager
    def row(self) -> Iterator[None]:
        """Read one row within the block: its `InvalidData` is raised or recorded."""
        try:
            yield
        except InvalidData as error:
            if self.on_error == "raise":
                raise
            self.skip(str(error))
