"""Cells of a table: a CSV gives them all as texts, JSON and parquet also as numbers or nothing."""

from __future__ import annotations

from typing import Any

from data.common.errors import InvalidData


def filled(cell: Any) -> Any:
    """The cell, or None where it is an empty text."""
    return None if isinstance(cell, str) and not cell.strip() else cell


def whole(cell: Any, where: str, field: str) -> int:
    """Read a cell as a whole number.

    Raises:
        InvalidData: no whole number below 2^31.
    """
    try:
        if float(cell) == int(float(cell)) and abs(float(cell)) < 2**31:
            return int(float(cell))
    except (TypeError, ValueError, OverflowError):
        pass
    raise InvalidData(where, field, f"{cell!r} is no whole number", "correct the row")


def size(width: Any, height: Any, where: str) -> tuple[int, int] | None:
    """Width and height in pixels; None where both are empty.

    Raises:
        InvalidData: only one of them is there, or one is no number from 1.
    """
    if filled(width) is None and filled(height) is None:
        return None
    dimensions = whole(width, where, "width"), whole(height, where, "height")
    if min(dimensions) < 1:
        raise InvalidData(where, "width", f"{dimensions[0]} x {dimensions[1]} is no size", "give pixels")
    return dimensions
