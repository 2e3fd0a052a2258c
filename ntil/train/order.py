"""The sampler of a run: of one task or of a mixture, by rows or by pictures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler

from data.common.counts import counted
from ntil.config.schema import RunConfig
from ntil.console import epochs
from ntil.train.mixture_sampler import MixtureSampler, TaskRows
from ntil.train.sampler import CurriculumSampler, PictureSampler
from tasks.base import Task


def training_order(
    config: RunConfig, task: Task, rows: Dataset, steps: int, pictures: np.ndarray | None = None
) -> Sampler[int]:
    """The order of a training's rows.

    Args:
        pictures: [rows] number of each row's picture where the rows of one are to follow each other.

    Raises:
        ConfigError: a curriculum that doesn't fit the rows, or no row.
    """
    batch, seed, curriculum = config.optim.batch_size, config.seed, config.curriculum
    if task.members:
        return MixtureSampler(
            task_rows(task, rows, curriculum.column), steps, batch, seed, curriculum, pictures=pictures
        )
    levels = rows[curriculum.column][:] if curriculum.column in rows.column_names else None
    drawn = (len(rows), steps, batch, seed, curriculum, levels)
    return CurriculumSampler(*drawn) if pictures is None else PictureSampler(*drawn, pictures=pictures)


def task_rows(task: Task, rows: Dataset, column: str) -> Mapping[str, TaskRows]:
    """The rows of every task of a mixture that has any, with its share and the curriculum's column."""
    parts = task.by_member(rows)
    shares = task.shares({name: len(part) for name, part in parts.items()})
    names = np.array([task.member_of({"id": row_id}) for row_id in rows["id"]])
    return {
        name: TaskRows(
            np.nonzero(names == name)[0],
            shares[name],
            np.array(part[column][:]) if column in part.column_names else None,
        )
        for name, part in parts.items()
    }


def mixture_lines(task: Task, rows: Dataset, drawn: int) -> list[str]:
    """A line for each task of a mixture: its rows, its share of those drawn, and how often it is passed over."""
    counts = {name: len(part) for name, part in task.by_member(rows).items() if name}
    shares = task.shares(counts)
    return [
        f"{name}: {counted(count, 'row', form=',')}, {shares[name]:.1%} of those drawn "
        f"({epochs(shares[name] * drawn / count)})"
        for name, count in counts.items()
    ]
