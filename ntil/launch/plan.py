"""Dry run of a sweep: its runs with their state, estimated time and memory, before anything starts.

Time is taken from finished or running runs of the same task, model and packing below the same folder (seconds per
step, whatever their loss: losses differ by a few percent). Without such a run, that of a full-size model is estimated
from its arithmetic, and of others it is not known yet. Memory and disk are those of `ntil.estimates`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

from data.common.counts import counted
from data.common.errors import UserError
from ntil.config.compose import CONF, for_hydra, register_schema
from ntil.config.errors import ConfigError
from ntil.console import Table
from ntil.estimates.time import Device, device_here
from ntil.launch.costs import Estimator, disk_warning, mixture_remark, pace_key, packing_remark, total_disk, total_time
from ntil.models.optimizers import warmup_remark
from ntil.preflight import check, compose_checked
from ntil.runs.code import changed_code
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
    fixed, swept = _fixed_and_swept(arguments)
    names = {override.partition("=")[0].lstrip("+") for override in (*fixed, *swept)}
    sweeper = _hydra(fixed).sweeper
    if "optuna" in sweeper._target_:
        raise ConfigError("a search chooses its runs as it goes; only grids can be listed before")
    swept = [*(f"{k}={v}" for k, v in _swept_by_experiment(sweeper).items() if k not in names), *swept]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(swept), max_batch_size=None)[0]
    planned = []
    for job in jobs:
        config = compose_checked([*fixed, *job], on_this_machine)
        planned.append(PlannedRun(tuple(job), Run(folder_of(config), config)))
    return list({one.run.folder.path: one for one in planned}.values())


def check_multirun(arguments: Sequence[str]) -> None:
    """Check that values that make several jobs come with -m, without which `ntil train` refuses them.

    Raises:
        ConfigError: names the first of them.
    """
    fixed, swept = _fixed_and_swept(arguments)
    if swept and not {"-m", "--multirun"} & {*arguments} and _hydra(fixed).mode != RunMode.MULTIRUN:
        key, _, values = swept[0].partition("=")
        raise ConfigError(f"{swept[0]}: several values; add -m for a run of each, or write {key}=[{values}] for a list")


def _fixed_and_swept(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Overrides that give one value, and those that give several."""
    overrides = for_hydra(word for word in arguments if not word.startswith("-"))
    fixed: list[str] = []
    swept: list[str] = []
    for text, override in zip(overrides, OverridesParser.create().parse_overrides(overrides), strict=True):
        (swept if override.is_sweep_override() else fixed).append(text)
    return fixed, swept


def _hydra(fixed: Iterable[str]) -> Any:
    register_schema()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(fixed), return_hydra_config=True).hydra


def _swept_by_experiment(sweeper: Any) -> dict[str, str]:
    params: Any = OmegaConf.to_container(sweeper.params, resolve=True) if sweeper.params else {}
    return {str(k): str(v) for k, v in params.items()}


COLUMNS = ["task", "model", "loss", "seed", "steps", "GB a rank", "GB of disk", "state", "time", "GPU-hours"]


@dataclass(frozen=True)
class DryRun:
    """Table of a sweep's jobs. remarks: sentences on what can't run here, or won't fit."""

    table: Table
    remarks: list[str]
    refused: int


def dry_run(arguments: Sequence[str], device: Device | None = None) -> DryRun:
    """The jobs of a sweep; the table's last line sums disk, time and GPU-hours of those that are left.

    Args:
        device: whose speed the estimates assume; this machine's GPU by default, else an H100's.
    """
    jobs = [planned.run for planned in plan(arguments, on_this_machine=False)]
    estimator = Estimator(device or device_here(), seconds_per_step(read_runs(jobs[0].config.runs)))
    rows, costs, remarks, refused = [], [], [], 0
    for job in jobs:
        refusal = _refusal(job)
        cost = estimator.cost(job)
        state = _state(job) if refusal is None else "refused here"
        if refusal is not None:
            refused += 1
            remarks += [refusal] if refusal not in remarks else []
        if state != "done":
            costs.append(cost)
            warmup = warmup_remark(job.config.optim, cost.length.steps)
            for remark in (packing_remark(job, cost), mixture_remark(job), _augmentation_remark(job), warmup):
                remarks += [remark] if remark and remark not in remarks else []
        time = ["done", ""] if state == "done" else [cost.time, cost.gpu_hours]
        rows.append([*map(str, job.key), str(cost.length), cost.memory, cost.disk, state, *time])
    done = sum(row[7] == "done" for row in rows)
    rows.append([counted(len(jobs), "run"), "", "", "", "", "", total_disk(costs), f"{done} done", *total_time(costs)])
    if warning := disk_warning(jobs[0].config.runs, costs):
        remarks.append(warning)
    align: Any = ["l", "l", "l", "r", "r", "r", "r", "l", "r", "r"]
    return DryRun(Table(estimator.caption(), COLUMNS, align, rows), remarks, refused)


def _augmentation_remark(job: Run) -> str | None:
    augment = job.config.augment
    values = ", ".join(f"{name} {getattr(augment, name):g}" for name in augment.names)
    return f"{job.task}: training pictures change with the numbers of their rows: {values}" if values else None


def _refusal(job: Run) -> str | None:
    """Why the job can't run on this machine."""
    try:
        check(job.config)
    except UserError as error:
        return str(error)
    return None


def _state(job: Run) -> str:
    state: str = status(job).state if job.folder.config_file.exists() else "to do"
    if state == "done" and changed_inputs(read_json(job.folder.inputs), job.config):
        return "done on other data"
    if state == "done" and changed_code(read_json(job.folder.code)):
        return "done by other code"
    return state


def seconds_per_step(runs: Iterable[Run]) -> dict[tuple[str, ...], float]:
    """Map `pace_key` to the median over runs of the seconds per step."""
    paces: dict[tuple[str, ...], list[float]] = {}
    for run in runs:
        seconds = pace(run.folder.read_history())
        if seconds is not None:
            paces.setdefault(pace_key(run), []).append(seconds)
    return {key: statistics.median(values) for key, values in paces.items()}
