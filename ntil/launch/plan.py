"""Dry run of a sweep: its runs with their state, estimated time and memory, before anything starts.

Time is taken from finished or running runs of the same task and model below the same folder (seconds per step, whatever
their loss: losses differ by a few percent); without such a run it is not known yet. Memory is `ntil models`' estimate
for the run's engine and tuning: GB per rank for weights, gradients and optimizer states; activations come on top.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from data.common.counts import counted
from ntil.config.compose import CONF, register_schema
from ntil.config.errors import ConfigError
from ntil.config.schema import OptimConfig, RunConfig
from ntil.console import Table, duration, epochs, gigabytes
from ntil.models.inventory import needed_memory
from ntil.preflight import compose_checked
from ntil.runs.folder import folder_of, read_json
from ntil.runs.inputs import changed_inputs
from ntil.runs.run import Run, read_runs
from ntil.runs.status import pace, status


@dataclass(frozen=True)
class PlannedRun:
    """One job of a sweep: its overrides, and its run, whose folder may not exist yet."""

    overrides: tuple[str, ...]
    run: Run


def plan(arguments: Sequence[str], on_this_machine: bool = True) -> list[PlannedRun]:
    """Compose and check the jobs of `ntil train <arguments>`, in their order; jobs with one folder are one.

    Args:
        on_this_machine: also check that this machine has the devices and files.

    Raises:
        UserError, HydraException: a job that can't be composed or run.
    """
    overrides = [word for word in arguments if not word.startswith("-")]
    fixed = _fixed(overrides)
    swept = [override for override in overrides if override not in fixed]
    names = {override.partition("=")[0].lstrip("+") for override in overrides}
    sweeper = _sweeper(fixed)
    if "optuna" in sweeper._target_:
        raise ConfigError("a search chooses its runs as it goes; only grids can be listed before")
    swept = [*(f"{k}={v}" for k, v in _swept_by_experiment(sweeper).items() if k not in names), *swept]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(swept), max_batch_size=None)[0]
    planned = []
    for job in jobs:
        config = compose_checked([*fixed, *job], on_this_machine)
        planned.append(PlannedRun(tuple(job), Run(folder_of(config), config)))
    return list({one.run.folder.path: one for one in planned}.values())


def _fixed(overrides: Sequence[str]) -> list[str]:
    """Overrides that give one value, not several."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [text for text, override in zip(overrides, parsed, strict=True) if not override.is_sweep_override()]


def _sweeper(fixed: Iterable[str]) -> Any:
    register_schema()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(fixed), return_hydra_config=True).hydra.sweeper


def _swept_by_experiment(sweeper: Any) -> dict[str, str]:
    params: Any = OmegaConf.to_container(sweeper.params, resolve=True) if sweeper.params else {}
    return {str(k): str(v) for k, v in params.items()}


@dataclass(frozen=True)
class Length:
    """Length of a run's training. rows: of the training split, or about; None where neither is known yet."""

    optim: OptimConfig
    steps: int | None
    rows: int | None

    @classmethod
    def of(cls, run: Run) -> Length:
        """The length that the run has recorded, else what follows from the config and the expected rows."""
        recorded, optim = read_json(run.folder.length), run.config.optim
        rows = recorded.get("rows") or run.built_task.expected_rows("train")
        return cls(optim, recorded.get("steps") or optim.steps_for(rows), rows)

    def __str__(self) -> str:
        """`2000 (1.1 epochs)`; where the rows aren't known, what bounds the steps."""
        if self.steps is None and self.optim.steps is not None:
            return f"up to {self.optim.steps} (up to {epochs(self.optim.max_epochs or 0)})"
        if self.steps is None:
            return f"not known yet ({epochs(self.optim.epochs or 0)})"
        if not self.rows:
            return str(self.steps)
        return f"{self.steps} ({epochs(self.steps * self.optim.batch_size / self.rows)})"


def dry_run(arguments: Sequence[str]) -> Table:
    """Table of a sweep's jobs; its last line sums the time that is left."""
    jobs = [planned.run for planned in plan(arguments)]
    pace_of = seconds_per_step(read_runs(jobs[0].config.runs))
    memory = _memory()
    rows, left, unknown = [], 0.0, 0
    for job in jobs:
        state: str = status(job).state if job.folder.config_file.exists() else "to do"
        if state == "done" and changed_inputs(read_json(job.folder.inputs), job.config):
            state = "done on other data"
        length = Length.of(job)
        pace_of_job = pace_of.get(job.key[:2])
        seconds = None if pace_of_job is None or length.steps is None else length.steps * pace_of_job
        if state != "done":
            left, unknown = left + (seconds or 0), unknown + (seconds is None)
        time = "done" if state == "done" else "not known yet" if seconds is None else duration(seconds)
        rows.append([*map(str, job.key), str(length), memory(job.config), state, time])
    total = (
        f"{duration(left)} left"
        if not unknown
        else f"{duration(left)} left, and {counted(unknown, 'run')} not known yet"
    )
    rows.append([counted(len(jobs), "run"), "", "", "", "", "", f"{sum(row[6] == 'done' for row in rows)} done", total])
    columns = ["task", "model", "loss", "seed", "steps", "GB per rank", "state", "time"]
    return Table("planned", columns, ["l", "l", "l", "r", "r", "r", "l", "r"], rows)


def _memory() -> Callable[[RunConfig], str]:
    """Function from a run's config to its memory as text, computed once per model, engine and tuning."""
    memory_of: dict[str, str] = {}

    def of(config: RunConfig) -> str:
        parts = [config.model.to_dict(), asdict(config.engine), asdict(config.tuning)]
        key = json.dumps(parts, sort_keys=True)
        if key not in memory_of:
            size = needed_memory(config)
            memory_of[key] = "not known" if size is None else gigabytes(size)
        return memory_of[key]

    return of


def seconds_per_step(runs: Iterable[Run]) -> dict[tuple[str, str], float]:
    """Map (task, model) to the median over runs of the seconds per step."""
    paces: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        seconds = pace(run.folder.read_history())
        if seconds is not None:
            paces.setdefault((run.task, run.model), []).append(seconds)
    return {key: statistics.median(values) for key, values in paces.items()}
