"""Cells of runs that may be compared, and the check that runs are comparable."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data.common.rows import Row
from experiments.significance import ScoreSums
from ntil.config.errors import ConfigError
from ntil.config.identity import identity
from ntil.runs.folder import read_json
from ntil.runs.inputs import CHECKPOINT, weights_of
from ntil.runs.run import Run
from tasks.base import Task

ABSENT = "(absent)"


@dataclass(frozen=True)
class Cell:
    """Runs that may be compared: one task and one model under several losses and seeds.

    split: losses that have several settings, and so names with these settings in `losses`.
    """

    task: str
    model: str
    runs: tuple[Run, ...]
    split: frozenset[str] = frozenset()

    @property
    def losses(self) -> list[str]:
        """Names of the losses: none (untrained), cross-entropy, then the others in the order of their first runs."""
        names = {run.loss: run.trains for run in reversed(self.runs)}
        order = list(dict.fromkeys(run.loss for run in self.runs))
        return sorted(names, key=lambda name: (names[name], name != "ce", order.index(name)))

    @property
    def untrained(self) -> set[str]:
        """Names of losses that train nothing, so that a single seed tells all."""
        return {run.loss for run in self.runs if not run.trains}

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    def of(self, loss: str) -> dict[int, Run]:
        """Map a seed to the finished run of a loss."""
        return {run.seed: run for run in self.runs if run.loss == loss and run.done}

    def pairs(self, one: str, other: str) -> list[tuple[Run, Run]]:
        """Finished runs of two losses, of the same seeds; an untrained one stands beside every seed."""
        ours, theirs = self.of(one), self.of(other)
        if one in self.untrained and ours:
            return [(ours[min(ours)], theirs[seed]) for seed in sorted(theirs)]
        if other in self.untrained and theirs:
            return [(ours[seed], theirs[min(theirs)]) for seed in sorted(ours)]
        return [(ours[seed], theirs[seed]) for seed in sorted(ours.keys() & theirs.keys())]


def cells(runs: Iterable[Run]) -> list[Cell]:
    """Group runs by task and model, in their order; a loss with several settings is several losses.

    A run of a mixture is in a group for each of its tasks.
    """
    groups: dict[tuple[str, str], list[Run]] = {}
    for one in (one for run in runs for one in run.by_task):
        groups.setdefault((one.task, one.model), []).append(one)
    return [_cell(task, model, members) for (task, model), members in groups.items()]


def _cell(task: str, model: str, runs: Sequence[Run]) -> Cell:
    by_settings = split_by_settings(runs)
    split = {run.loss for run in runs} - {run.loss for run in by_settings}
    return Cell(task, model, tuple(by_settings), frozenset(split))


def split_by_settings(runs: Sequence[Run]) -> list[Run]:
    """Add the settings in which runs of one loss differ to its name: `ntil lam=0.1` and `ntil lam=3.0`."""
    by_loss: dict[str, list[Run]] = {}
    for run in runs:
        by_loss.setdefault(run.loss, []).append(run)
    differing = {
        loss: list(_differences([_loss_settings(run) for run in members])) for loss, members in by_loss.items()
    }
    return [_with_settings(run, differing[run.loss]) if differing[run.loss] else run for run in runs]


def _with_settings(run: Run, keys: Sequence[str]) -> Run:
    settings = flat(_loss_settings(run))
    return run.with_loss(" ".join([run.loss, *(f"{key}={settings.get(key, ABSENT)}" for key in keys)]))


def _loss_settings(run: Run) -> dict[str, Any]:
    return identity(run.config)["loss"]


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested keys, as in `optim.lr`."""
    flattened: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            flattened |= flat(value, f"{prefix}{key}.")
        else:
            flattened[prefix + key] = value
    return flattened


def differences(runs: Sequence[Run], tuned: Collection[str] = ()) -> dict[str, list[Any]]:
    """Map the keys outside `loss`, `seed` and `tuned` in which runs differ to their values, in the order of the runs.

    Also `data.<split>`, by the fingerprints of all that have one (the config names files, not their content),
    `inputs.model.checkpoint`, the weights that they started from, of all that have recorded them, `code.<module>` of a
    plug-in that several have, and `task.protocol`, the version of how answers were read and scored. An untrained
    model is compared by model, task and split alone, since it is asked in its own words and no key of a training
    matters to it.
    """
    trained = [run for run in runs if run.trains]
    differing = _differences([{k: v for k, v in identity(run.config).items() if k != "loss"} for run in trained])
    if len(trained) < len(runs):
        differing |= _differences([_tested(run) for run in runs])
    data = [run.data for run in runs]
    for split in dict.fromkeys(split for one in data for split in one):
        prints = [one[split] for one in data if split in one]
        if any(one != prints[0] for one in prints):
            differing[f"data.{split}"] = prints
    differing |= _differing_starts([read_json(run.folder.inputs) for run in runs])
    differing |= _differing_code([read_json(run.folder.code) for run in runs])
    protocols = [run.folder.task_protocol() for run in runs if run.done]
    if len(set(protocols)) > 1:
        differing["task.protocol"] = protocols
    return {key: values for key, values in differing.items() if key not in tuned}


def _differing_starts(inputs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Weights of `model.checkpoint` that differ among the runs that recorded them, by the first hex digits of a digest.

    Other files of the checkpoint, as its README, make no difference to a training; the path is in the config.
    """
    starts = [one[CHECKPOINT] for one in inputs if isinstance(one.get(CHECKPOINT), dict)]
    contents = ["".join(f"{name} {start[name].get('sha256')}\n" for name in weights_of(start)) for start in starts]
    digests = [hashlib.sha256(content.encode()).hexdigest()[:12] for content in contents if content]
    return {f"inputs.{CHECKPOINT}": list(digests)} if len(set(digests)) > 1 else {}


def _differing_code(codes: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Modules of plug-ins that differ among the runs that have them, by their first hex digits."""
    modules = dict.fromkeys(module for code in codes for module in code)
    digests = {f"code.{module}": [str(c[module])[:12] for c in codes if module in c] for module in modules}
    return {key: values for key, values in digests.items() if len(set(values)) > 1}


def _tested(run: Run) -> dict[str, Any]:
    """What a test of an untrained model shares with those of trained ones: not how it is asked, nor the training."""
    settings = identity(run.config)
    task = {k: v for k, v in settings["task"].items() if k not in ("question", "question_style", "max_new_tokens")}
    return {"model": settings["model"], "task": task, "evaluation": {"split": run.config.evaluation.split}}


def _differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    tables = [flat(config) for config in configs]
    keys = dict.fromkeys(key for table in tables for key in table)
    differing = {key: [table.get(key, ABSENT) for table in tables] for key in keys}
    return {key: values for key, values in differing.items() if any(v != values[0] for v in values)}


def describe_differences(differing: dict[str, list[Any]]) -> str:
    """The differences in one line."""
    return "; ".join(f"{key}: {', '.join(dict.fromkeys(map(str, values)))}" for key, values in differing.items())


def require_comparable(runs: Sequence[Run]) -> None:
    """Check that the runs differ in loss and seed only.

    Raises:
        ConfigError: the runs differ in more than loss and seed; names every key with its values.
    """
    differing = differences(runs)
    if differing:
        raise ConfigError(
            f"no comparison of losses: the runs differ outside loss and seed ({describe_differences(differing)})"
        )


def row_key(record: Row) -> tuple[str, str]:
    """Key of a prediction's example: the row's id and its true answer."""
    return str(record["id"]), record["answer"]


def score_sums(runs: Sequence[Run], task: Task, metric: str) -> ScoreSums:
    """Sums of every example of every run (one run a seed), for the statistics.

    Raises:
        ConfigError: the runs were scored on other examples, or the same ones with other answers.
    """
    pictures: dict[tuple[str, str], str] = {}
    tables = []
    for run in runs:
        records = list(run.folder.read_predictions())
        pictures |= {row_key(r): r["picture"] for r in records if isinstance(r.get("picture"), str)}
        tables.append([(row_key(r), task.sum_scores([r])) for r in records])
    keys = [key for key, _ in tables[0]]
    for run, table in zip(runs, tables, strict=True):
        if [key for key, _ in table] != keys:
            raise ConfigError(
                f"{run.folder.path}: its predictions are of other examples or answers than {runs[0].folder.path}"
            )
    return joined_sums([[sums for _, sums in table] for table in tables], task, metric, [pictures.get(k) for k in keys])


def joined_sums(
    tables: Sequence[Sequence[dict[str, float]]], task: Task, metric: str, pictures: Sequence[str | None]
) -> ScoreSums:
    """The sums of every example (`Task.sum_scores`) of every seed, without those of groups, for the statistics.

    Args:
        pictures: of the examples, see `ScoreSums.by_picture`.
    """
    names = [k for k in dict.fromkeys(key for table in tables for sums in table for key in sums) if "/" not in k]
    sums = np.array([[[one.get(name, 0.0) for name in names] for one in table] for table in tables])
    return ScoreSums(sums, names, task.metrics_from_sums, metric).by_picture(pictures)
