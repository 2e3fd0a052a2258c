"""Read an analogue clock: the answer is `HH:MM` on a 12-hour dial, `01:05` to `12:59`.

Metrics (means over all examples; an answer that can't be read has the largest deviation):

* `exact`: hour and minute both right.
* `within_1`: at most 1 minute off on the circle, the criterion of "It's About Time" (Yang et al., CVPR 2022).
* `deviation`: |minutes| between the two times the short way round the 720-minute circle, 0..360; failure 360.
* `deviation_unwrapped`: the plain difference of hour * 60 + minute with 12 as 0 o'clock, 0..719; failure 719. The paper
  (arXiv 2505.13077, table of the clock task) doesn't say which of the two it reports.
* `hour`, `minute`: each right alone; `minute_within_1`: the minute at most 1 off on its circle of 60, as the official
  evaluation of "It's About Time" reports minutes.
* `parse_failure_rate`; and every metric once more as `lenient_*`, for the first possible time anywhere in the text, in
  any of the forms of `tasks.answers.times`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import MappingProxyType
from typing import NamedTuple

from data.common.source import Source
from tasks.answers.times import times
from tasks.base import ParseFailure, Row, Scores, Task

DIAL = 720
_STRICT = re.compile(r"([0-9]{2}):([0-9]{2})", re.ASCII)


class Time(NamedTuple):
    """Time on a 12-hour dial; `minutes` counts from 12 o'clock, 0..719."""

    hour: int
    minute: int

    def __str__(self) -> str:
        return f"{self.hour:02d}:{self.minute:02d}"

    @property
    def minutes(self) -> int:
        return self.hour % 12 * 60 + self.minute


class Clock(Task):
    """Task of reading an analogue clock.

    Args:
        source: rows with `hour` (1..12) and `minute`, and perhaps a `prompt` of their own.
        question: the prompt.
    """

    metric = "exact"
    # 2: the lenient reading takes more forms, and goes on after an impossible time
    # 3: it takes Arabic digits
    protocol = 3
    secondary_metrics = MappingProxyType({"deviation": False})
    max_new_tokens = 8
    number_count = 2
    columns = ("hour", "minute")
    survives = frozenset({"clock_rotation", "scale", "color_jitter"})

    def __init__(self, source: Source, question: str = "What time is it?") -> None:
        self.source, self.question = source, question

    def prompt(self, row: Row) -> str:
        return row.get("prompt") or self.question

    def answer(self, row: Row) -> str:
        return str(Time(row["hour"], row["minute"]))

    def written(self, numbers: Sequence[float], row: Row) -> str:
        hour, minute = numbers
        return str(Time(round(min(max(hour, 1), 12)), round(min(max(minute, 0), 59))))

    def parse(self, text: str, row: Row) -> Time | ParseFailure:
        """Exactly `HH:MM`, whitespace around it allowed."""
        match = _STRICT.fullmatch(text.strip())
        if match is None:
            return ParseFailure("no HH:MM")
        hour, minute = int(match[1]), int(match[2])
        if not (1 <= hour <= 12 and minute <= 59):
            return ParseFailure(f"{match[0]} is no time of a 12-hour dial")
        return Time(hour, minute)

    def search(self, text: str, row: Row) -> Time | ParseFailure:
        """The first possible time anywhere; 24-hour times are taken modulo 12."""
        for hour, minute in times(text):
            return Time((hour - 1) % 12 + 1, minute)
        return ParseFailure("no time anywhere")

    def distance(self, first: Time, second: Time, row: Row) -> float:
        """Minutes the short way round the dial, 0..360."""
        return float(around(first, second))

    def score(self, prediction: Time | ParseFailure, row: Row) -> Scores:
        names = ("exact", "within_1", "deviation", "deviation_unwrapped", "hour", "minute", "minute_within_1")
        if isinstance(prediction, ParseFailure):
            return dict(zip(names, (0.0, 0.0, DIAL / 2, DIAL - 1.0, 0.0, 0.0, 0.0), strict=True))
        true = Time(row["hour"], row["minute"])
        apart, shortest = abs(prediction.minutes - true.minutes), around(prediction, true)
        minutes = abs(prediction.minute - true.minute)
        right = (
            *(apart == 0, shortest <= 1, shortest, apart, prediction.hour == true.hour),
            *(minutes == 0, min(minutes, 60 - minutes) <= 1),
        )
        return dict(zip(names, map(float, right), strict=True))


def around(first: Time, second: Time) -> int:
    """Minutes between two times the short way round the dial."""
    apart = abs(first.minutes - second.minutes)
    return min(apart, DIAL - apart)
