"""The training rows that a rehearsal of a packed run takes: those of the steps that have the most tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from ntil.components import Components
from ntil.config.schema import CurriculumConfig, RunConfig
from ntil.packing.balance import RowSizes, Size, cuts
from ntil.packing.groups import filled_tokens
from ntil.packing.rows import picture_numbers
from ntil.preflight import rank_count
from ntil.train.sampler import PictureSampler


@dataclass(frozen=True)
class StepRows:
    """Rows that fill packed steps.

    indices: of the rows. mean, taken: tokens a row, of all steps of a pass, and of those that are rehearsed: filling
    included, a picture once a sequence.
    """

    indices: list[int]
    mean: float
    taken: float


class PackedSteps:
    """Steps of a packed run, and how many tokens they have.

    Args:
        sizes: index of a row -> its size. pictures: [rows] number of each row's picture.
    """

    def __init__(self, config: RunConfig, sizes: Callable[[int], Size], pictures: np.ndarray) -> None:
        self.config, self.sizes, self.pictures = config, sizes, pictures
        self.pieces = rank_count(config.engine) * config.engine.accumulation

    def steps(self, rows: Sequence[int], steps: int) -> list[list[int]]:
        """The rows of every step, as the run's sampler gives them where `rows` are its split."""
        batch = self.config.optim.batch_size
        pictures = self.pictures[list(rows)]
        sampler = PictureSampler(len(rows), steps, batch, self.config.seed, CurriculumConfig(), pictures=pictures)
        order = [rows[place] for place in sampler]
        return [order[start : start + batch] for start in range(0, len(order), batch)]

    def tokens(self, step: Sequence[int]) -> int:
        """Tokens of a step's micro-batches, filling included."""
        packing = self.config.packing
        limit, several = packing.tokens, packing.mode == "tokens"
        return sum(filled_tokens(*self._of(part), limit, several) for part in self._micro_batches(step))

    def _micro_batches(self, step: Sequence[int]) -> Iterator[Sequence[int]]:
        rows = len(step) // self.pieces
        places = [(start, start + rows) for start in range(0, len(step), rows)]
        if self.config.packing.mode == "tokens":
            places = cuts(*self._of(step), self.pieces)
        return (step[start:end] for start, end in places)

    def _of(self, rows: Sequence[int]) -> tuple[list[Size], list[int]]:
        return [self.sizes(row) for row in rows], [int(self.pictures[row]) for row in rows]


def packed_rows(
    config: RunConfig, components: Components, rows: Dataset, refused: Sequence[int], steps: int
) -> StepRows | None:
    """Rows of the `steps` largest steps of the run's first pass; None where no rows are known to share a picture.

    A pass of fewer steps is gone through again. The rehearsal orders the rows anew, so its steps are about as large;
    their tokens are counted as it will draw them.

    Args:
        refused: indices of rows that the run doesn't use.
    """
    usable = np.setdiff1d(np.arange(len(rows)), np.asarray(refused, dtype=int)).tolist()
    pictures = picture_numbers(rows, components.task)
    if len(np.unique(pictures[usable])) == len(usable):
        return None
    packed = PackedSteps(config, RowSizes(rows, components.task, components.family), pictures)
    batch = config.optim.batch_size
    in_pass = packed.steps(usable, max(1, len(usable) // batch))
    tokens = [packed.tokens(step) for step in in_pass]
    largest = sorted(range(len(in_pass)), key=lambda number: -tokens[number])
    indices = [row for number in range(steps) for row in in_pass[largest[number % len(largest)]]]
    taken = [packed.tokens(step) for step in packed.steps(indices, steps)]
    return StepRows(indices, sum(tokens) / (batch * len(tokens)), sum(taken) / (batch * steps))
