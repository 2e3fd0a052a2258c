"""List the runs below a folder with their states.

    ntil status <folder of runs>

Every run below the folder: done, running with its ETA, failed with its last line, interrupted, waiting.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from rich.markup import escape
from rich.table import Table

from ntil.config.errors import ConfigError
from ntil.console import console
from ntil.runs.run import read_runs
from ntil.runs.status import State, status

STYLE = {"done": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "waiting": "dim"}


def main(arguments: list[str]) -> int:
    """Run `ntil status`; the exit code.

    Raises:
        ConfigError: no folder given, or no run in it.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ConfigError("ntil status needs one folder of runs, as in `ntil status runs/demo`")
    root = Path(arguments[0].removeprefix("runs=") or ".").expanduser()
    runs = read_runs(str(root)) if root.exists() else []
    if not runs:
        raise ConfigError(f"{root}: no run lies there")
    table = Table(title=escape(str(root)), title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    table.add_column("step", justify="right")
    table.add_column("note", overflow="fold")
    states = [status(run) for run in runs]
    for run, state in zip(runs, states, strict=True):
        path = run.folder.path
        name = str(path.relative_to(root)) if path != root else root.name
        style = STYLE[state.state]
        table.add_row(escape(name), f"[{style}]{state.state}", f"{state.step}/{state.steps}", escape(state.note))
    console().print(table)
    counts = {name: sum(state.state == name for state in states) for name in get_args(State)}
    console().print(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    return 0
