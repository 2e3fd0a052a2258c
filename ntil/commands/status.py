"""List the runs below a folder with their states.

    ntil status <folder of runs>

Every run below the folder: done, running with its ETA, failed with its last line, interrupted, waiting; or
damaged, with the file that can't be read. The exit code is then 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from rich.markup import escape
from rich.table import Table

from data.common.errors import UserError
from ntil.config.errors import ConfigError
from ntil.console import console
from ntil.runs.folder import RunFolder, find_runs
from ntil.runs.run import Run
from ntil.runs.status import State, Status, status

STYLE = {
    "done": "green",
    "running": "cyan",
    "failed": "red",
    "interrupted": "yellow",
    "waiting": "dim",
    "damaged": "red",
}


def main(arguments: list[str]) -> int:
    """Run `ntil status`; the exit code.

    Raises:
        UserError: no folder given, no run in it, or a single one that can't be read.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        raise ConfigError("ntil status needs one folder of runs, as in `ntil status runs/demo`")
    root = Path(arguments[0].removeprefix("runs=") or ".").expanduser()
    folders = find_runs(root)
    if not folders:
        raise ConfigError(f"{root}: no run lies there")
    table = Table(title=escape(str(root)), title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    table.add_column("step", justify="right")
    table.add_column("note", overflow="fold")
    # Of a single run the error is all there is to say; several are listed, whatever is wrong with one.
    states = [state_of(folder) if len(folders) > 1 else status(Run.read(folder)) for folder in folders]
    for folder, state in zip(folders, states, strict=True):
        path = folder.path
        name = str(path.relative_to(root)) if path != root else root.name
        style, steps = STYLE[state.state], "?" if state.steps is None else state.steps
        table.add_row(
            escape(name),
            f"[{style}]{state.state}",
            f"{state.step}/{steps}",
            escape(state.note),
        )
    console().print(table)
    counts = {name: sum(state.state == name for state in states) for name in get_args(State)}
    console().print(", ".join(f"{count} {name}" for name, count in counts.items() if count))
    return 2 if counts["damaged"] else 0


def state_of(folder: RunFolder) -> Status:
    """State of the run in a folder; `damaged`, with what is wrong, where its files can't be read."""
    try:
        return status(Run.read(folder))
    except UserError as error:
        return Status("damaged", 0, 0, str(error))
