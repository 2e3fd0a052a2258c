"""What a job of a sweep costs: steps, memory, disk, time and GPU-hours, estimated or measured."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from data.common.counts import counted
from ntil.config.schema import OptimConfig
from ntil.console import duration, epochs, gigabytes
from ntil.distributed.ranks import ranks_on_this_host
from ntil.estimates.disk import DiskNeed, disk_need
from ntil.estimates.memory import MemoryNeed, memory_need
from ntil.estimates.time import STREAMING, UTILISATION, Device, test_seconds, training_seconds
from ntil.preflight import rank_count
from ntil.runs.checkpoints import complete_checkpoints, step_of
from ntil.runs.folder import read_json
from ntil.runs.run import Run


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


@dataclass(frozen=True)
class Cost:
    """Costs of a job; None where they are not known.

    seconds: of training, from the newest checkpoint on, and test. gpus: devices that it holds.
    """

    length: Length
    need: MemoryNeed | None
    disk_need: DiskNeed | None
    seconds: float | None
    measured: bool
    gpus: int

    @property
    def memory(self) -> str:
        return "not known" if self.need is None else gigabytes(self.need.peak)

    @property
    def disk(self) -> str:
        """At most while it runs, and what stays."""
        return "not known" if self.disk_need is None else _both(self.disk_need.peak, self.disk_need.remaining)

    @property
    def time(self) -> str:
        if self.seconds is None:
            return "not known yet"
        return duration(self.seconds) if self.measured else f"~ {duration(self.seconds)}"

    @property
    def gpu_hours(self) -> str:
        return "" if self.seconds is None or not self.gpus else f"{self.seconds * self.gpus / 3600:.1f}"


@dataclass(frozen=True)
class Estimator:
    """Costs of jobs on a device, with the measured seconds per step by `pace_key` where there are any."""

    device: Device
    paces: Mapping[tuple[str, ...], float]

    def cost(self, run: Run) -> Cost:
        config, length = run.config, Length.of(run)
        on_gpus = config.engine.device != "cpu" and _is_full_size(run)
        ranks = _ranks(run)
        pace = self.paces.get(pace_key(run))
        saved = _saved_step(run)
        if pace is not None:
            seconds = None if length.steps is None else max(0, length.steps - saved) * pace
        else:
            seconds = self._estimated(run, length, ranks, saved) if on_gpus else None
        gpus = ranks if on_gpus or torch.cuda.is_available() else 0
        return Cost(length, memory_need(config, ranks), disk_need(config), seconds, pace is not None, gpus)

    def _estimated(self, run: Run, length: Length, ranks: int, saved: int) -> float | None:
        steps = length.steps or run.config.optim.steps
        steps = None if steps is None else max(0, steps - saved)
        shared = run.built_task.expected_rows_per_picture("train")
        training = None if steps is None else training_seconds(run.config, steps, ranks, self.device, shared)
        rows = run.built_task.expected_rows(run.config.evaluation.split) or 0
        answers = run.built_task.max_new_tokens
        tested = test_seconds(run.config, rows, answers, ranks, self.device)
        return None if training is None or tested is None else training + tested

    def caption(self) -> str:
        """What the figures are."""
        return (
            f"planned; ~: estimated for {self.device.name}s at {UTILISATION:.0%} of their arithmetic and "
            f"{STREAMING:.0%} of their memory's speed, without data, validation and saving; disk: at most / at the end"
        )


def _saved_step(run: Run) -> int:
    """The step that an unfinished run goes on from; 0 of one that hasn't begun, or is done."""
    if run.done:
        return 0
    if run.folder.trained.exists():
        return int(read_json(run.folder.trained).get("step", 0))
    newest = complete_checkpoints(run.folder.checkpoints)[:1]
    return step_of(newest[0]) if newest else 0


def packing_remark(run: Run, cost: Cost) -> str | None:
    """One sentence on what a packed run's estimated time counts; None where it is no estimate or isn't packed."""
    if not run.config.packing.shares_tokens or cost.measured or cost.seconds is None:
        return None
    shared, mode = run.built_task.expected_rows_per_picture("train"), run.config.packing.mode
    if shared is None:
        return (
            f"{run.task}: how many rows show one picture isn't known before the data is read, so the estimated time "
            "counts every row with all that it could share; ntil rehearse counts packed tokens"
        )
    return f"{run.task}: the estimated time counts {shared:.3g} rows a picture, which packing={mode} shares"


def mixture_remark(run: Run) -> str | None:
    """One sentence on how much is drawn of each task of a mixture; None of a single task."""
    task = run.built_task
    counts = {name: member.expected_rows("train") for name, member in task.members.items()}
    if not counts:
        return None
    weighted = any(weight is not None for weight in (run.config.task.options.get("weights") or {}).values())
    if None in counts.values() and not weighted:
        return f"{run.task}: how much is drawn of each task follows from their rows, not known before they are read"
    shares = task.shares({name: count or 0 for name, count in counts.items()})
    return f"{run.task}: of the rows drawn, " + ", ".join(f"{name} {share:.1%}" for name, share in shares.items())


def pace_key(run: Run) -> tuple[str, ...]:
    """What runs that take about equally long for a step have in common: task, model, and how they are packed."""
    packing = run.config.packing
    return (run.task, run.model, packing.mode) if packing.on else (run.task, run.model)


def _is_full_size(run: Run) -> bool:
    return bool(run.config.model.options.get("checkpoint"))


def _ranks(run: Run) -> int:
    """Ranks of the run; of a full-size one on a machine without GPUs, the eight that its recipe is made for."""
    engine = run.config.engine
    if engine.processes is None and not engine.hostfile and not torch.cuda.is_available():
        return 8
    return rank_count(engine) if engine.hostfile else ranks_on_this_host(engine)


def total_disk(costs: Sequence[Cost]) -> str:
    """Disk of jobs that run one after the other: all that is remaining, and the largest peak; and what is missing."""
    needs = [cost.disk_need for cost in costs if cost.disk_need is not None]
    if not needs:
        return ""
    remaining = sum(need.remaining for need in needs)
    peak = remaining + max(need.peak - need.remaining for need in needs)
    return _both(peak, remaining)


def total_time(costs: Sequence[Cost]) -> tuple[str, str]:
    """The time that is left, and its GPU-hours."""
    unknown = sum(cost.seconds is None for cost in costs)
    left = duration(sum(cost.seconds or 0 for cost in costs))
    left = f"{left} left, and {counted(unknown, 'run')} not known yet" if unknown else f"{left} left"
    hours = sum((cost.seconds or 0) * cost.gpus for cost in costs) / 3600
    return left, f"{hours:.1f}" if hours else ""


def disk_warning(runs: str, costs: Sequence[Cost]) -> str | None:
    """One sentence where the sweep needs more disk than there is."""
    needs = [cost.disk_need for cost in costs if cost.disk_need is not None]
    place = Path(runs).expanduser().absolute()
    folder = next(p for p in (place, *place.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    peak = sum(need.remaining for need in needs) + max((need.peak - need.remaining for need in needs), default=0)
    if peak <= free:
        return None
    return f"the runs need about {gigabytes(peak)} GB of disk, and {gigabytes(free)} GB are free at {folder}"


def _both(peak: int, remaining: int) -> str:
    return f"{gigabytes(peak)} / {gigabytes(remaining)}"
