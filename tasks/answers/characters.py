"""Typographic variants of characters as plain ASCII, for the lenient readings."""

from __future__ import annotations

_MINUS = "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"  # hyphens, figure and en dash, minus, small and full-width
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_QUOTES = {"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"'}
_PUNCTUATION = {"\u3001": ",", "\u3010": "[", "\u3011": "]", "\u2236": ":", "\u2044": "/", "\u2215": "/"}
# Digits of Arabic and of Persian and Urdu, with their decimal and thousands separators.
_ARABIC = {chr(zero + digit): str(digit) for zero in (0x0660, 0x06F0) for digit in range(10)}
_ARABIC |= {"\u066b": ".", "\u066c": ","}
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_ASCII = (
    _FULL_WIDTH | dict.fromkeys(map(ord, _MINUS), "-") | dict.fromkeys(map(ord, _SPACES), " ")
    | str.maketrans(_QUOTES | _PUNCTUATION | _ARABIC)
)  # fmt: skip


def ascii_variants(text: str) -> str:
    """The text, of the same length, with full-width forms, Arabic digits, dashes, blanks and quotes in ASCII."""
    return text.translate(_ASCII)
