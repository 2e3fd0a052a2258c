"""What a rehearsal prints: phases of every rehearsed run, and what the sweep will take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from data.common.counts import counted
from ntil.config.schema import RunConfig
from ntil.console import Table, duration, first_left, gigabytes
from ntil.estimates.memory import memory_need
from ntil.estimates.time import device_here
from ntil.launch.costs import Estimator
from ntil.preflight import rank_count
from ntil.rehearsal.meter import Measure
from ntil.rehearsal.perform import Outcome
from ntil.rehearsal.projection import Projection, timed_steps
from ntil.runs.run import Run

TRAINING = ("data", "load", "engine", "first step", "step", "save", "resume", "validation", "save model")
PHASES = (*TRAINING, "load trained", "evaluation", "export")
PARTS = ("data", "forward", "backward", "optimizer")


@dataclass(frozen=True)
class Rehearsed:
    """A rehearsed run with the config that was rehearsed, and what each run of its kind will take."""

    title: str
    run: Run
    config: RunConfig
    outcome: Outcome
    projections: list[Projection]


def phase_table(rehearsed: Rehearsed) -> Table:
    """Seconds (of the slowest rank), peak memory (of the largest) of every phase, and the parts of a step."""
    on_gpu = torch.cuda.is_available()
    memory = ["GPU GB", "reserved GB", "host GB"] if on_gpu else ["GB"]
    columns = ["phase", "seconds", *memory, *(f"{part} s" for part in PARTS)]
    rows = []
    for phase in PHASES:
        measures = _of_phase(rehearsed.outcome, phase)
        if measures:
            parts = [_part(measures, part) if "step" in phase else "" for part in PARTS]
            rows.append([phase, f"{max(m.seconds for m in measures):.3g}", *_memory(measures, on_gpu), *parts])
    return Table(rehearsed.title, columns, first_left(columns), rows)


def _of_phase(outcome: Outcome, phase: str) -> list[Measure]:
    measures = [m for ranks in outcome.measures.values() for m in ranks]
    if phase == "first step":
        return [m for m in measures if m.step == 1]
    if phase == "step" and any(m.step for m in measures):
        return [m for ranks in timed_steps(outcome) for m in ranks]
    return [m for m in measures if m.phase == phase]


def _part(measures: Sequence[Measure], part: str) -> str:
    values = [m.parts[part] for m in measures if part in m.parts]
    return f"{statistics.median(values):.3g}" if values else ""


def _memory(measures: Sequence[Measure], on_gpu: bool) -> list[str]:
    host = gigabytes(max(m.memory.host for m in measures))
    if not on_gpu:
        return [host]
    return [*(gigabytes(max(getattr(m.memory, key) or 0 for m in measures)) for key in ("gpu", "reserved")), host]


def communication_line(outcome: Outcome) -> str | None:
    """How long collective operations took in the profiled step."""
    profiled = [m for measures in outcome.measures.values() for m in measures if "communication" in m.parts]
    if not profiled:
        return None
    busy, total = max(m.parts["communication"] for m in profiled), max(m.seconds for m in profiled)
    return (
        f"collective operations are busy for {busy:.3g} s of the last step's {total:.3g} s, which ran under a profiler"
    )


def waits_line(outcome: Outcome) -> str | None:
    """What a step waits for most."""
    steps = _of_phase(outcome, "step")
    if not steps:
        return None
    total = sum(m.seconds for m in steps)
    shares = {part: sum(m.parts.get(part, 0.0) for m in steps) / total for part in PARTS}
    listed = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))
    return f"a step is {listed} (backward with the loss and what of communication isn't overlapped)"


def sweep_table(rehearsals: Sequence[Rehearsed]) -> Table:
    """Time, GPU-hours, disk and memory of every kind of run and of the sweep, beside what was estimated."""
    unit = "GPU-hours" if torch.cuda.is_available() else "process-hours"
    columns = ["run", "runs", "steps", "a run", "at most", "estimated", f"{unit}, all", "at most"]
    columns += ["disk of a run, GB", "estimated", "GB per rank", "estimated"]
    rows, total = [], [0.0, 0.0, 0.0, 0.0]
    for one in rehearsals:
        estimated = Estimate.of(one.run)
        memory = [_measured(one.outcome), estimated.memory]
        if one.outcome.failure is not None:
            rows.append([one.title, "-", "-", "-", "-", estimated.time, "-", "-", "-", estimated.disk, *memory])
            continue
        ranks, first = rank_count(one.config.engine), one.projections[0]
        about, most = (sum(getattr(p, key) for p in one.projections) for key in ("about", "at_most"))
        total = [a + b for a, b in zip(total, (about, most, ranks * about, ranks * most), strict=True)]
        times = [str(first.steps), duration(first.about), duration(first.at_most), estimated.time]
        hours = [f"{ranks * value / 3600:.3g}" for value in (about, most)]
        disk = f"{gigabytes(first.disk_peak)} / {gigabytes(first.disk)}"
        rows.append([one.title, str(len(one.projections)), *times, *hours, disk, estimated.disk, *memory])
    projections = [projection for one in rehearsals for projection in one.projections]
    sums = [duration(total[0]), duration(total[1]), "", *(f"{value / 3600:.3g}" for value in total[2:])]
    left = sum(p.disk for p in projections)
    peak = left + max((p.disk_peak - p.disk for p in projections), default=0)
    rows.append(["all", str(len(projections)), "", *sums, f"{gigabytes(peak)} / {gigabytes(left)}", "", "", ""])
    caption = "projected; estimated: as by --dry-run; disk: at most / when it is done"
    return Table(caption, columns, first_left(columns), rows)


@dataclass(frozen=True)
class Estimate:
    """What `ntil train --dry-run` says of a run, as text."""

    memory: str
    disk: str
    time: str

    @classmethod
    def of(cls, run: Run) -> Estimate:
        config = run.config
        need = memory_need(config, rank_count(config.engine), run.built_task.max_new_tokens)
        cost = Estimator(device_here(), {}).cost(run)
        return cls("not known" if need is None else gigabytes(need.peak), cost.disk, cost.time)


def _measured(outcome: Outcome) -> str:
    """Peak memory of a rank over the whole rehearsal: on the GPU, else resident."""
    peaks = [m.memory.host if m.memory.gpu is None else m.memory.gpu for ms in outcome.measures.values() for m in ms]
    return gigabytes(max(peaks)) if peaks else "-"


def verdict(rehearsals: Sequence[Rehearsed], failures: Sequence[str]) -> str:
    """The last line."""
    if failures:
        return f"{counted(len(failures), 'problem')}: the sweep would not go through as it is"
    runs = sum(len(one.projections) for one in rehearsals)
    kinds = counted(len(rehearsals), "kind")
    return f"{counted(runs, 'run')} of {kinds} rehearsed: neither memory nor disk nor a typo will end the sweep"
