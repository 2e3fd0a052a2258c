"""Settings of a search's trials: random, and the same draws for every loss."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

import numpy as np

from experiments.benchmark.protocol import Range


def draws(search: dict[str, Range], keys: Iterable[str], trials: int, seed: int) -> list[dict[str, float]]:
    """Values of each trial, the first of which is empty: the defaults.

    A key's values depend on seed, key and trial alone, so that two losses are tried at the same learning rates whatever
    other keys they have, and more trials go on where fewer end. Random search: Bergstra and Bengio, JMLR 13, 2012.

    Args:
        keys: of `search` that are drawn.
    """
    columns = {key: _column(search[key], trials - 1, seed, key) for key in keys}
    return [{}, *({key: column[i] for key, column in columns.items()} for i in range(trials - 1))]


def _column(values: Range, count: int, seed: int, key: str) -> list[float]:
    shares = np.random.default_rng([seed, zlib.crc32(key.encode())]).random(count)
    return [float(f"{_at(values, share):.4g}") for share in shares.tolist()]


def _at(values: Range, share: float) -> float:
    if not values.log:
        return values.low + share * (values.high - values.low)
    return math.exp(math.log(values.low) + share * (math.log(values.high) - math.log(values.low)))
