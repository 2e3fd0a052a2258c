"""Numbers in English words: `thirty-one`, `two hundred and five`, `three point five`, `two thirds`, `minus a dozen`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

_UNITS = "zero one two three four five six seven eight nine"
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_ROUND = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(f"{_UNITS} {_TEENS}".split())}
_TENS = {word: 10 * value for value, word in enumerate(_ROUND.split(), 2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ORDINALS = ["half", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_PARTS = {word: value for value, word in enumerate(_ORDINALS, 2)} | {"quarter": 4, "halve": 2}
_WORD = "|".join([*_SMALL, *_TENS, *_SCALES, "hundred", "dozen"])
# A word before a hyphen is part of an adjective or an ordinal: `two-digit`, `twenty-first`; but `two-thirds`.
_RUN = re.compile(
    rf"\b(?:{_WORD})s?(?:[\s-]+(?:and\s+)?(?:{_WORD})s?\b)*(?!-(?!(?:{'|'.join(_PARTS)})s?\b)[a-z])\b", re.IGNORECASE
)
_POINT = re.compile(rf"\s+point((?:[\s-]+(?:{'|'.join(_UNITS.split())})\b)+)", re.IGNORECASE)
_ORDINAL = re.compile(rf"[\s-]+(?:first|second|{'|'.join(_ORDINALS[1:])})\b", re.IGNORECASE)  # `twenty third`
_PART = re.compile(rf"[\s-]+({'|'.join(_PARTS)})(s?)\b", re.IGNORECASE)
_AND_PART = re.compile(rf"\s+and\s+(?:a|one)[\s-]+({'|'.join(_PARTS)})\b", re.IGNORECASE)
_NEGATIVE = re.compile(rf"(?<!\w)(?P<before>(?:{_WORD})\s+)?(?:minus|negative)\s+(?:a\s+)?$", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?:no|any|every|some|each|this|that|which|another)\s+$", re.IGNORECASE)
_HALF_OF = re.compile(r"\bhalf\s+(?:of\s+)?an?\s+$", re.IGNORECASE)
_BARE_PART = re.compile(r"\b(?:a|one)\s+(half|quarter|third)\b", re.IGNORECASE)


def number_words(text: str) -> list[str]:
    """All numbers in words, as plain decimals in order."""
    values: list[Decimal] = []
    end = 0
    while run := _RUN.search(text, end):
        read, end = _values(text, run)
        values += read
    if not values and (part := _BARE_PART.search(text)):
        values = [1 / Decimal(_PARTS[part[1].lower()])]
    return [f"{value:f}" for value in values]


def word_value(text: str) -> int | None:
    """The whole number that a text of words is, or None."""
    values = [value for value, _ in _parsed(re.split(r"[\s-]+", text.strip().lower()))]
    return values[0] if len(values) == 1 else None


def _values(text: str, run: re.Match[str]) -> tuple[list[Decimal], int]:
    """The numbers of a run of words, and where the last of them ends."""
    before = text[max(0, run.start() - 30) : run.start()]
    plural_alone = run[0].lower().removesuffix("s") in (*_SCALES, "hundred", "dozen") and run[0][-1] in "sS"
    if plural_alone or _HALF_OF.search(before) or (run[0].lower() == "one" and _PRONOUN.search(before)):
        return [], run.end()
    values = [Decimal(number) for number, _ in _parsed(re.split(r"[\s-]+", run[0].lower()))]
    end = run.end()
    if values:
        values[-1], end = _with_part(text, end, values[-1])
        if len(values) > 1 and values[-1] < 1 and " and " in run[0].lower():  # three and three quarters
            values[-2:] = [values[-2] + values[-1]]
    if _ORDINAL.match(text, run.end()) and values and values[-1] >= 20:
        return values[:-1], end
    if values:
        sign = _NEGATIVE.search(before)
        values[0] *= -1 if sign and not sign["before"] else 1
    return values, end


def _with_part(text: str, end: int, value: Decimal) -> tuple[Decimal, int]:
    """The value with what follows it: `point five`, `thirds`, `and a half`; and where that ends."""
    if point := _POINT.match(text, end):
        digits = "".join(str(_SMALL[word]) for word in re.split(r"[\s-]+", point[1].strip().lower()))
        return Decimal(f"{value}.{digits}"), point.end()
    part = _PART.match(text, end)
    if part and 0 < value < 10:
        return value / _PARTS[part[1].lower()], part.end()
    if part := _AND_PART.match(text, end):
        return value + 1 / Decimal(_PARTS[part[1].lower()]), part.end()
    return value, end


def _parsed(words: list[str]) -> Iterator[tuple[int, str]]:
    """The numbers that follow one another in words (`two three` are two), each with its last word."""
    total = current = 0
    last, largest = "", 10**15
    for word in words:
        word = word.removesuffix("s") if word.removesuffix("s") in (*_SCALES, "hundred", "dozen") else word
        if word == "and":
            continue
        if last and not _may_follow(word, last, current, largest):
            yield total + current, last
            total = current = 0
            largest = 10**15
        if word in _SMALL or word in _TENS:
            current += _SMALL.get(word, 0) or _TENS.get(word, 0)
        elif word in ("hundred", "dozen"):
            current = (current or 1) * (100 if word == "hundred" else 12)
        elif word in _SCALES:
            total, current, largest = total + (current or 1) * _SCALES[word], 0, _SCALES[word]
        else:
            return
        last = word
    if last:
        yield total + current, last


def _may_follow(word: str, last: str, current: int, largest: int) -> bool:
    if word in _SCALES:
        return _SCALES[word] < largest and last not in _SCALES
    if word == "hundred":
        return last not in ("hundred", "dozen") and 0 < current < 100
    if word == "dozen":
        return last != "dozen" and 0 < current < 100
    after_large = last == "hundred" or last in _SCALES
    if word in _TENS or _SMALL[word] >= 10:
        return after_large
    return after_large or (last in _TENS and word != "zero")
