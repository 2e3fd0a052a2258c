"""Analysis of runs: per task and model, every loss over its seeds, compared with a base loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from experiments.cells import Cell, cells, describe_differences, differences, score_sums
from experiments.significance import Comparison, compare, holm
from ntil.config.errors import ConfigError
from ntil.runs.run import Key, Run
from ntil.runs.status import status

BASE = "ce"


@dataclass(frozen=True)
class Line:
    """One loss in one cell.

    values: metric -> its value for every finished seed.
    against: metric -> the comparison with the base loss, over the seeds that both finished; empty for the base itself.
    """

    loss: str
    seeds: tuple[int, ...]
    values: dict[str, list[float]]
    against: dict[str, Comparison] = field(default_factory=dict)

    def mean(self, metric: str) -> float | None:
        return statistics.fmean(self.values[metric]) if self.values.get(metric) else None

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation over seeds; None with fewer than two, NaN where a value is no number."""
        values = self.values.get(metric, [])
        if len(values) < 2:
            return None
        return statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan


@dataclass(frozen=True)
class CellReport:
    """Analysis of one cell.

    base: the loss that others are compared with, None without a finished run.
    missing: one line for every run of the grid of losses and seeds that is not finished, with its state.
    metrics: those that are compared, the headline first.
    refused: the reason for no comparison (the runs differ in more than loss and seed), else None.
    """

    cell: Cell
    base: str | None
    lines: tuple[Line, ...]
    missing: tuple[str, ...]
    refused: str | None
    headline: str
    metrics: tuple[str, ...] = ()


def analyse(
    runs: Iterable[Run],
    metrics: dict[str, bool],
    expected: Sequence[Key] = (),
    draws: int = 2000,
    base: str = BASE,
    tuned: Collection[str] = (),
) -> list[CellReport]:
    """Analyse runs cell by cell, with Holm's correction over all comparisons.

    Args:
        runs: of one experiment.
        metrics: further metrics to compare besides each task's headline -> whether greater is better.
        expected: (task, model, loss, seed) of runs that were planned; those without a folder are reported as missing.
        draws: of bootstrap and permutations.
        base: the loss that others are compared with; where a cell has no run of it, its first loss that trains is.
        tuned: keys in which losses may differ besides their options, since a search has chosen them for each.
    """
    compared = cells(runs)
    # Else the smallest p that is possible, times the number of comparisons, would be none that a verdict can rest on.
    draws = max(draws, 40 * sum(len(cell.losses) - 1 for cell in compared))
    reports = [
        _cell(cell, metrics, [e for e in expected if e[:2] == (cell.task, cell.model)], draws, base, tuned)
        for cell in compared
    ]
    reported = {(r.cell.task, r.cell.model) for r in reports}
    for task, model in dict.fromkeys(e[:2] for e in expected if e[:2] not in reported):
        not_started = tuple(
            f"{loss} seed {seed}: not started" for t, m, loss, seed in expected if (t, m) == (task, model)
        )
        reports.append(CellReport(Cell(task, model, ()), None, (), not_started, None, ""))
    return _corrected(reports)


def _cell(
    cell: Cell,
    metrics: dict[str, bool],
    expected: Sequence[Key],
    draws: int,
    preferred: str,
    tuned: Collection[str],
) -> CellReport:
    task = cell.runs[0].built_task
    directions = {task.metric: task.greater_is_better, **task.secondary_metrics, **metrics}
    differing = differences([run for run in cell.runs if run.done], tuned)
    refused = f"the runs differ outside loss and seed: {describe_differences(differing)}" if differing else None
    losses = list(dict.fromkeys([*cell.losses, *(e[2] for e in expected if e[2] not in cell.split)]))
    base = _base(cell, preferred)
    lines = []
    for loss in losses:
        runs = cell.of(loss)
        seeds = tuple(sorted(runs))
        keys = dict.fromkeys(key for seed in seeds for key in runs[seed].metrics)
        values = {k: [runs[s].metrics[k] for s in seeds if k in runs[s].metrics] for k in keys}
        lines.append(Line(loss, seeds, values))
    if base is not None and refused is None:
        try:
            lines = [_compared(line, cell, base, task, directions, draws) for line in lines]
        except ConfigError as error:
            refused = str(error)
    missing = tuple(_missing(cell, losses, expected))
    return CellReport(cell, base, tuple(lines), missing, refused, task.metric, tuple(directions))


def _base(cell: Cell, preferred: str) -> str | None:
    """The preferred loss that has a finished run, or its first setting, or the first loss that trains, or any."""
    settings = [name for name in cell.losses if name.startswith(f"{preferred} ") and preferred in cell.split]
    trained = [name for name in cell.losses if name not in cell.untrained]
    return next((name for name in (preferred, *settings, *trained, *cell.losses) if cell.of(name)), None)


def _compared(line: Line, cell: Cell, base: str, task: Any, directions: dict[str, bool], draws: int) -> Line:
    pairs = cell.pairs(line.loss, base)
    if line.loss == base or not pairs:
        return line
    # Predictions are read once; the metrics are other functions of the same sums.
    both = score_sums([run for side in zip(*pairs, strict=True) for run in side], task, task.metric)
    ours, theirs = (replace(both, sums=half) for half in np.split(both.sums, 2))
    against = {
        metric: compare(replace(ours, metric=metric), replace(theirs, metric=metric), greater, draws)
        for metric, greater in directions.items()
        if metric in line.values
    }
    return replace(line, against=against)


def _missing(cell: Cell, losses: Sequence[str], expected: Sequence[Key]) -> Iterable[str]:
    trained = {run.seed for run in cell.runs if run.loss not in cell.untrained}
    seeds = sorted({*trained, *(e[3] for e in expected)})
    # A finished run counts, whatever else was tried for its loss and seed.
    run_of = {(run.loss, run.seed): run for run in sorted(cell.runs, key=lambda run: run.done)}
    for loss in losses:
        for seed in seeds if loss not in cell.untrained else ():
            run = run_of.get((loss, seed))
            if run is None or not run.done:
                yield f"{loss} seed {seed}: {status(run) if run else 'not started'}"


def _corrected(reports: list[CellReport]) -> list[CellReport]:
    """Holm's correction over all comparisons of the table, metric by metric."""
    keys = [(i, j, m) for i, r in enumerate(reports) for j, line in enumerate(r.lines) for m in line.against]
    for metric in dict.fromkeys(m for _, _, m in keys):
        places = [(i, j) for i, j, m in keys if m == metric]
        corrected = holm([reports[i].lines[j].against[metric] for i, j in places])
        for (i, j), comparison in zip(places, corrected, strict=True):
            lines = list(reports[i].lines)
            lines[j] = replace(lines[j], against={**lines[j].against, metric: comparison})
            reports[i] = replace(reports[i], lines=tuple(lines))
    return reports
