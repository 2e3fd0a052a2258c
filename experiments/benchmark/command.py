"""Compare losses by a protocol that is fixed before: an equal search for each, then seeds at each one's best.

    ntil benchmark of=numbers                    every stage in turn; again: goes on. Two calls share the runs
    ntil benchmark of=numbers stage=pilot        spread over seeds, how many seeds the protocol needs, screened losses
    ntil benchmark of=mine.yaml dry_run=true     how many runs each stage has, and how many are done
    ntil benchmark of=numbers stage=report to=docs/results/benchmark

of: a file, or a name in conf/benchmark. Stages: pilot, search, seeds, report; all: search, seeds and report. The
protocol is frozen in <runs>/<name>/protocol.json when the search begins, and may not be changed after. runs, name:
where the runs lie; the name is that of the file unless given. to: a folder for the report, else <runs>/<name>/report.
retry: run again what failed before.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from omegaconf import MISSING
from rich.console import Console

from data.common.counts import counted
from experiments.benchmark.protocol import FROZEN, Protocol, check_frozen, file_of, freeze, read
from experiments.benchmark.report import cell_names, searched_keys, write
from experiments.benchmark.stages import Job, Stages, run
from experiments.benchmark.statistics import seeds_for
from experiments.render.tables import signed
from ntil import preflight
from ntil.commands.options import parse_options
from ntil.components import build_task
from ntil.config.errors import ConfigError, nearest
from ntil.console import Table, first_left
from ntil.launch.sweep import Sweep
from ntil.runs.folder import folder_of

STAGES = ("all", "pilot", "search", "seeds", "report")


@dataclass
class BenchmarkOptions:
    """Options of `ntil benchmark`."""

    of: str = MISSING
    stage: str = "all"
    runs: str = "runs"
    name: str = ""
    dry_run: bool = False
    to: str = ""
    retry: bool = False


def main(arguments: list[str]) -> int:
    """Run `ntil benchmark`; the exit code, 1 where a tuned or untuned run failed.

    Raises:
        ConfigError: an unknown stage or protocol, one that was changed after its first run, or stages out of order.
    """
    options = parse_options("benchmark", BenchmarkOptions, arguments)
    if options.stage not in STAGES:
        raise ConfigError(f"ntil benchmark: no stage {options.stage!r}{nearest(options.stage, STAGES)}")
    file = file_of(options.of)
    folder = Path(options.runs, options.name or file.stem)
    stages = Stages(read(file), folder, options.retry)
    cell_names(stages)
    stages.check_search()
    if options.dry_run:
        with Console().status("looking at the runs"):
            table = plan(stages)
        table.print()
        return 0
    if options.stage == "pilot":
        return _pilot(stages)
    failed = 0
    if options.stage in ("all", "search"):
        _freeze(stages, folder)
        # A trial that diverges counts as the worst; one that failed otherwise has to be run again. The others go on.
        _failed(run(stages.searches(), _progress("search")))
    else:
        check_frozen(stages.protocol, folder)
    if options.stage in ("all", "seeds"):
        sweep = run([*stages.seeds(True), *stages.seeds(False)], _progress("seeds"))
        failed = _failed(sweep)
    if options.stage in ("all", "report"):
        print(f"report: {write(stages, Path(options.to or folder / 'report'))}")
    return 1 if failed else 0


def _freeze(stages: Stages, folder: Path) -> None:
    """Freeze the protocol, once it is known that its runs can be started: afterwards it may not be changed."""
    protocol = stages.protocol
    if not (folder / FROZEN).exists():
        for cell, loss in product(protocol.cells, protocol.losses):
            preflight.check(stages.search(cell, loss)[0].config)
    freeze(protocol, folder)


def _progress(stage: str) -> Callable[[int, int], None]:
    """What prints how far a stage is."""
    return lambda done, of: print(f"{stage}: {done} of {counted(of, 'run')}", flush=True)


def _failed(sweep: Sweep) -> int:
    for folder, error in sweep.failed:
        print(f"failed: {folder}: {error}")
    return len(sweep.failed)


def _pilot(stages: Stages) -> int:
    jobs, pilot = stages.pilot(), stages.protocol.pilot
    _failed(run(jobs, _progress("pilot"), passes_over=bool(pilot.screened)))
    power(stages.protocol, jobs).print()
    if pilot.screened:
        screened(stages, jobs).print()
    # A screened loss that can't be had is one of its answers.
    return int(any(job.loss in pilot.losses and not folder_of(job.config).done for job in jobs))


def power(protocol: Protocol, jobs: Sequence[Job]) -> Table:
    """The spread of the pilot's differences between its losses, and how many seeds show the smallest effect."""
    first, *others = protocol.pilot.losses
    rows = []
    for cell in protocol.cells:
        scores: dict[str, dict[int, float]] = {loss: {} for loss in protocol.pilot.losses}
        for job in (job for job in jobs if job.cell == cell and job.loss in scores):
            if (folder := folder_of(job.config)).done:
                scores[job.loss][job.config.seed] = folder.read_metrics()[build_task(job.config).metric]
        for other in others:
            gaps = [score - scores[first][seed] for seed, score in scores[other].items() if seed in scores[first]]
            if len(gaps) < 2:  # the others failed
                rows.append([cell, f"{other} - {first}", "-", "-", "-", "-"])
                continue
            needed = seeds_for(gaps, protocol.smallest_effect)
            enough = "yes" if needed <= len(protocol.seeds) else "no"
            spread = f"{statistics.stdev(gaps):.3g}"
            rows.append([cell, f"{other} - {first}", signed(statistics.fmean(gaps)), spread, str(needed), enough])
    planned = counted(len(protocol.seeds), "seed")
    title = f"seeds that show a difference of {protocol.smallest_effect} with 80 % power; planned: {planned}"
    columns = ["cell", "difference", "mean", "deviation over seeds", "seeds needed", "enough planned"]
    return Table(title, columns, first_left(columns), rows)


def screened(stages: Stages, jobs: Sequence[Job]) -> Table:
    """The scores of all losses of the pilot on its first seed; a dash where a loss failed or can't be had."""
    protocol = stages.protocol
    scores: dict[tuple[str, str], str] = {}
    metrics = {}
    for job in jobs:
        config = job.config
        metrics[job.cell] = build_task(config).metric
        if config.seed == protocol.pilot.seeds[0] and (folder := folder_of(config)).done:
            scores[job.loss, job.cell] = f"{folder.read_metrics()[metrics[job.cell]]:.3f}"
    rows = [
        [loss, *(scores.get((loss, cell), "-") for cell in protocol.cells)]
        for loss in dict.fromkeys(job.loss for job in jobs)
    ]
    columns = ["loss", *(f"{cell}, {metrics[cell]}" for cell in protocol.cells)]
    return Table(f"screened: defaults, seed {protocol.pilot.seeds[0]}", columns, first_left(columns), rows)


def plan(stages: Stages) -> Table:
    """How many runs each stage has, and how many are done; the tuned ones are known once the search is done."""
    rows = []
    for stage, jobs in (("pilot", stages.pilot()), ("search", stages.searches()), ("untuned", stages.seeds(False))):
        done = sum(folder_of(job.config).done for job in jobs)
        rows.append([stage, str(len(jobs)), str(done)])
    protocol = stages.protocol
    count = len(protocol.cells) * len(protocol.losses) * len(protocol.seeds)
    try:
        done_tuned = str(sum(folder_of(job.config).done for job in stages.seeds(True)))
    except ConfigError:
        done_tuned = "-"
    rows.append(["tuned", str(count), done_tuned])
    for loss, keys in searched_keys(stages).items():
        rows.append([f"{loss}: searched over {', '.join(keys) or 'nothing'}", "", ""])
    columns = ["stage", "runs", "done"]
    return Table(protocol.title, columns, first_left(columns), rows)
