"""Times of day in free text, for the lenient reading of clocks.

The possible ones of: `10:08`, `10.08`, `10h08`, `10:08:30`; `{"hour": 10, "minute": 8}`, `10 hours and 8 minutes`; `10
o'clock`, `10 am`; `half past ten`, `quarter to 3`, `8 minutes past ten`; `10点08分`. Only where there is none: hour and
minute in words (`ten thirty`, `three oh five`), `noon` and `midnight`. No times: `25:10`; `3.5`, `$12.50` and, without
a word of time near it, `3.14`; `20 to 30`, `ten to twelve people`.
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
_CHINESE_PARTS = {"半": 30, "一刻": 15, "三刻": 45}
_ABOUT_TIME = re.compile(r"\b(?:time|clock|watch|reads?|shows?)\b[^.\n]*$", re.IGNORECASE)
_DAYTIME = re.compile(r"\s?(?:[ap]\.?\s?m\b|o\s?'?\s?clock|hrs?\b|uhr\b|in the (?:morn|after|even)ing)", re.IGNORECASE)
_MEASURED = re.compile(r"(?:[$€£¥₹]|\b(?:fig(?:ure)?|table|section|version|pi|v)\.?(?: is)?)\s?$", re.IGNORECASE)
_MEASURE = re.compile(
    r"\s?(?:[$€£¥₹%°]|(?:[cmk]?m|[mk]?g|in(?:ch(?:es)?)?|feet|ft|dollars|euros|percent)\b)", re.IGNORECASE
)
_THING = re.compile(
    r"\s+(?!(?:o|am|pm|in|at|on|or|and|now|right|exactly|as|by|when|because|since|according|based|which|with)\b)"
    r"[a-z]{2,}",
    re.IGNORECASE,
)

_QUOTE = r"[\"'*]{0,3}"
_PATTERNS = [
    # The sign `.` needs two digits after it, so that `3.5` stays a number.
    r"(?<![0-9.])(?<![0-9]:)(?P<h1>[0-9]{1,2})(?:\s{0,5}[:h]\s{0,5}(?P<m1>[0-9]{1,2})|\.(?P<m2>[0-9]{2}))"
    r"(?![0-9]|\.[0-9]|:[0-9](?![0-9]))",
    rf"\b(?:hours?|h(?=[\"']))\b{_QUOTE}\s{{0,5}}(?:hand\s+)?(?:[:=]|is|at)?{_QUOTE}\s{{0,5}}{_QUOTE}(?P<h3>[0-9]{{1,2}})\b"
    rf"{_QUOTE}[\s,;&]{{0,9}}(?:and\s+)?{_QUOTE}(?:the\s+)?(?:minutes?|m(?=[\"']))\b{_QUOTE}\s{{0,5}}(?:[:=]|is|at)?{_QUOTE}"
    rf"\s{{0,5}}{_QUOTE}(?P<m3>[0-9]{{1,2}})(?![0-9]|\.[0-9])",
    rf"\bminutes?\b{_QUOTE}\s{{0,5}}[:=]{_QUOTE}\s{{0,5}}{_QUOTE}(?P<m4>[0-9]{{1,2}}){_QUOTE}[\s,;]{{0,9}}{_QUOTE}hours?\b"
    rf"{_QUOTE}\s{{0,5}}[:=]{_QUOTE}\s{{0,5}}{_QUOTE}(?P<h4>[0-9]{{1,2}})(?![0-9]|\.[0-9])",
    rf"(?<![\w.:])(?P<h5>{_HOUR})\s{{0,5}}h(?:ou)?rs?,?\s{{0,5}}(?:and\s+)?(?P<m5>[0-9]{{1,2}}|{_MINUTE_WORDS})"
    r"\s{0,5}min(?:ute)?s?\b",
    rf"(?<![\w.:])(?:(?P<part>half|(?:a\s+)?quarter)|(?P<m6>[0-9]{{1,2}}|{_MINUTE_WORDS})(?P<unit>\s+min(?:ute)?s?)?)"
    rf"[\s-]+(?P<way>past|after|to|before|of|till?|until)\s+(?P<h6>{_HOUR})\b(?![:.][0-9])",
    rf"(?<![\w.:])(?P<h7>{_HOUR})\s{{0,5}}o\s{{0,5}}['`]?\s{{0,5}}clock\b",
    rf"(?<![\w.:])(?P<h8>{_HOUR})\s{{0,5}}[ap]\.?\s?m\b|(?<![\w.:])(?P<h10>[0-9]{{1,2}})h\b",
    r"(?<![\w.:,])(?P<h11>[0-2][0-9])(?P<m11>[0-5][0-9])\s?(?:hours|hrs)\b",
    # `十` after it, or a difference before it, is not read: `差5分10点` is 9:55.
    r"(?<![0-9.:分])(?P<h9>[0-9]{1,2})\s{0,5}(?:[点點时時시]|uhr\b|heures?\b)\s{0,5}"
    r"(?:(?P<chinese_part>半|[一三]刻)|(?P<m9>[0-9]{1,2})(?!\s?[0-9])|(?![0-9零〇一二三四五六七八九十两过差]))",
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
    possible = [
        time
        for match in _TIME.finditer(text)
        if _is_possible(time := _hour_and_minute(match)) and not (_is_decimal(match) or _is_range(match))
    ]
    yield from possible or _times_in_words(text)


def _times_in_words(text: str) -> Iterator[tuple[int, int]]:
    for match in _IN_WORDS.finditer(text):
        if match["twelve"]:
            yield 12, 0
        elif match["unit"] or _value(match["minute"]) >= 10:  # `ten eight` is none
            yield _value(match["hour"]), _value(match["unit"] or match["minute"])


def _is_possible(time: tuple[int, int]) -> bool:
    return 0 <= time[0] <= 24 and 0 <= time[1] <= 59


def _is_decimal(match: re.Match[str]) -> bool:
    """Whether `3.14` or `12.50` is a number: an hour of one digit without a word of time near, money, or a measure."""
    if not match["m2"]:
        return False
    before, after = match.string[max(0, match.start() - 30) : match.start()], match.string[match.end() :][:12]
    if _DAYTIME.match(after):
        return False
    about_time = len(match["h1"]) == 2 or _ABOUT_TIME.search(before)
    return not about_time or bool(_MEASURED.search(before) or _MEASURE.match(after))


def _is_range(match: re.Match[str]) -> bool:
    """Whether `ten to twelve people` or `20 to 30` is a range: a thing follows, or what stands there is no hour."""
    if not match["way"] or match["unit"] or match["part"]:
        return False
    return _value(match["h6"]) > 12 or _THING.match(match.string, match.end()) is not None


def _hour_and_minute(match: re.Match[str]) -> tuple[int, int]:
    if match["way"]:
        return _relative(match)
    hour = next(match[f"h{n}"] for n in (1, 3, 4, 5, 7, 8, 9, 10, 11) if match[f"h{n}"])
    minute = next((match[f"m{n}"] for n in (1, 2, 3, 4, 5, 9, 11) if match[f"m{n}"]), "0")
    return _value(hour), _CHINESE_PARTS[match["chinese_part"]] if match["chinese_part"] else _value(minute)


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
