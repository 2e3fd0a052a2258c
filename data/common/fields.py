"""Checks of values from files that others wrote: tables, JSON, pickles. A value passes, or ends in one `InvalidData`.

A CSV gives all its cells as texts, JSON and parquet also as numbers, lists or nothing, and any of them anything at all.
A reader puts every value that it takes through one of these before it indexes, compares or writes with it:

    text, number, whole, flag, size     a cell
    items, record, key, unique          lists, objects, and what they are known by
    require_unicode                     a row as it is stored

Each takes `where` ("file, line 3") and the field's name for the message; `remedy` says what the user can do about it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from data.common.errors import InvalidData, short

CORRECT = "correct the row"
# Python's own float() also reads 1_000, other scripts' digits, nan and inf.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
Key = int | str


def filled(cell: Any) -> Any:
    """The cell, or None where it is an empty text or the NaN by which tables mark a missing number."""
    empty = not cell.strip() if isinstance(cell, str) else isinstance(cell, float) and math.isnan(cell)
    return None if empty else cell


def unpacked(cell: Any, where: str, field: str) -> Any:
    """A list or object, which .csv and .tsv hold as JSON; any other cell as it is.

    Raises:
        InvalidData: a text in brackets that is no JSON, as pandas writes lists: ['a', 'b'].
    """
    if not isinstance(cell, str) or (cell.strip()[:1], cell.strip()[-1:]) not in (("[", "]"), ("{", "}")):
        return cell
    try:
        return json.loads(cell)
    except (ValueError, RecursionError) as error:
        raise InvalidData(where, field, f"{short(cell)} is no JSON", "write lists and objects as JSON") from error


def text(cell: Any, where: str, field: str, remedy: str = "give a text") -> str:
    """A text with something in it, stripped, that can be written as UTF-8 and holds no NUL.

    Raises:
        InvalidData: anything else; numbers are no texts.
    """
    if not isinstance(cell, str) or not cell.strip():
        raise InvalidData(where, field, f"{short(cell)} is no text", remedy)
    if "\0" in cell:
        raise InvalidData(where, field, f"{short(cell)} holds a NUL character", remedy)
    require_unicode(cell, where, field)
    return cell.strip()


def is_number(cell: Any) -> bool:
    """Whether a cell is a finite number, or a text that is one in decimal notation; true and false are none."""
    return _value(cell) is not None


def _value(cell: Any) -> float | None:
    if isinstance(cell, str):
        cell = cell.strip()
        if not _NUMBER.fullmatch(cell):
            return None
    elif isinstance(cell, bool) or not isinstance(cell, int | float | Decimal):
        return None
    try:
        value = float(cell)
    except (OverflowError, ValueError):  # an integer beyond 1e308, a signalling NaN
        return None
    return value if math.isfinite(value) else None


def number(cell: Any, where: str, field: str, remedy: str = CORRECT) -> float:
    """A finite number, also as text.

    Raises:
        InvalidData: anything else; true and false are no numbers.
    """
    value = _value(cell)
    if value is None:
        raise InvalidData(where, field, f"{short(cell)} is no number", remedy)
    return value


def whole(cell: Any, where: str, field: str, remedy: str = CORRECT) -> int:
    """A whole number below 2^31, also as text or as 3.0.

    Raises:
        InvalidData: anything else; true and false are no numbers.
    """
    value = _value(cell)
    if value is not None and value.is_integer() and abs(value) < 2**31:
        return int(value)
    raise InvalidData(where, field, f"{short(cell)} is no whole number", remedy)


def flag(cell: Any, where: str, field: str, remedy: str = "write 0 or 1") -> bool:
    """A yes or no: true, false, 0, 1, also as text; nothing is no.

    Raises:
        InvalidData: anything else.
    """
    if filled(cell) is None or isinstance(cell, bool):
        return bool(filled(cell))
    if isinstance(cell, str) and cell.strip().lower() in ("true", "false"):
        return cell.strip().lower() == "true"
    if _value(cell) in (0.0, 1.0):
        return _value(cell) == 1.0
    raise InvalidData(where, field, f"{short(cell)} is neither 0 nor 1", remedy)


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


def items(value: Any, where: str, field: str | None, remedy: str = "write a list") -> list[Any]:
    """A list.

    Raises:
        InvalidData: anything else; a text is no list of its letters.
    """
    if not isinstance(value, list | tuple):
        raise InvalidData(where, field, f"{short(value)} is no list", remedy)
    return list(value)


def record(value: Any, where: str, field: str | None = None, remedy: str = "write an object") -> dict[str, Any]:
    """An object of JSON, a dict.

    Raises:
        InvalidData: anything else.
    """
    if not isinstance(value, dict):
        raise InvalidData(where, field, f"{short(value)} is no object", remedy)
    return value


def key(value: Any, where: str, field: str, remedy: str = "give a number or a text") -> Key:
    """What an entry is known by: an integer or a text; 7, 7.0 and "7" are one key.

    Raises:
        InvalidData: nothing, a list, a fraction, true or false.
    """
    if isinstance(value, str):
        stripped = text(value, where, field, remedy)
        return int(stripped) if _INTEGER.fullmatch(stripped) and len(stripped) < 20 else stripped
    number_value = _value(value)
    if number_value is not None and number_value.is_integer() and abs(number_value) < 2**63:
        return int(value)
    raise InvalidData(where, field, f"{short(value)} is no id", remedy)


def key_order(value: Key) -> tuple[bool, int, str]:
    """Sorting order of keys of both kinds: numbers first."""
    return (True, 0, value) if isinstance(value, str) else (False, value, "")


def repeated(keys: Iterable[Key]) -> dict[Key, list[int]]:
    """The keys that occur more than once, with the positions of each."""
    positions: dict[Key, list[int]] = {}
    for position, one in enumerate(keys):
        positions.setdefault(one, []).append(position)
    return {one: at for one, at in positions.items() if len(at) > 1}


def require_unicode(value: Any, where: str, field: str) -> None:
    """Check that every text in a value, however nested, can be written as UTF-8.

    Raises:
        InvalidData: a lone surrogate, which JSON can escape.
    """
    if isinstance(value, str):
        if value.isascii():
            return
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidData(where, field, f"is no Unicode text ({error})", CORRECT) from error
    elif isinstance(value, list | tuple):
        for one in value:
            require_unicode(one, where, field)
    elif isinstance(value, Mapping):
        for name, one in value.items():
            require_unicode(name, where, field)
            require_unicode(one, where, field)
