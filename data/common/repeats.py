"""Rows that stand several times in a training split: all of them alike, or each by its weight.

A row of weight w stands w times. What a fraction lacks to a repetition is carried to the rows that follow, so that of
any stretch of rows the count is that of its weights within one, and nothing is drawn at random.
"""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from datasets import Dataset

from data.common.errors import InvalidOption

WEIGHT = "weight"
MOST = 1000  # times that a row may stand in a split
MOST_ROWS = 1 << 31


def check_repeat(repeat: int | None) -> None:
    """Check the option `repeat` of a source.

    Raises:
        InvalidOption: it isn't from 1 to `MOST`.
    """
    if repeat is not None and not 1 <= repeat <= MOST:
        raise InvalidOption(f"task.source.repeat must lie in 1..{MOST} (null: once), got {repeat}")


def repeated(rows: Dataset, repeat: int | None) -> Dataset:
    """The rows, each as often as `repeat` and its column `weight` say; that column is left out.

    Raises:
        InvalidOption: nothing is left, or more than can be counted.
    """
    if WEIGHT not in rows.column_names:
        return rows if repeat in (None, 1) else rows.select(np.tile(np.arange(len(rows)), repeat))
    weights = [weight * (repeat or 1) for weight in rows[WEIGHT]]
    if sum(weights) > MOST_ROWS:
        problem = f"the weights add up to {sum(weights):.4g} rows, more than {MOST_ROWS:,}"
        raise InvalidOption(f"task.source.columns.weight: {problem}; divide them")
    ends = [int(total + 1e-9) for total in accumulate(weights)]
    if not ends[-1]:
        raise InvalidOption(f"task.source.columns.weight: the weights of {len(rows)} rows add up to less than one row")
    counts = np.diff(ends, prepend=0)
    return rows.remove_columns(WEIGHT).select(np.repeat(np.arange(len(rows)), counts))
