"""One number as an answer: strict and lenient reading, and the metrics of numbers that every such task shares.

With the truth y and the reading x, per example (the summary is the mean):

* `exact`: x = y as values, so `4.0` is 4. The headline.
* `relative_error`: |x - y| / |y|, at most 1; where y = 0 it is 0 or 1.
* `log_error`: |s(x) - s(y)| with s(v) = sign(v) * log10(1 + |v|), at most `LOG_WORST`: orders of magnitude off.
* `mae`: |x - y|, at most 10 * max(|y|, 1), so that one answer of 20 digits doesn't hide all others.

and over all examples:

* `pearson`, `spearman`: correlation of x and y (scipy). 0 where all x or all y are the same, which shows no relation.

An answer that can't be read counts as the worst of each: exact 0, relative_error 1, log_error `LOG_WORST`, mae at its
bound; in the correlations it is read as -y, so that failures alone give -1. It is counted in `parse_failure_rate`.

Ranks need all values at once, so the pairs (x, y) of an evaluation are kept in a flat array of doubles: 16 bytes a row
and reading, 3.2 MB for 100,000 rows and as much again for their groups. Everything else is a sum. Pearson comes from
that array too: sums of squares would lose digits where numbers are large.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
from scipy import stats

from tasks.base import ParseFailure, Row, Scores, Task

LONGEST = 40  # digits of a number, before and after the point together
LOG_WORST = 10.0
_STRICT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
# A minus after a digit, a letter or a bracket is a subtraction. Commas only where they part thousands.
_LOOSE = re.compile(
    r"(?:(?<![\w.)\]])-)?[$€£]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)?(?:(?<=[0-9])\.[0-9]+|(?<![0-9.])\.[0-9]+)?"
    r"(?:(?<=[0-9])[eE][+-]?[0-9]{1,3}(?![0-9]))?"
)


def read_strict(text: str) -> Decimal | ParseFailure:
    """Exactly one plain number: `-12`, `0.5`, `4.0`; no `+`, exponent, thousands mark, leading zero or bare point.

    Blanks around it are allowed.
    """
    text = text.strip()
    return _number(text) if _STRICT.fullmatch(text) else ParseFailure("no plain number")


def read_lenient(text: str) -> Decimal | ParseFailure:
    """The last number anywhere, with thousands commas, a currency sign or an exponent."""
    found = numbers(text)
    return _number(found[-1]) if found else ParseFailure("no number anywhere")


def numbers(text: str) -> list[str]:
    """All numbers in a text as plain `[-]digits[.digits][e..]`, in order."""
    text = text.replace("\N{MINUS SIGN}", "-")
    found = (match.group() for match in _LOOSE.finditer(text))
    return [re.sub(r"[,$€£]", "", number) for number in found if any(c in "0123456789" for c in number)]


def number_scores(reading: Decimal | ParseFailure, truth: Decimal) -> Scores:
    """The per-example scores of the module's docstring."""
    y = float(truth)
    bound = 10 * max(abs(y), 1.0)
    if isinstance(reading, ParseFailure):
        return {"exact": 0.0, "relative_error": 1.0, "log_error": LOG_WORST, "mae": bound}
    x = float(reading)
    apart = float(abs(reading - truth))
    relative = min(apart / abs(y), 1.0) if y else float(apart > 0)
    return {
        "exact": float(reading == truth),
        "relative_error": relative,
        "log_error": min(abs(_signed_log(x) - _signed_log(y)), LOG_WORST),
        "mae": min(apart, bound),
    }


class Pairs:
    """Readings and truths, two doubles a row. Adds like a number, so that tallies of several ranks can be joined."""

    def __init__(self, values: array[float] | None = None) -> None:
        self.values = values if values is not None else array("d")

    def append(self, reading: float | None, truth: float) -> None:
        self.values.extend((-truth if reading is None else reading, truth))

    def __add__(self, other: Pairs | float) -> Pairs:
        return Pairs(self.values + other.values) if isinstance(other, Pairs) else self

    __radd__ = __add__

    def correlations(self) -> Scores:
        """Pearson's r and Spearman's rho with mean ranks for ties; 0 where one side is constant or has one row."""
        read, true = np.frombuffer(self.values, dtype=np.float64).reshape(-1, 2).T if self.values else np.empty((2, 0))
        if len(read) < 2 or np.ptp(read) == 0 or np.ptp(true) == 0:
            return {"pearson": 0.0, "spearman": 0.0}
        pearson, spearman = stats.pearsonr(read, true).statistic, stats.spearmanr(read, true).statistic
        return {"pearson": float(pearson), "spearman": float(spearman)}


class NumberTask(Task):
    """A task whose answer is one number; metrics as in the module's docstring."""

    metric = "exact"

    @abstractmethod
    def truth(self, row: Row) -> Decimal:
        """The right number."""

    def parse(self, text: str, row: Row) -> Decimal | ParseFailure:
        return read_strict(text)

    def parse_lenient(self, text: str, row: Row) -> Decimal | ParseFailure:
        return read_lenient(text)

    def score(self, prediction: Decimal | ParseFailure, row: Row) -> Scores:
        return number_scores(prediction, self.truth(row))

    def record(self, text: str, row: Row) -> Row:
        strict, lenient = self.parse(text, row), self.parse_lenient(text, row)
        return {
            **super().record(text, row),
            "truth": float(self.truth(row)),
            "read": None if isinstance(strict, ParseFailure) else float(strict),
            "lenient_read": None if isinstance(lenient, ParseFailure) else float(lenient),
        }

    def tally(self, records: Iterable[Row]) -> dict[str, Any]:
        pairs: dict[str, Pairs] = {}

        def noted() -> Iterator[Row]:
            for record in records:
                for group in ("", *(f"{name}/" for name in record.get("groups", ()))):
                    pairs.setdefault(f"{group}pairs", Pairs()).append(record["read"], record["truth"])
                    lenient = pairs.setdefault(f"{group}lenient_pairs", Pairs())
                    lenient.append(record["lenient_read"], record["truth"])
                yield record

        return {**super().tally(noted()), **pairs}

    def finish(self, sums: dict[str, Any]) -> dict[str, float]:
        metrics = super().finish({key: value for key, value in sums.items() if not isinstance(value, Pairs)})
        for key, value in sums.items():
            if isinstance(value, Pairs):
                metrics |= {f"{key.removesuffix('pairs')}{name}": r for name, r in value.correlations().items()}
        return metrics


def _number(text: str) -> Decimal | ParseFailure:
    if sum(c.isdigit() for c in text) > LONGEST:
        return ParseFailure(f"a number of more than {LONGEST} digits")
    value = Decimal(text)
    return value if value == 0 or abs(value.adjusted()) <= LONGEST else ParseFailure("a number out of range")


def _signed_log(value: float) -> float:
    return math.copysign(math.log10(1 + abs(value)), value)
