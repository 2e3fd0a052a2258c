"""The runs of an experiment as one table, and the check that a comparison is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from experiments.statistics import Tallies
from ntil.config import NOT_IDENTITY, ConfigError
from ntil.runs import RunFolder, read_jsonl
from ntil.session import Session
from ntil.status import status
from tasks.base import Task

# What may differ between the runs of one comparison: what is compared, chance, and how a run was watched.
MAY_DIFFER = ("loss", "seed", *NOT_IDENTITY)


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

    @property
    def state(self) -> str:
        """`done`, or why it is missing."""
        found = status(self.folder)
        return found.state if not found.note else f"{found.state}: {found.note}"

    @cached_property
    def built_task(self) -> Task:
        """The task as the run had it: boxes in its model's own coordinates."""
        return Session.build(self.config).task


@dataclass(frozen=True)
class Cell:
    """Runs that may be compared: one task and one model under several losses and seeds."""

    task: str
    model: str
    runs: tuple[Run, ...]

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
    """Runs grouped by task and model, in the order found."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.task, run.model), []).append(run)
    return [Cell(task, model, tuple(found)) for (task, model), found in groups.items()]


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
    """Keys outside `loss` and `seed` in which the runs differ -> their values, in the order of the runs."""
    tables = [flat({k: v for k, v in run.config.items() if k not in MAY_DIFFER}) for run in runs]
    keys = dict.fromkeys(key for table in tables for key in table)
    absent = "(absent)"
    found = {key: [table.get(key, absent) for table in tables] for key in keys}
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


def tallies(runs: Sequence[Run], task: Task, metric: str) -> Tallies:
    """Sums of every example of every run (one run a seed), for the statistics.

    Raises:
        ConfigError: the runs were scored on other examples.
    """
    tables = [[(str(r["id"]), task.tally([r])) for r in read_jsonl(run.folder.predictions)] for run in runs]
    ids = [name for name, _ in tables[0]]
    for run, table in zip(runs, tables, strict=True):
        if [name for name, _ in table] != ids:
            raise ConfigError(f"{run.folder.path}: its predictions are of other examples than {runs[0].folder.path}")
    names = [k for k in dict.fromkeys(key for _, sums in tables[0] for key in sums) if "/" not in k]
    sums = np.array([[[s.get(name, 0.0) for name in names] for _, s in table] for table in tables])
    return Tallies(sums, names, task.finish, metric)
