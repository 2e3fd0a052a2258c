"""Where an answer ends."""

from __future__ import annotations

from collections.abc import Sequence


def cut(text: str, stop: Sequence[str] | None) -> str:
    """The text before the first stop text."""
    return min((text.partition(end)[0] for end in stop or ()), key=len, default=text)
