"""Reading of numbers: strictly one plain number, or all numbers anywhere in a text."""

from __future__ import annotations

import re
from decimal import Decimal

from tasks.answers.failure import ParseFailure

LONGEST = 40  # digits of a number, before and after the point together
_STRICT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
# A minus after a digit, a letter or a bracket is a subtraction. Commas only where they separate thousands.
_LOOSE = re.compile(
    r"(?:(?<![\w.)\]])-)?[$€£]?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![0-9.])\.[0-9]+)"
    r"(?:[eE][+-]?[0-9]{1,3}(?![0-9]))?"
)


def read_strict(text: str) -> Decimal | ParseFailure:
    """Exactly one plain number: `-12`, `0.5`, `4.0`; no `+`, exponent, thousands separator, leading zero or bare point.

    Whitespace around it is allowed.
    """
    text = text.strip()
    return _number(text) if _STRICT.fullmatch(text) else ParseFailure("no plain number")


def read_lenient(text: str) -> Decimal | ParseFailure:
    """The last number anywhere, with thousands commas, a currency sign or an exponent."""
    values = numbers(text)
    return _number(values[-1]) if values else ParseFailure("no number anywhere")


def numbers(text: str) -> list[str]:
    """All numbers in a text as plain `[-]digits[.digits][e..]`, in order."""
    text = text.replace("\N{MINUS SIGN}", "-")
    return [re.sub(r"[,$€£]", "", match.group()) for match in _LOOSE.finditer(text)]


def _number(text: str) -> Decimal | ParseFailure:
    if sum(c.isdigit() for c in text) > LONGEST:
        return ParseFailure(f"a number of more than {LONGEST} digits")
    value = Decimal(text)
    return value if value == 0 or abs(value.adjusted()) <= LONGEST else ParseFailure("a number out of range")
