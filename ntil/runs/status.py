"""State of a run, from its folder alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ntil.console import duration
from ntil.runs.lock import owner
from ntil.runs.run import Run

State = Literal["done", "running", "failed", "interrupted", "waiting", "damaged"]


@dataclass(frozen=True)
class Status:
    """State of a run with the last logged step and all steps, None where these follow from rows not read yet.

    state: `done`, `running`, `failed` (error.txt), `interrupted` (no process works on it), `waiting` (not started),
        `damaged` (files that can't be read).
    """

    state: State
    step: int
    steps: int | None
    note: str

    def __str__(self) -> str:
        return f"{self.state}: {self.note}" if self.note else self.state


def status(run: Run) -> Status:
    """State of a run, from its lock, its files and its history."""
    history, steps = run.folder.read_history(), run.steps
    step = history[-1]["step"] if history else 0
    holder = owner(run.folder.path)
    if run.done:
        planned = step if steps is None else steps
        return Status("done", planned if run.trained_steps is None else run.trained_steps, steps, "")
    if holder is not None:
        phase = "testing, " if run.folder.trained.exists() else _eta(history, step, steps)
        return Status("running", step, steps, f"{phase}{holder}")
    if run.folder.error.exists():
        return Status("failed", step, steps, run.folder.last_error())
    if run.folder.checkpoints.exists() or history:
        return Status("interrupted", step, steps, "the same `ntil train` goes on with it")
    return Status("waiting", 0, steps, "")


def _eta(history: list[dict[str, Any]], step: int, steps: int | None) -> str:
    """Estimated time left as text, from the pace of the last 20 records; without the evaluation at the end."""
    if steps is None:
        return ""
    if step >= steps:
        return "saving, "
    seconds = pace(history[-20:])
    if seconds is None:
        return ""
    return f"ETA {duration(seconds * (steps - step) - (time.time() - history[-1]['time']))}, "


def pace(history: Sequence[dict[str, Any]]) -> float | None:
    """Seconds per step, with validation and saving, without the gaps before a process began.

    None where fewer than two steps were recorded.
    """
    timed = [record for record in history if "time" in record]
    gaps = [
        (after["step"] - before["step"], after["time"] - before["time"])
        for before, after in itertools.pairwise(timed)
        if not after.get("began")
    ]
    steps = sum(gap for gap, _ in gaps)
    return sum(seconds for _, seconds in gaps) / steps if steps > 0 else None
