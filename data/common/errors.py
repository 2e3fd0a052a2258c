"""Errors in input and settings, each one sentence; and broken rows, raised or skipped and listed."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

OnError = Literal["raise", "skip"]
QUOTED = 80  # characters of a value that a message quotes
LONGEST_PROBLEM = 600  # characters
log = logging.getLogger(__name__)
_QUOTE = reprlib.Repr()
_QUOTE.maxstring = _QUOTE.maxother = _QUOTE.maxlong = 60
_QUOTE.maxlist = _QUOTE.maxtuple = 8
_QUOTE.maxdict = 4


def short(value: Any) -> str:
    """Python's notation of a value, cut in the middle: a message never quotes a picture."""
    try:
        return _cut(_QUOTE.repr(value), QUOTED)
    except ValueError:  # an integer of more digits than Python writes
        return f"a value of type {type(value).__name__}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most * 2 // 3]}...{text[-most // 4 :]}"


def _printable(text: str) -> str:
    """The text in one line that any terminal and file takes: control characters and lone surrogates escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class UserError(ValueError):
    """An error that the user can fix; the message is one sentence with the remedy, and no traceback is needed."""


class InvalidOption(UserError):
    """An option of a task or source can't be used as it stands; the message names its key."""


class InvalidData(UserError):
    """A row (or a whole file) of a source can't be used."""

    def __init__(self, where: str, field: str | None, problem: str, remedy: str) -> None:
        where = _cut(where, LONGEST_PROBLEM)
        location = f"{where}, field {_cut(field, QUOTED)}" if field else where
        super().__init__(_printable(f"{location}: {_cut(problem, LONGEST_PROBLEM)}; {remedy}"))


class RowErrors:
    """Policy for broken rows: `raise` at the first, or `skip` them and list what was skipped; and what else was noted.

    Only rows are skipped, a line that is no JSON among them. A broken file, a missing column or an empty split is an
    error either way, because nothing sensible can be done without it.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in ("raise", "skip"):
            raise InvalidOption(f"task.source.on_error must be 'raise' or 'skip', got {on_error!r}")
        self.on_error = on_error
        # Ordered and without repeats, when a split is read twice.
        self._skipped: dict[str, None] = {}
        self._notes: dict[str, None] = {}

    @property
    def skipped(self) -> list[str]:
        """One line for every row skipped so far."""
        return list(self._skipped)

    @property
    def notes(self) -> list[str]:
        """One line for everything that a reader left out, repeated or resolved by itself, and that costs no row."""
        return list(self._notes)

    def note(self, where: str, what: str) -> None:
        """Record what a reader did on its own that the user should know; `ntil data check` lists it."""
        line = _printable(f"{where}: {_cut(what, LONGEST_PROBLEM)}")
        if line not in self._notes:
            log.warning("%s", line)
        self._notes[line] = None

    def skip(self, line: str) -> None:
        """List a row that is left out."""
        self._skipped[line] = None

    def replay(self, skipped: Iterable[str], notes: Iterable[str]) -> None:
        """List again what another reading of the same files listed."""
        self._skipped |= dict.fromkeys(skipped)
        self._notes |= dict.fromkeys(notes)

    @contextmanager
    def row(self) -> Iterator[None]:
        """Read one row within the block: its `InvalidData` is raised or recorded."""
        try:
            yield
        except InvalidData as error:
            if self.on_error == "raise":
                raise
            self.skip(str(error))
