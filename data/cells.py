"""Cells of a table: a CSV gives them all as texts, JSON and parquet also as numbers or nothing."""

from __future__ import annotations

from typing import Any

from data.broken import BrokenInput


def filled(cell: Any) -> Any:
    """The cell, or None where it is an empty text."""
    return None if isinstance(cell, str) and not cell.strip() else cell


def whole(cell: Any, where: str, field: str) -> int:
    """
    Raises:
        BrokenInput: no whole number below 2^31.
    """
    try:
        if float(cell) == int(float(cell)) and abs(float(cell)) < 2**31:
            return int(float(cell))
    except (TypeError, ValueError, OverflowError):
        pass
    raise BrokenInput(where, field, f"{cell!r} is no whole number", "correct the row")


def size(width: Any, height: Any, where: str) -> tuple[int, int] | None:
    """Width and height in pixels; None where both are empty.

    Raises:
        BrokenInput: only one of them is there, or one is no number from 1.
    """
    if filled(width) is None and filled(height) is None:
        return None
    found = whole(width, where, "width"), whole(height, where, "height")
    if min(found) < 1:
        raise BrokenInput(where, "width", f"{found[0]} x {found[1]} is no size", "give pixels")
    return found
