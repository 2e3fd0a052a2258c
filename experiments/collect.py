"""The runs of an experiment as one table, and the check that a comparison is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from experiments.statistics import Tallies
from ntil.config import ConfigError, identity
from ntil.fingerprint import recorded
from ntil.runs import RunFolder, read_jsonl
from ntil.session import task_of
from ntil.status import status
from tasks.base import Task

ABSENT = "(absent)"


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder with its config read once."""

    folder: RunFolder
    config: dict[str, Any] = field(repr=False)

    @classmethod
    def read(cls, folder: RunFolder) -> Run:
        return cls(folder, folder.config())

    @property
    def task(self) -> str:
        return str(self.config["task"]["name"])

    @property
    def model(self) -> str:
        return str(self.config["model"]["name"])

    @property
    def loss(self) -> str:
        return str(self.config["loss"]["name"])

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def done(self) -> bool:
        return self.folder.done

    @cached_property
    def metrics(self) -> dict[str, float]:
        return self.folder.read_metrics() if self.done else {}

    @cached_property
    def data(self) -> dict[str, str]:
        """Split -> fingerprint of its rows, as far as the run kept it."""
        return {split: one["fingerprint"] for split, one in recorded(self.folder.path / "data.json").items()}

    @property
    def state(self) -> str:
        """`done`, or why it is missing."""
        found = status(self.folder)
        return found.state if not found.note else f"{found.state}: {found.note}"

    @cached_property
    def built_task(self) -> Task:
        """The task as the run had it: boxes in its model's own coordinates."""
        try:
            return task_of(self.config)
        except ConfigError:
            model = self.config["model"]
            if not model.get("checkpoint") or not (self.folder.model / "config.json").exists():
                raise
            # What the run began with is not here, in another folder or on another machine; what it saved is.
            return task_of({**self.config, "model": {**model, "checkpoint": str(self.folder.model)}})

    def with_loss(self, name: str) -> Run:
        """The same run under another name of its loss."""
        return Run(self.folder, {**self.config, "loss": {**self.config["loss"], "name": name}})


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
        """In the order of the first run of each, cross-entropy first."""
        names = dict.fromkeys(run.loss for run in self.runs)
        return sorted(names, key=lambda name: (name != "ce", list(names).index(name)))

    @property
    def seeds(self) -> list[int]:
        return sorted({run.seed for run in self.runs})

    def of(self, loss: str) -> dict[int, Run]:
        """Seed -> the finished run of a loss."""
        return {run.seed: run for run in self.runs if run.loss == loss and run.done}

    def shared_seeds(self, one: str, other: str) -> list[int]:
        return sorted(self.of(one).keys() & self.of(other).keys())


def cells(runs: Iterable[Run]) -> list[Cell]:
    """Runs grouped by task and model, in the order found; a loss with several settings is several losses."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.task, run.model), []).append(run)
    return [_cell(task, model, found) for (task, model), found in groups.items()]


def _cell(task: str, model: str, runs: Sequence[Run]) -> Cell:
    named = told_apart(runs)
    split = {run.loss for run in runs} - {run.loss for run in named}
    return Cell(task, model, tuple(named), frozenset(split))


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs of one loss with other settings of it get these in its name: `ntil lam=0.1` and `ntil lam=3.0`."""
    of: dict[str, list[Run]] = {}
    for run in runs:
        of.setdefault(run.loss, []).append(run)
    differing = {loss: list(_differences([run.config["loss"] for run in found])) for loss, found in of.items()}
    return [_with_settings(run, differing[run.loss]) if differing[run.loss] else run for run in runs]


def _with_settings(run: Run, keys: Sequence[str]) -> Run:
    settings = flat(run.config["loss"])
    return run.with_loss(" ".join([run.loss, *(f"{key}={settings.get(key, ABSENT)}" for key in keys)]))


def flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested keys as `optim.lr`."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Keys outside `loss` and `seed` in which the runs differ -> their values, in the order of the runs.

    Also `data.<split>`, by the fingerprints of all that have one: the config names files, not what was in them.
    """
    found = _differences([{k: v for k, v in identity(run.config).items() if k != "loss"} for run in runs])
    data = [run.data for run in runs]
    for split in dict.fromkeys(split for one in data for split in one):
        prints = [one[split] for one in data if split in one]
        if any(one != prints[0] for one in prints):
            found[f"data.{split}"] = prints
    return found


def _differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    tables = [flat(config) for config in configs]
    keys = dict.fromkeys(key for table in tables for key in table)
    found = {key: [table.get(key, ABSENT) for table in tables] for key in keys}
    return {key: values for key, values in found.items() if any(v != values[0] for v in values)}


def described(found: dict[str, list[Any]]) -> str:
    """The differences in one line."""
    return "; ".join(f"{key}: {', '.join(dict.fromkeys(map(str, values)))}" for key, values in found.items())


def require_comparable(runs: Sequence[Run]) -> None:
    """
    Raises:
        ConfigError: the runs differ in more than loss and seed; names every key with its values.
    """
    found = differences(runs)
    if found:
        raise ConfigError(f"no comparison of losses: the runs differ outside loss and seed ({described(found)})")


def row_key(record: dict[str, Any]) -> tuple[str, str]:
    """What a prediction is of: the row and its true answer."""
    return str(record["id"]), record["answer"]


def tallies(runs: Sequence[Run], task: Task, metric: str) -> Tallies:
    """Sums of every example of every run (one run a seed), for the statistics.

    Raises:
        ConfigError: the runs were scored on other examples, or the same ones with other answers.
    """
    tables = [[(row_key(r), task.tally([r])) for r in read_jsonl(run.folder.predictions)] for run in runs]
    keys = [key for key, _ in tables[0]]
    for run, table in zip(runs, tables, strict=True):
        if [key for key, _ in table] != keys:
            raise ConfigError(
                f"{run.folder.path}: its predictions are of other examples or answers than {runs[0].folder.path}"
            )
    names = [k for k in dict.fromkeys(key for table in tables for _, sums in table for key in sums) if "/" not in k]
    sums = np.array([[[s.get(name, 0.0) for name in names] for _, s in table] for table in tables])
    return Tallies(sums, names, task.finish, metric)
