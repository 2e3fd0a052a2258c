"""Micro-batches of about equally many tokens: the rows of a step in their order, cut where it balances."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler

from data.common.rows import undecoded
from ntil.models.base import Family
from tasks.base import Task

Size = tuple[int, int]  # tokens of a row's picture, and the others'


class RowSizes:
    """Tokens of the rows, counted without pixels when first asked for: of the picture, and all others."""

    def __init__(self, rows: Dataset, task: Task, family: Family) -> None:
        self._rows, self._task, self._family = undecoded(rows), task, family
        self._known: dict[int, Size] = {}

    def __call__(self, index: int) -> Size:
        if index not in self._known:
            self._known[index] = self._counted(index)
        return self._known[index]

    def _counted(self, index: int) -> Size:
        row, task, family = self._rows[index], self._task, self._family
        pictured = row.get("image") is not None
        text = family.encode_text(task.prompt(row), task.answer(row), pictured)
        length = len(text.prompt_ids) + len(text.answer_ids)
        if not pictured:
            return 0, length
        size = (1, 1) if family.any_size else task.picture_size(row)
        assert size is not None
        return family.picture_length(size), length - (family.image_token is not None)


class BalancedBatches(Sampler[list[int]]):
    """Micro-batches of every step of `batch` rows, which `pieces` ranks and rounds of accumulation take in turn.

    The rows and their order are the sampler's, so a step is the same however it is cut.

    Args:
        sizes: index of a row -> its size.
        pictures: number of each row's picture.
    """

    def __init__(
        self,
        sampler: Sampler[int],
        batch: int,
        pieces: int,
        sizes: Callable[[int], Size],
        pictures: Sequence[int] | np.ndarray,
    ) -> None:
        self.sampler, self.batch, self.pieces, self.sizes, self.pictures = sampler, batch, pieces, sizes, pictures

    def __len__(self) -> int:
        rows: int = len(self.sampler)  # type: ignore[arg-type]
        return rows // self.batch * self.pieces

    def __iter__(self) -> Iterator[list[int]]:
        rows = iter(self.sampler)
        while step := list(islice(rows, self.batch)):
            sizes = [self.sizes(row) for row in step]
            for first, end in cuts(sizes, [int(self.pictures[row]) for row in step], self.pieces):
                yield step[first:end]


def cuts(sizes: Sequence[Size], pictures: Sequence[int], pieces: int) -> list[tuple[int, int]]:
    """Cut rows into `pieces` parts, none empty, of which the largest has as few tokens as can be.

    A picture counts once in a part.

    Returns:
        First row of each part, and the one after its last.
    """
    low, high = 1, sum(picture + others for picture, others in sizes)
    while low < high:
        middle = (low + high) // 2
        if len(_within(sizes, pictures, middle, pieces)) <= pieces:
            high = middle
        else:
            low = middle + 1
    starts = _within(sizes, pictures, low, pieces)
    return list(zip(starts, [*starts[1:], len(sizes)], strict=True))


def _within(sizes: Sequence[Size], pictures: Sequence[int], limit: int, pieces: int) -> list[int]:
    """Starts of parts of at most `limit` tokens, as few as can be but at least `pieces`; a row may be longer."""
    starts: list[int] = []
    tokens, seen = 0, set[int]()
    for row, ((picture, others), number) in enumerate(zip(sizes, pictures, strict=True)):
        added = others + (0 if number in seen else picture)
        if not starts or tokens + added > limit or len(sizes) - row <= pieces - len(starts):
            starts.append(row)
            tokens, seen, added = 0, set(), others + picture
        tokens += added
        seen.add(number)
    return starts
