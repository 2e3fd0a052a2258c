"""`ntil train -m ... --dry-run`: a sweep's runs with their state, estimated time and memory, before anything starts.

Time is taken from finished or running runs of the same task and model below the same folder (seconds per step, whatever
their loss: losses differ by a few percent); where there is none it is not known yet. Memory is `ntil models`' estimate
for the run's engine and tuning: GB per rank for weights, gradients and optimizer states; activations come on top.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from experiments.tables import Table
from ntil.compose import CONF, compose, register
from ntil.config import ConfigError, run_folder
from ntil.list_models import gigabytes, needed
from ntil.lock import age
from ntil.runs import RunFolder, find
from ntil.status import pace, status


@dataclass(frozen=True)
class Planned:
    """One job of a sweep: what it overrides, its plain config and its folder."""

    overrides: tuple[str, ...]
    config: dict[str, Any]
    folder: RunFolder

    @property
    def key(self) -> tuple[str, str, str, int]:
        """task, model, loss, seed"""
        return (*(self.config[group]["name"] for group in ("task", "model", "loss")), self.config["seed"])


def planned(words: Sequence[str], here: bool = True) -> list[Planned]:
    """The jobs that `ntil train` with these words would run, in their order, each composed and checked.

    Args:
        here: check also that this machine has the devices.

    Raises:
        ConfigError, HydraException: a job that can't be composed or run.
    """
    words = _plain(words)
    fixed = _fixed(words)
    swept = [w for w in words if w not in fixed]
    named = {word.partition("=")[0].lstrip("+") for word in words}
    sweeper = _sweeper(fixed)
    if "optuna" in sweeper._target_:
        raise ConfigError("a search chooses its runs as it goes; only grids can be listed before")
    swept = [*(f"{k}={v}" for k, v in _params(sweeper).items() if k not in named), *swept]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(swept), max_batch_size=None)[0]
    found = []
    for job in jobs:
        config = compose([*fixed, *job], here)
        found.append(Planned(tuple(job), config, RunFolder(run_folder(config))))
    return list({one.folder.path: one for one in found}.values())


def _fixed(words: Sequence[str]) -> list[str]:
    """The overrides that give one value, not several."""
    parsed = OverridesParser.create().parse_overrides(list(words))
    return [word for word, override in zip(words, parsed, strict=True) if not override.is_sweep_override()]


def _sweeper(fixed: Iterable[str]) -> Any:
    register()
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(fixed), return_hydra_config=True).hydra.sweeper


def _params(sweeper: Any) -> dict[str, str]:
    """What the chosen experiment sweeps by itself."""
    params: Any = OmegaConf.to_container(sweeper.params, resolve=True) if sweeper.params else {}
    return {str(k): str(v) for k, v in params.items()}


def _plain(words: Sequence[str]) -> list[str]:
    """Without flags and their values."""
    return [word for word in words if "=" in word and not word.startswith("--")]


def dry_run(words: Sequence[str]) -> Table:
    """The table of a sweep's jobs; its last line sums what is left to do."""
    jobs = planned(words)
    root = Path(jobs[0].config["runs"])
    pace = seconds_per_step(find(root)) if root.exists() else {}
    memory = _memory()
    rows, left, unknown = [], 0.0, 0
    for job in jobs:
        state = status(job.folder).state if job.folder.config_file.exists() else "to do"
        steps = job.config["optim"]["steps"]
        seconds = pace.get(job.key[:2])
        if state != "done":
            left, unknown = left + steps * (seconds or 0), unknown + (seconds is None)
        time = "done" if state == "done" else "not known yet" if seconds is None else age(steps * seconds)
        rows.append([*map(str, job.key), str(steps), memory(job.config), state, time])
    total = f"{age(left)} left" if not unknown else f"{age(left)} left, and {unknown} runs not known yet"
    rows.append([f"{len(jobs)} runs", "", "", "", "", "", f"{sum(row[6] == 'done' for row in rows)} done", total])
    columns = ["task", "model", "loss", "seed", "steps", "GB per rank", "state", "time"]
    return Table("planned", columns, ["l", "l", "l", "r", "r", "r", "l", "r"], rows)


def _memory() -> Callable[[dict[str, Any]], str]:
    """The memory of a run's config, worked out once for all runs that differ in loss and seed only."""
    known: dict[str, str] = {}

    def of(config: dict[str, Any]) -> str:
        key = json.dumps([config[k] for k in ("model", "engine", "tuning")], sort_keys=True)
        if key not in known:
            size = needed(config)
            known[key] = "not known" if size is None else gigabytes(size)
        return known[key]

    return of


def seconds_per_step(runs: Iterable[RunFolder]) -> dict[tuple[str, str], float]:
    """(task, model) -> median over runs of the time between log records."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        config = run.config()
        seconds = pace(run.read_history())
        if seconds is not None:
            found.setdefault((config["task"]["name"], config["model"]["name"]), []).append(seconds)
    return {key: statistics.median(paces) for key, paces in found.items()}
