"""Validation during training: scores and teacher-forced figures of every split and task, and the best of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from data.common.files import write_text
from ntil.components import Components
from ntil.config.schema import EvaluationConfig, RunConfig
from ntil.distributed.ranks import Ranks
from ntil.evaluation.sets import EvaluationSet, batch_sizes, evaluation_sets, predict_sets, teacher_forced_sets
from ntil.runs.folder import RunFolder
from ntil.train.phases import phase
from ntil.train.trainer import NumberTrainer
from tasks.base import Task

BEST = "best/"


@dataclass(frozen=True)
class Validation:
    """Scores and teacher-forced figures on the validation rows, with the model as it is when this is called.

    splits: their sets. The metrics of the first have plain names, those of others `<split>/<metric>`. With several
    splits or tasks the best headline metric of each so far follows as `best/<split>/<task>/<metric>`; the best and
    their steps are in `best_validations.json`.
    """

    folder: RunFolder
    config: RunConfig
    components: Components
    ranks: Ranks
    splits: dict[str, list[EvaluationSet]]

    @classmethod
    def of(
        cls,
        folder: RunFolder,
        config: RunConfig,
        components: Components,
        rows: Mapping[str, Dataset],
        ranks: Ranks,
    ) -> Validation:
        splits = {split: evaluation_sets(components, part, cut=True) for split, part in rows.items()}
        return cls(folder, config, components, ranks, splits)

    @phase("validation")
    def __call__(self, trainer: NumberTrainer) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for number, (split, sets) in enumerate(self.splits.items()):
            start = f"{split}/" if number else ""
            metrics |= {start + name: value for name, value in self._scores(trainer, sets).items()}
        headlines = headline_names(self.components.task, list(self.splits))
        if len(headlines) == 1:
            return metrics
        return {**metrics, **self._best(trainer.state.global_step, metrics, headlines)}

    def _scores(self, trainer: NumberTrainer, sets: list[EvaluationSet]) -> dict[str, float]:
        model, ranks = trainer.inner_model, self.ranks
        sizes = batch_sizes(self.config, model, sets, ranks)
        greedy = EvaluationConfig(share_prompts=self.config.evaluation.share_prompts)
        shard = list(predict_sets(model, sets, sizes, ranks, evaluation=greedy))
        in_order = sorted((pair for part in ranks.gather(shard) for pair in part), key=lambda pair: pair[0])
        scores = self.components.task.summarize(record for _, record in in_order)
        return {**scores, **teacher_forced_sets(trainer.head, model, sets, sizes, ranks)[0]}

    def _best(self, step: int, metrics: Mapping[str, float], headlines: Mapping[str, bool]) -> dict[str, float]:
        """The best of each headline metric so far, this step's included; written by rank 0."""
        best = best_values([*self.folder.read_history(), _record(step, metrics)], headlines)
        if self.ranks.first:
            write_text(self.folder.best_validations, json.dumps(best, indent=1))
        return {f"{BEST}{name}": one["value"] for name, one in best.items()}


def headline_names(task: Task, splits: list[str]) -> dict[str, bool]:
    """Names of the headline metrics of every split and task -> whether greater is better; a mixture's mean first."""
    of_split = {task.metric: task.greater_is_better}
    of_split |= {f"{name}/{one.metric}": one.greater_is_better for name, one in task.members.items()}
    starts = ["", *(f"{split}/" for split in splits[1:])]
    return {start + name: greater for start in starts for name, greater in of_split.items()}


def best_values(history: list[dict[str, Any]], headlines: Mapping[str, bool]) -> dict[str, dict[str, Any]]:
    """Metric -> its best `value` in the records of a history and the first `step` that had it.

    Args:
        headlines: metric -> whether greater is better.
    """
    best: dict[str, dict[str, Any]] = {}
    for name, greater in headlines.items():
        values = [(record[f"eval_{name}"], record["step"]) for record in history if f"eval_{name}" in record]
        if values:
            choose = max if greater else min
            value, step = choose(values, key=lambda pair: pair[0])
            best[name] = {"value": value, "step": step}
    return best


def _record(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {"step": step, **{f"eval_{name}": value for name, value in metrics.items()}}
