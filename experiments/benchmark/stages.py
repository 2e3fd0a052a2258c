"""The runs of a benchmark by stages: pilot, search, the tuned and the untuned seeds."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, cached_property, reduce
from pathlib import Path
from typing import Any

from data.common.errors import UserError
from experiments.benchmark.draws import draws
from experiments.benchmark.protocol import Protocol, loss_overrides
from experiments.cells import flat
from ntil.components import build_task
from ntil.config.compose import compose_dict
from ntil.config.errors import ConfigError, nearest
from ntil.config.schema import RunConfig
from ntil.launch.sweep import Sweep
from ntil.runs.folder import folder_of

RETRY = 5.0  # seconds until runs that another process has are looked at again


@dataclass(frozen=True)
class Job:
    """A run of a benchmark.

    Attributes:
        settings: what the search has drawn, by key.
        overrides: what its cell and loss are composed of. values: of further keys.
    """

    cell: str
    loss: str
    settings: dict[str, float]
    overrides: tuple[str, ...]
    values: dict[str, Any]

    @cached_property
    def config(self) -> RunConfig:
        config = deepcopy(_composed(self.overrides))
        for key, value in {**self.settings, **self.values}.items():
            *groups, name = key.split(".")
            reduce(dict.__getitem__, groups, config)[name] = value
        return RunConfig.from_dict(config)


@cache
def _composed(overrides: tuple[str, ...]) -> dict[str, Any]:
    """Composed once for all trials and seeds, of which there are hundreds."""
    return compose_dict(overrides)


@dataclass(frozen=True)
class Best:
    """A loss's best trial in a cell.

    Attributes:
        settings: of the trial.
        score: of the trial, by the task's headline metric on the validation split.
        scores: of all trials, in their order; NaN: it failed.
    """

    settings: dict[str, float]
    score: float
    scores: tuple[float, ...]


class Stages:
    """The jobs of a benchmark below `folder`."""

    def __init__(self, protocol: Protocol, folder: Path, retry: bool = False) -> None:
        self.protocol, self.folder, self.retry = protocol, folder, retry
        self._searches: dict[tuple[str, str], list[Job]] = {}

    def pilot(self) -> list[Job]:
        """Seed by seed, so that the screened losses come with the first."""
        pilot = self.protocol.pilot
        screened = [loss for loss in pilot.screened if loss not in pilot.losses]
        return [
            self._job("pilot", cell, loss, {}, seed)
            for seed in pilot.seeds
            for loss in [*pilot.losses, *(screened if seed == pilot.seeds[0] else [])]
            for cell in self.protocol.cells
        ]

    def search(self, cell: str, loss: str) -> list[Job]:
        """The trials of a loss, on the validation split; over the keys of the search that its config uses."""
        if (cell, loss) not in self._searches:
            self._searches[cell, loss] = self._trials(cell, loss)
        return self._searches[cell, loss]

    def searched_keys(self, cell: str, loss: str) -> list[str]:
        """Keys of the search that a loss uses, which are those that are not null in its config."""
        present = flat(self._job("search", cell, loss, {}, self.protocol.trial_seed, "validation").config.to_dict())
        return [key for key in self.protocol.search if present.get(key) is not None]

    def check_search(self) -> None:
        """Check that every key of the search is one that some loss is searched over.

        Raises:
            ConfigError: names the key, and the nearest that there is.
        """
        protocol = self.protocol
        pairs = [(cell, loss) for cell in protocol.cells for loss in protocol.losses]
        used = {key for pair in pairs for key in self.searched_keys(*pair)}
        if unused := [key for key in protocol.search if key not in used]:
            keys = {key for pair in pairs for key in flat(self.search(*pair)[0].config.to_dict())}
            if unused[0] in keys:
                raise ConfigError(f"search.{unused[0]}: every loss of the protocol leaves this key null; take it out")
            raise ConfigError(
                f"search.{unused[0]}: no loss of the protocol has this key{nearest(unused[0], sorted(keys))}"
            )

    def _trials(self, cell: str, loss: str) -> list[Job]:
        protocol, keys = self.protocol, self.searched_keys(cell, loss)
        return [
            self._job("search", cell, loss, settings, protocol.trial_seed, "validation")
            for settings in draws(protocol.search, keys, protocol.trials, protocol.draw_seed)
        ]

    def searches(self) -> list[Job]:
        """Trial by trial over all losses and cells, so that what is there at any time is as far for each."""
        all_of = [self.search(cell, loss) for cell in self.protocol.cells for loss in self.protocol.losses]
        return [trials[number] for number in range(self.protocol.trials) for trials in all_of]

    def best(self, cell: str, loss: str) -> Best:
        """The best trial; the first of several. One that diverged counts as the worst.

        Raises:
            ConfigError: a trial has neither finished nor diverged (a full disk says nothing of a loss), or none has
                finished.
        """
        jobs = self.search(cell, loss)
        task = build_task(jobs[0].config)
        scores = [_score(job.config, task.metric) for job in jobs]
        if None in scores:
            failed = [job for job, score in zip(jobs, scores, strict=True) if score is None and _failed(job)]
            problem = f"{self.folder}: {cell}, {loss}: {scores.count(None)} trials have still to be run"
            if failed:
                reason = folder_of(failed[0].config).last_error()
                problem += f"; {len(failed)} failed ({reason}), and the same command with retry=true runs them again"
            raise ConfigError(problem)
        finished = [score for score in scores if score is not None and not math.isnan(score)]
        if not finished:
            raise ConfigError(f"{self.folder}: {cell}, {loss}: every trial failed; take the loss out of a new protocol")
        highest = max(finished) if task.greater_is_better else min(finished)
        settings = jobs[scores.index(highest)].settings
        return Best(settings, highest, tuple(score for score in scores if score is not None))

    def seeds(self, tuned: bool) -> list[Job]:
        """The tuned runs, or those at the losses' defaults; seed by seed over all cells and losses.

        Where the best trial has the defaults, the tuned runs are untuned ones.
        """
        protocol = self.protocol
        pairs = [(cell, loss) for cell in protocol.cells for loss in protocol.losses]
        best = {pair: self.best(*pair).settings if tuned else {} for pair in pairs}
        seeds = protocol.seeds if tuned else protocol.seeds_untuned
        return [
            self._job("tuned" if best[pair] else "untuned", *pair, best[pair], seed) for seed in seeds for pair in pairs
        ]

    def _job(self, stage: str, cell: str, loss: str, settings: dict[str, float], seed: int, split: str = "test") -> Job:
        overrides = (*self.protocol.overrides, *self.protocol.cells[cell], *loss_overrides(loss))
        values = {"seed": seed, "evaluation.split": split, "runs": str(self.folder), "name": stage}
        values["retry"] = self.retry
        return Job(cell, loss, settings, overrides, values)


def run(jobs: Sequence[Job], progress: Callable[[int, int], None], passes_over: bool = False) -> Sweep:
    """Run jobs that are neither done nor failed; another call may run others of them meanwhile.

    It waits for those of other processes, and takes over what these leave.

    Args:
        progress: told after each run how many have ended, and of how many.
        passes_over: a job whose config can't be run, as of a loss that a task's answers have nothing for, is counted as
            failed, and the others go on.

    Raises:
        UserError: a config can't be run, and it isn't passed over.
        KeyboardInterrupt: interrupted; the same call goes on.
    """
    sweep, left = Sweep(), list(jobs)
    while left:
        busy = []
        for job in left:
            before = sweep.busy
            try:
                sweep.run(job.config)
            except UserError as error:
                if not passes_over:
                    raise
                sweep.failed.append((folder_of(job.config).path, str(error)))
            if sweep.busy > before:
                busy.append(job)
            else:
                progress(len(sweep.done) + len(sweep.failed), len(jobs))
        left = busy
        if left:
            time.sleep(RETRY)
    return sweep


def _score(config: RunConfig, metric: str) -> float | None:
    """The metric of a run; NaN where it diverged, None where it has neither finished nor diverged."""
    folder = folder_of(config)
    if folder.done:
        return float(folder.read_metrics()[metric])
    return math.nan if folder.diverged else None


def _failed(job: Job) -> bool:
    return folder_of(job.config).error.exists()
