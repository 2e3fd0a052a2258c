"""Batches of rows and how ranks share them, so that all ranks have the same number of rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from ntil.distributed.ranks import Ranks

Batch = TypeVar("Batch")


def rounds(rows: int, batch_size: int, ranks: Ranks) -> Iterator[tuple[range, bool]]:
    """Yield this rank's batches of consecutive rows, each with whether it is a spare, see `shared_out`."""
    size = limited(batch_size, rows, ranks)
    return shared_out([range(start, min(start + size, rows)) for start in range(0, rows, size)], ranks)


def limited(batch_size: int, rows: int, ranks: Ranks) -> int:
    """Rows of a batch: those of a single rank, unless it would have fewer batches than there are ranks."""
    return max(1, min(batch_size, -(-rows // ranks.count)))


def shared_out(batches: Sequence[Batch], ranks: Ranks) -> Iterator[tuple[Batch, bool]]:
    """Yield this rank's batches, assigned round-robin, each with whether it is a spare.

    Where the last round has fewer batches than ranks, the other ranks get its last batch as a spare. A spare is
    computed only if all ranks must run a forward together (ZeRO-3), and its answers are dropped.
    """
    for first in range(0, len(batches), ranks.count):
        mine = first + ranks.index
        yield batches[min(mine, len(batches) - 1)], mine >= len(batches)
