"""Rows that are scored together: those of a split, or of a mixture those of each of its tasks.

Answers of one task have one limit and one way to be read, so a mixture is evaluated task by task. Its records name
their task and lie in one file; its metrics are those of `tasks.mixture`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from data.common.rows import Row
from ntil.components import Components
from ntil.config.schema import EvaluationConfig, RunConfig
from ntil.distributed.ranks import Ranks
from ntil.evaluation.batch_size import evaluation_batch_size
from ntil.evaluation.generate import Metrics, predict_shard, teacher_forced
from ntil.models.head import SupervisedHead
from tasks.base import Task


@dataclass(frozen=True)
class EvaluationSet:
    """Rows of one task.

    Attributes:
        name: of the task in its mixture; empty for a single task.
        components: of that task.
        longest: tokens after which an answer is cut; None: the task's.
    """

    name: str
    components: Components
    rows: Dataset
    longest: int | None = None

    @property
    def prefix(self) -> str:
        """What the names of its metrics begin with."""
        return f"{self.name}/" if self.name else ""


def evaluation_sets(components: Components, rows: Dataset, cut: bool = False) -> list[EvaluationSet]:
    """The sets of a split's rows.

    Args:
        cut: cut answers after the longest true one of the set. A model that rambles would have all rows and ranks wait
            for it, and what follows a longer answer is wrong anyway.
    """
    members = components.members
    return [
        EvaluationSet(name, members[name], part, members[name].longest_answer(part) if cut else None)
        for name, part in components.task.by_member(rows).items()
    ]


def first_rows(task: Task, rows: Dataset, most: int) -> Dataset:
    """The first rows of a split, of a mixture those of every task."""
    parts = task.by_member(rows)
    return task.mixed({name: part.select(range(min(len(part), most))) for name, part in parts.items()})


def batch_sizes(config: RunConfig, model: Any, sets: Sequence[EvaluationSet], ranks: Ranks) -> list[int]:
    """Rows of each set that generate at once on a rank."""
    return [evaluation_batch_size(config, model, one.components.collator, one.rows, ranks) for one in sets]


def predict_sets(
    model: Any,
    sets: Sequence[EvaluationSet],
    sizes: Sequence[int],
    ranks: Ranks,
    title: str | None = None,
    check: Callable[[], None] = lambda: None,
    evaluation: EvaluationConfig | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yield the records of this rank, see `predict_shard`; those of the second set are numbered after the first's.

    Args:
        evaluation: its generation, decodings and sharing of prompts; None: greedy answers alone, row by row.
    """
    how: dict[str, Any] = {"share_prompts": evaluation.share_prompts if evaluation else False, "evaluation": evaluation}
    before = 0
    for one, size in zip(sets, sizes, strict=True):
        of_set = f"{title}, {one.name}" if title and one.name else title
        collator = one.components.collator
        shard = predict_shard(model, collator, one.rows, size, ranks, of_set, check, one.longest, **how)
        for index, record in shard:
            yield before + index, {"task": one.name, **record} if one.name else record
        before += len(one.rows)


def teacher_forced_sets(
    head: SupervisedHead, model: Any, sets: Sequence[EvaluationSet], sizes: Sequence[int], ranks: Ranks
) -> tuple[Metrics, dict[str, dict[str, Any]]]:
    """Teacher-forced metrics of every set by `<task>/<metric>`, and the digit tables behind them by task."""
    metrics: Metrics = {}
    tables: dict[str, dict[str, Any]] = {}
    for one, size in zip(sets, sizes, strict=True):
        means, tables[one.name] = teacher_forced(head, model, one.components.collator, one.rows, size, ranks)
        metrics |= {one.prefix + name: value for name, value in means.items()}
    return metrics, tables
