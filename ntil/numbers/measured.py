"""Tokens of an answer whose digits are no numbers to be measured: `bbox_2d`, the label `player 23`.

The task says which characters of its answer are numbers (`Task.number_ranges`). Characters and tokens are matched by
their digits alone, in order: every ASCII digit of a text is in exactly one token, whatever the tokenizer does to blanks
and letters, so this holds for fast and slow tokenizers, with offsets or without.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

DIGIT = re.compile(r"[0-9]", re.ASCII)
# A byte of a character that the vocabulary lacks; its digits are no characters of the text.
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def unmeasured(tokens: Sequence[str], text: str, ranges: Sequence[tuple[int, int]]) -> list[int]:
    """Indices of the tokens that hold digits, none of them within `ranges`.

    A sign or a point belongs to the digits beside it, and needs no range.

    Args:
        tokens: of `text`, as `convert_ids_to_tokens` gives them.
        ranges: characters of `text`, the first and the one after the last, in any order.

    Raises:
        ValueError: the tokens' digits aren't those of the text.
    """
    inside = {position for start, end in ranges for position in range(start, end)}
    at_token = [(i, position in inside) for i, position in _digits(tokens, text)]
    measured = {i for i, counts in at_token if counts}
    return sorted({i for i, _ in at_token} - measured)


def tokens_of(tokens: Sequence[str], text: str, ranges: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Indices of the tokens that hold the digits of each range, rising. Arguments and errors as of `unmeasured`."""
    digits = _digits(tokens, text)
    return [sorted({i for i, position in digits if start <= position < end}) for start, end in ranges]


def _digits(tokens: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Index of the token and position in the text of every digit."""
    of_token = [
        (i, digit) for i, token in enumerate(tokens) if not BYTE.fullmatch(token) for digit in DIGIT.findall(token)
    ]
    of_text = list(DIGIT.finditer(text))
    if [digit for _, digit in of_token] != [match.group() for match in of_text]:
        raise ValueError(f"the digits of {text[:40]!r} aren't those of its tokens {list(tokens)[:20]}")
    return list(zip((i for i, _ in of_token), (match.start() for match in of_text), strict=True))
