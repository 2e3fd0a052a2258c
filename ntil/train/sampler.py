"""The order of the training rows: a function of seed, curriculum and packing, the same for every loss and rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from ntil.config.errors import ConfigError
from ntil.config.schema import CurriculumConfig


class CurriculumSampler(Sampler[int]):
    """Sampler of `steps * batch` row indices as one epoch, so that a resumed run skips to its place by counting.

    In each stage the rows allowed by the curriculum are passed over repeatedly, shuffled before every pass.

    Args:
        rows: how many rows there are.
        steps, batch: optimizer steps, and rows per step over all ranks and accumulation.
        curriculum: which rows may be drawn when.
        levels: [rows] the curriculum's column; needed when there are stages.

    Raises:
        ConfigError: a stage that allows no row, or stages without levels.
    """

    def __init__(
        self,
        rows: int,
        steps: int,
        batch: int,
        seed: int,
        curriculum: CurriculumConfig,
        levels: Sequence[int] | None = None,
    ) -> None:
        if rows < 1:
            raise ConfigError("the train split is empty")
        self.steps, self.batch, self.seed = steps, batch, seed
        self.parts: list[tuple[int, np.ndarray]] = []
        done = 0
        for stage in curriculum.stages:
            if levels is None:
                raise ConfigError(
                    f"curriculum.column {curriculum.column!r} is no column of the task's rows; set curriculum=none"
                )
            pool = np.nonzero(np.asarray(levels) <= stage.max)[0]
            if not len(pool):
                raise ConfigError(f"curriculum: no row has {curriculum.column} <= {stage.max}")
            end = min(steps, round(stage.until * steps))
            if end > done:
                self.parts.append((end - done, pool))
                done = end
        if done < steps:
            self.parts.append((steps - done, np.arange(rows)))

    def __len__(self) -> int:
        return self.steps * self.batch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        for steps, pool in self.parts:
            left = steps * self.batch
            while left > 0:
                order = self.shuffled(pool, generator)[:left]
                yield from order.tolist()
                left -= len(order)

    def shuffled(self, pool: np.ndarray, generator: torch.Generator) -> np.ndarray:
        """The rows of one pass in their order."""
        return pool[torch.randperm(len(pool), generator=generator).numpy()]


class PictureSampler(CurriculumSampler):
    """`CurriculumSampler` whose passes are over shuffled pictures: the rows of a picture, shuffled, follow each other.

    A picture whose rows are not all in the last place of a step goes on in the next step.

    Args:
        pictures: [rows] number of each row's picture.
    """

    def __init__(self, *args: Any, pictures: np.ndarray, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.pictures = pictures

    def shuffled(self, pool: np.ndarray, generator: torch.Generator) -> np.ndarray:
        return by_picture(super().shuffled(pool, generator), self.pictures, generator)


def by_picture(rows: np.ndarray, pictures: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The rows with those of a picture behind each other, the pictures in a random order."""
    _, numbers = np.unique(pictures[rows], return_inverse=True)
    places = torch.randperm(int(numbers.max()) + 1, generator=generator).numpy()
    return rows[np.argsort(places[numbers], kind="stable")]
