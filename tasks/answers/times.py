"""Times of day in free text, for the lenient reading of clocks.

The possible ones of: `10:08`, `10.08`, `10h08`, `10:08:30`; `{"hour": 10, "minute": 8}`, `10 hours and 8 minutes`;
`10 o'clock`, `10 am`; `half past ten`, `quarter to 3`, `8 minutes past ten`; `10点08分`. Only where there is none: hour
and minute in words (`ten thirty`, `three oh five`), `noon` and `midnight`. `3.5` and `25:10` are no times.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.answers.characters import ascii_variants
from tasks.answers.number_words import word_value

LONGEST = 10_000  # characters of a text that are read
_SMALL = "one two three four five six seven eight nine ten eleven twelve"
_TEENS = "thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty"
_HOUR_WORDS = "|".join(_SMALL.split())
_UNIT_WORDS = "|".join(_SMALL.split()[:9])
_MINUTE_WORDS = rf"(?:{'|'.join(_TENS.split())})(?:[ -](?:{_UNIT_WORDS}))?|{'|'.join(_TEENS.split())}|{_HOUR_WORDS}"
_HOUR = rf"(?:[0-9]{{1,2}}|{_HOUR_WORDS})"
_QUARTERS = {"half": 30, "quarter": 15}

_PATTERNS = [
    # The sign `.` needs two digits after it, so that `3.5` stays a number.
    r"(?<![0-9.])(?<![0-9]:)(?P<h1>[0-9]{1,2})(?:\s{0,5}[:h]\s{0,5}(?P<m1>[0-9]{1,2})|\.(?P<m2>[0-9]{2}))(?![0-9]|\.[0-9])",
    r"\bhours?\b[\"']?\s{0,5}(?:hand\s+)?(?:[:=]|is|at)?\s{0,5}[\"']?(?P<h3>[0-9]{1,2})\b[\"']?[\s,;&]{0,9}(?:and\s+)?[\"']?"
    r"(?:the\s+)?minutes?\b[\"']?\s{0,5}(?:[:=]|is|at)?\s{0,5}[\"']?(?P<m3>[0-9]{1,2})(?![0-9]|\.[0-9])",
    r"\bminutes?\b[\"']?\s{0,5}[:=]\s{0,5}[\"']?(?P<m4>[0-9]{1,2})[\"']?[\s,;]{0,9}[\"']?hours?\b[\"']?\s{0,5}[:=]\s{0,5}[\"']?"
    r"(?P<h4>[0-9]{1,2})(?![0-9]|\.[0-9])",
    r"(?<![0-9.:])(?P<h5>[0-9]{1,2})\s{0,5}hours?,?\s{0,5}(?:and\s+)?(?P<m5>[0-9]{1,2})\s{0,5}min(?:ute)?s?\b",
    rf"(?<![\w.:])(?:(?P<part>half|(?:a\s+)?quarter)|(?P<m6>[0-9]{{1,2}}|{_MINUTE_WORDS})(?P<unit>\s+minutes?)?)\s+"
    rf"(?P<way>past|after|to|before|of|till|until)\s+(?P<h6>{_HOUR})\b(?![:.][0-9])",
    rf"(?<![\w.:])(?P<h7>{_HOUR})\s{{0,5}}o\s{{0,5}}['`]?\s{{0,5}}clock\b",
    r"(?<![\w.:])(?P<h8>[0-9]{1,2})\s{0,5}[ap]\.?\s?m\b",
    r"(?<![0-9.:])(?P<h9>[0-9]{1,2})\s{0,5}[点點时時]\s{0,5}(?:(?P<chinese_half>半)|(?P<m9>[0-9]{1,2})?)",
]
_TIME = re.compile("|".join(_PATTERNS), re.IGNORECASE)
_IN_WORDS = re.compile(
    rf"\b(?P<hour>{_HOUR_WORDS})[ -](?:(?:oh|o|zero)[ -](?P<unit>{_UNIT_WORDS})|(?P<minute>{_MINUTE_WORDS}))\b"
    r"|\b(?P<twelve>noon|midnight)\b",
    re.IGNORECASE,
)


def times(text: str) -> Iterator[tuple[int, int]]:
    """Hour (0..24) and minute (0..59) of every possible time in a text, as they are written, in order."""
    text = ascii_variants(text[:LONGEST])
    possible = [time for match in _TIME.finditer(text) if _is_possible(time := _hour_and_minute(match))]
    yield from possible or _times_in_words(text)


def _times_in_words(text: str) -> Iterator[tuple[int, int]]:
    for match in _IN_WORDS.finditer(text):
        if match["twelve"]:
            yield 12, 0
        elif match["unit"] or _value(match["minute"]) >= 10:  # `ten eight` is none
            yield _value(match["hour"]), _value(match["unit"] or match["minute"])


def _is_possible(time: tuple[int, int]) -> bool:
    return 0 <= time[0] <= 24 and 0 <= time[1] <= 59


def _hour_and_minute(match: re.Match[str]) -> tuple[int, int]:
    if match["way"]:
        return _relative(match)
    hour = next(match[f"h{n}"] for n in (1, 3, 4, 5, 7, 8, 9) if match[f"h{n}"])
    minute = next(
        (match[f"m{n}"] for n in (1, 2, 3, 4, 5, 9) if match[f"m{n}"]), "30" if match["chinese_half"] else "0"
    )
    return _value(hour), _value(minute)


def _relative(match: re.Match[str]) -> tuple[int, int]:
    """`quarter to three` is 2:45; `half to` nothing."""
    hour, way = _value(match["h6"]), match["way"].lower()
    part = match["part"].lower().split()[-1] if match["part"] else ""
    minutes = _QUARTERS[part] if part else _value(match["m6"])
    if way in ("past", "after"):
        return hour, minutes
    # `2 to 3` is a range, and `10 of 12` a share.
    spoken = part or match["unit"] or (minutes % 5 == 0 and way != "of")
    if part == "half" or not spoken or not 1 <= minutes <= 59:
        return -1, -1
    return (hour - 1) % 12 or 12, 60 - minutes


def _value(text: str) -> int:
    return int(text) if text.isdigit() else word_value(text) or 0
