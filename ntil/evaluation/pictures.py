"""What tells the pictures of records apart: statistics have to know that examples of one picture aren't independent."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate

from data.common.rows import Row, undecoded
from ntil.evaluation.sets import EvaluationSet


def with_pictures(records: Iterable[tuple[int, Row]], sets: Sequence[EvaluationSet]) -> Iterator[tuple[int, Row]]:
    """Yield the records, numbered as `predict_sets` does, with `picture`, equal for rows of one picture.

    Records of rows without a picture, or of one of which nothing is known, have none.
    """
    stored = [undecoded(one.rows) for one in sets]
    starts = [0, *accumulate(map(len, stored))]
    for index, record in records:
        number = bisect.bisect_right(starts, index) - 1
        key = sets[number].components.task.picture_key(stored[number][index - starts[number]])
        yield index, record if key is None else {**record, "picture": digest(key)}


def digest(key: str) -> str:
    """16 hexadecimal digits of a picture's key, which may be a path of this machine."""
    return hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
