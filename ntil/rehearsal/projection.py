"""From the measured phases of a rehearsal to the hours and the disk of a run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from ntil.config.schema import RunConfig
from ntil.rehearsal.meter import Measure
from ntil.rehearsal.perform import Outcome


@dataclass(frozen=True)
class Projection:
    """Seconds and bytes of one run.

    about, at_most: seconds, with steps on rows of mean length, and on the longest; of a packed run, steps of as many
    tokens as the mean, and of the most. disk: bytes on disk when the run is done. disk_peak: the most before.
    """

    steps: int
    about: float
    at_most: float
    disk: int
    disk_peak: int


@dataclass(frozen=True)
class Counts:
    """Rows of a run's own splits: to train on, to validate on each time, and to test on."""

    train: int
    validation: int
    test: int


def project(config: RunConfig, outcome: Outcome, rows: Counts) -> Projection:
    """Project the run on its own rows from the rehearsal of its like."""
    steps = config.optim.steps_for(rows.train)
    assert steps is not None
    train = outcome.rows["train"]
    longest = steps * step_seconds(outcome)
    saves = (steps - 1) // config.save_every if config.save_every else 0  # the last step saves the model itself
    saves = max(saves, int(longest // (60 * config.save_minutes)) if config.save_minutes else 0)
    validations = steps // config.evaluation.every_steps if config.evaluation.every_steps else 0
    once = sum(seconds(outcome, name) for name in ("data", "load", "engine", "save model"))
    once += _evaluation(outcome, rows.test)
    once += saves * seconds(outcome, "save") + validations * _validation(outcome, rows.validation)
    checkpoints = min(saves, config.keep_checkpoints + bool(validations))
    models = 3 if config.evaluation.test == "best" else 1  # the best weights so far, and better ones being written
    peak = models * outcome.model + (checkpoints + bool(saves)) * outcome.checkpoint
    disk = outcome.model + checkpoints * outcome.checkpoint * config.keep_checkpoints_when_done
    mean = longest * train.mean / train.taken
    # Packed steps are ordered anew in a rehearsal, which may leave them smaller than the mean.
    return Projection(steps, once + mean, once + max(mean, longest), disk, peak)


def seconds(outcome: Outcome, phase: str) -> float:
    """Seconds of a phase: of the slowest rank, and the longest where there are several; 0 where there was none."""
    return max((m.seconds for m in _measures(outcome, phase)), default=0.0)


def timed_steps(outcome: Outcome) -> list[list[Measure]]:
    """Steps [step][rank] after the first of their process, and not slowed by a profiler; else all."""
    by_step: dict[int, list[Measure]] = {}
    for measure in _measures(outcome, "step"):
        by_step.setdefault(measure.step or 0, []).append(measure)
    steps = sorted(by_step)
    return [by_step[step] for step in steps[1:-1] or steps]


def step_seconds(outcome: Outcome) -> float:
    """Median over steps of the seconds of the slowest rank."""
    return statistics.median(max(m.seconds for m in ranks) for ranks in timed_steps(outcome))


def _validation(outcome: Outcome, rows: int) -> float:
    rehearsed = outcome.rows.get("validation")
    return 0.0 if rehearsed is None else seconds(outcome, "validation") * rows / len(rehearsed.indices)


def _evaluation(outcome: Outcome, rows: int) -> float:
    """Seconds of the final evaluation of so many rows; the weights are loaded once."""
    scored = seconds(outcome, "evaluation") * rows / len(outcome.rows["test"].indices)
    return seconds(outcome, "load trained") + scored


def _measures(outcome: Outcome, phase: str) -> Iterable[Measure]:
    return (m for measures in outcome.measures.values() for m in measures if m.phase == phase)
