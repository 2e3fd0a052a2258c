"""The order of the training rows of a mixture: how many rows of each task a step has, and which."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Sampler

from ntil.config.errors import ConfigError
from ntil.config.schema import CurriculumConfig
from ntil.train.sampler import by_picture


@dataclass(frozen=True)
class TaskRows:
    """Training rows of one task of a mixture.

    Attributes:
        rows: their indices in the mixture.
        share: of the rows that are drawn; those of all tasks add up to 1.
        levels: the curriculum's column, None where the task has none: then it may draw all rows at all times.
    """

    rows: np.ndarray
    share: float
    levels: np.ndarray | None = None


class MixtureSampler(Sampler[int]):
    """Sampler of `steps * batch` row indices as one epoch, so that a resumed run skips to its place by counting.

    After each step the rows drawn of a task are its share of all rows drawn, to within about one row (`next_counts`).
    The rows of a task are passed over repeatedly, shuffled before each pass by a generator of the task's own, so that
    they come in the same order whatever the other tasks' rows are. Within a step the tasks are shuffled together.

    Args:
        tasks: by name.
        steps, batch: optimizer steps, and rows per step over all ranks and accumulation.
        curriculum: which rows may be drawn when, of the tasks with its column.
        pictures: [rows] number of each row's picture: the rows of a picture follow each other, and those of a task too.

    Raises:
        ConfigError: a stage that allows no row of a task, or a column that no task has.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskRows],
        steps: int,
        batch: int,
        seed: int,
        curriculum: CurriculumConfig,
        pictures: np.ndarray | None = None,
    ) -> None:
        self.tasks, self.steps, self.batch, self.seed, self.pictures = tasks, steps, batch, seed, pictures
        if curriculum.stages and all(one.levels is None for one in tasks.values()):
            raise ConfigError(
                f"curriculum.column {curriculum.column!r} is no column of any task's rows; set curriculum=none"
            )
        self.stages: list[tuple[int, list[np.ndarray]]] = []
        done = 0
        for stage in curriculum.stages:
            end = min(steps, round(stage.until * steps))
            if end > done:
                pools = [_allowed(name, one, curriculum.column, stage.max) for name, one in tasks.items()]
                self.stages.append((end - done, pools))
                done = end
        if done < steps:
            self.stages.append((steps - done, [one.rows for one in tasks.values()]))

    def __len__(self) -> int:
        return self.steps * self.batch

    def __iter__(self) -> Iterator[int]:
        shares = np.array([one.share for one in self.tasks.values()])
        drawn = np.zeros(len(shares), dtype=np.int64)
        within = _generator(self.seed, 0)
        generators = [_generator(self.seed, number) for number in range(1, len(shares) + 1)]
        for steps, pools in self.stages:
            passes = [_Passes(*one, self.pictures) for one in zip(pools, generators, strict=True)]
            for _ in range(steps):
                counts = next_counts(drawn, shares, self.batch)
                drawn += counts
                rows = np.concatenate([one.take(int(count)) for one, count in zip(passes, counts, strict=True)])
                if self.pictures is None:
                    rows = rows[torch.randperm(len(rows), generator=within).numpy()]
                yield from rows.tolist()


class _Passes:
    """Endless passes over a task's rows, each in a new order."""

    def __init__(self, pool: np.ndarray, generator: torch.Generator, pictures: np.ndarray | None) -> None:
        self.pool, self.generator, self.pictures = pool, generator, pictures
        self.left = pool[:0]

    def take(self, count: int) -> np.ndarray:
        """The next rows."""
        while len(self.left) < count:
            rows = self.pool[torch.randperm(len(self.pool), generator=self.generator).numpy()]
            rows = rows if self.pictures is None else by_picture(rows, self.pictures, self.generator)
            self.left = np.concatenate([self.left, rows])
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def next_counts(drawn: np.ndarray, shares: np.ndarray, batch: int) -> np.ndarray:
    """Rows of each task in the next step, which bring what was drawn nearest to the shares (largest remainders).

    Args:
        drawn: [tasks] rows so far. shares: [tasks], adding up to 1. batch: rows of the step.
    """
    due = np.maximum((drawn.sum() + batch) * shares - drawn, 0)
    counts = np.floor(due).astype(np.int64)
    for _ in range(batch - counts.sum()):
        counts[np.argmax(due - counts)] += 1
    for _ in range(counts.sum() - batch):
        counts[np.argmin(np.where(counts > 0, due - counts, np.inf))] -= 1
    return counts


def _allowed(name: str, task: TaskRows, column: str, highest: int) -> np.ndarray:
    if task.levels is None:
        return task.rows
    pool = task.rows[task.levels <= highest]
    if not len(pool):
        raise ConfigError(f"curriculum: no row of {name} has {column} <= {highest}")
    return pool


def _generator(seed: int, number: int) -> torch.Generator:
    state = np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
