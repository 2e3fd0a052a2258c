"""Counts with their nouns."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str | None = None, form: str = "") -> str:
    """A count with its noun, singular for 1: `1 seed`, `12 rows`, `0 boxes`.

    Args:
        count: how many.
        noun: what, in the singular, perhaps with an adjective.
        plural: the noun for any other count; None: with an s.
        form: format of the number, as `,` for thousands.
    """
    return f"{count:{form}} {noun if count == 1 else plural or noun + 's'}"
