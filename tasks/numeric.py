"""One number as an answer: strict and lenient reading, and the metrics of numbers that every such task shares.

With the truth y and the reading x, per example (the summary is the mean):

* `exact`: x = y as values, so `4.0` is 4. The headline.
* `relative_error`: |x - y| / |y|, at most 1; where y = 0 it is 0 or 1.
* `log_error`: |s(x) - s(y)| with s(v) = sign(v) * log10(1 + |v|), at most `LOG_WORST`: orders of magnitude off.
* `mae`: |x - y|, at most 10 * max(|y|, 1), so that one answer of 20 digits doesn't dominate the mean.

and over all examples:

* `pearson`, `spearman`: correlation of x and y. 0 where all x or all y are the same, which shows no relation.

An answer that can't be read counts as the worst of each: exact 0, relative_error 1, log_error `LOG_WORST`, mae at its
bound; in the correlations it is read as -y, so that failures alone give -1. It is counted in `parse_failure_rate`.

Everything but `spearman` is made from sums over examples (`sum_scores`, `metrics_from_sums`). Ranks need all values at
once, so `summarize` also keeps the pairs (x, y) in a flat array of doubles: 16 bytes a row and reading, 3.2 MB for
100,000 rows and as much again for their groups.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
from scipy import stats

from tasks.answers.numbers import read_lenient, read_strict
from tasks.base import ParseFailure, Row, Scores, Task

LOG_WORST = 10.0
MOMENTS = ("sum_x", "sum_y", "sum_xx", "sum_yy", "sum_xy")


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


class NumberTask(Task):
    """A task whose answer is one number; metrics as in the module's docstring."""

    metric = "exact"
    # 2: the lenient reading takes quantities with all that belongs to them
    # 3: it takes Arabic digits
    protocol = 3

    @abstractmethod
    def truth(self, row: Row) -> Decimal:
        """The right number."""

    def parse(self, text: str, row: Row) -> Decimal | ParseFailure:
        return read_strict(text)

    def search(self, text: str, row: Row) -> Decimal | ParseFailure:
        return read_lenient(text)

    def groups_thousands(self, row: Row) -> bool:
        return True

    def distance(self, first: Decimal, second: Decimal, row: Row) -> float:
        """|x - y| over the larger of both magnitudes, at most 1; so no absurd number outweighs the others."""
        largest = max(abs(first), abs(second))
        return min(float(abs(first - second) / largest), 1.0) if largest else 0.0

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

    def summarize(self, records: Iterable[Row]) -> dict[str, float]:
        pairs: dict[str, array[float]] = {}

        def noted() -> Iterator[Row]:
            for record in records:
                for name, x, y in _readings(record):
                    pairs.setdefault(name, array("d")).extend((x, y))
                yield record

        metrics = super().summarize(noted())
        for name, values in pairs.items():
            # From the pairs and not from sums, which large values of a small spread cancel in.
            metrics[f"{name}pearson"] = correlation(values, stats.pearsonr)
            metrics[f"{name}spearman"] = correlation(values, stats.spearmanr)
        return metrics

    def sum_scores(self, records: Iterable[Row]) -> dict[str, float]:
        moments: dict[str, float] = {}

        def noted() -> Iterator[Row]:
            for record in records:
                for name, x, y in _readings(record):
                    for moment, value in zip(MOMENTS, (x, y, x * x, y * y, x * y), strict=True):
                        moments[name + moment] = moments.get(name + moment, 0.0) + value
                yield record

        return {**super().sum_scores(noted()), **moments}

    def metrics_from_sums(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = super().metrics_from_sums({key: value for key, value in sums.items() if not key.endswith(MOMENTS)})
        for key in sums:
            if key.endswith(MOMENTS[0]):
                name = key.removesuffix(MOMENTS[0])
                group, slash, _ = name.rpartition("/")
                count = sums[f"{group}{slash}examples"]
                metrics[f"{name}pearson"] = pearson(count, *(sums[name + moment] for moment in MOMENTS))
        return metrics


def pearson(n: float, x: float, y: float, xx: float, yy: float, xy: float) -> float:
    """Pearson's r of n pairs from their sums; 0 where one side is constant (to the precision of the sums)."""
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    if n < 2 or spread_x <= 1e-12 * n * xx or spread_y <= 1e-12 * n * yy:
        return 0.0
    return max(-1.0, min(1.0, (n * xy - x * y) / (math.sqrt(spread_x) * math.sqrt(spread_y))))


def correlation(pairs: array[float], of: Callable[[Any, Any], Any]) -> float:
    """A correlation of x, y, x, y, ... by scipy (`spearmanr` has mean ranks for ties); 0 where one side is constant."""
    read, true = np.frombuffer(pairs, dtype=np.float64).reshape(-1, 2).T
    if len(read) < 2 or np.ptp(read) == 0 or np.ptp(true) == 0:
        return 0.0
    return float(of(read, true).statistic)


def _readings(record: Row) -> Iterator[tuple[str, float, float]]:
    """Prefix of the metrics' names, reading and truth; a failure is read as the mirrored truth."""
    for group in ("", *(f"{name}/" for name in record.get("groups", ()))):
        for prefix, read in (("", record["read"]), ("lenient_", record["lenient_read"])):
            yield group + prefix, -record["truth"] if read is None else read, record["truth"]


def _signed_log(value: float) -> float:
    return math.copysign(math.log10(1 + abs(value)), value)
