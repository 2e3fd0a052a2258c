"""Questions that a data set answers in two ways: about one picture, with the same words."""

from __future__ import annotations

import hashlib
from typing import Any

from data.common.counts import counted
from data.common.errors import RowErrors, short


class Contradictions:
    """What was asked of each picture so far, and what was answered otherwise later."""

    def __init__(self) -> None:
        self._answers: dict[bytes, str] = {}
        self._first = ""
        self._count = 0

    def add(self, where: str, picture: dict[str, Any] | None, question: str, answer: Any) -> None:
        """Compare a row with those before it.

        Args:
            picture: as stored, a struct of bytes and path; None where the question has none.
        """
        stored = picture or {}
        digest = hashlib.sha256(stored.get("bytes") or str(stored.get("path")).encode("utf-8", "surrogatepass"))
        digest.update(" ".join(question.casefold().split()).encode("utf-8", "surrogatepass"))
        if self._answers.setdefault(digest.digest(), str(answer)) != str(answer):
            self._count += 1
            self._first = self._first or f"{short(question)} in {where}"

    def note(self, where: str, row_errors: RowErrors) -> None:
        """Note how many there were: which of the answers is right can't be known."""
        if self._count:
            rows = counted(self._count, "row answers", "rows answer")
            row_errors.note(where, f"{rows} a question otherwise than a row before; the first: {self._first}")
