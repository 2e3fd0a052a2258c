"""`ntil status <folder of runs>`: every run below it: done, running with ETA, failed with its error."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ntil.config import ConfigError
from ntil.lock import age, owner
from ntil.runs import RunFolder, find

STYLE = {"done": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "waiting": "dim"}


@dataclass(frozen=True)
class Status:
    """What is known of a run from its folder alone.

    state: `done`, `running`, `failed` (error.txt), `interrupted` (nobody works on it now), `waiting` (not started).
    """

    run: RunFolder
    state: str
    step: int
    steps: int
    note: str


def main(words: list[str]) -> int:
    """
    Raises:
        ConfigError: no folder given, or no run in it.
    """
    if len(words) != 1:
        raise ConfigError("ntil status needs one folder of runs, as in `ntil status runs/demo`")
    root = Path(words[0].removeprefix("runs=") or ".")
    runs = find(root) if root.exists() else []
    if not runs:
        raise ConfigError(f"{root}: no run lies there")
    found = [status(run) for run in runs]
    table = Table(title=str(root), title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    table.add_column("step", justify="right")
    table.add_column("note", overflow="fold")
    for one in found:
        name = str(one.run.path.relative_to(root)) if one.run.path != root else root.name
        table.add_row(escape(name), f"[{STYLE[one.state]}]{one.state}", f"{one.step}/{one.steps}", escape(one.note))
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    counts = {state: sum(one.state == state for one in found) for state in STYLE}
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return 0


def status(run: RunFolder) -> Status:
    config, history = run.config(), run.read_history()
    steps = config["optim"]["steps"]
    step = history[-1]["step"] if history else 0
    holder = owner(run.path)
    if run.done:
        return Status(run, "done", steps, steps, "")
    if holder is not None:
        return Status(run, "running", step, steps, f"{_eta(history, step, steps)}{holder}")
    if run.error.exists():
        return Status(run, "failed", step, steps, run.error.read_text().strip().splitlines()[-1])
    if run.checkpoints.exists() or history:
        return Status(run, "interrupted", step, steps, "the same `ntil train` goes on with it")
    return Status(run, "waiting", 0, steps, "")


def _eta(history: list[dict[str, Any]], step: int, steps: int) -> str:
    """From the pace of the last records; the evaluation at the end is not in it."""
    if step >= steps:
        return "evaluating, "
    seconds = pace(history[-20:])
    if seconds is None:
        return ""
    return f"ETA {age(seconds * (steps - step) - (time.time() - history[-1]['time']))}, "


def pace(history: Sequence[dict[str, Any]]) -> float | None:
    """Seconds per step, validation and saving counted; what lies before a process began is not.

    None where fewer than two steps were recorded.
    """
    seen = [record for record in history if "time" in record]
    gaps = [
        (after["step"] - before["step"], after["time"] - before["time"])
        for before, after in itertools.pairwise(seen)
        if not after.get("began")
    ]
    steps = sum(gap for gap, _ in gaps)
    return sum(seconds for _, seconds in gaps) / steps if steps > 0 else None
