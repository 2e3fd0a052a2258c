"""Failure to read an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ParseFailure:
    """The text isn't an answer. It scores the worst of every metric and is counted, never dropped."""

    reason: str
