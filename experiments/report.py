"""`ntil report runs=<folder>`: the table of all runs below a folder, their learning curves and pictured predictions.

Files lie in <folder>/report/: table.md, curves.png, predictions.png. Runs that have not finished are shown as such.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from experiments import figures
from ntil.config import ConfigError, build
from ntil.runs import RunFolder, find
from tasks.base import Task

# What a reader looks for first; every other metric is in metrics.json.
HIDDEN = ("lenient_", "examples")


def main(words: list[str]) -> int:
    """
    Raises:
        ConfigError: no runs= given, or no run there.
    """
    keys = dict(word.partition("=")[::2] for word in words)
    root = keys.pop("runs", None)
    if root is None or keys:
        raise ConfigError("ntil report needs runs=<folder of runs> and takes nothing else")
    runs = find(root)
    if not runs:
        raise ConfigError(f"{root}: no run lies there")
    report(Path(root), runs)
    return 0


def report(root: Path, runs: Sequence[RunFolder]) -> None:
    folder = root / "report"
    folder.mkdir(exist_ok=True)
    paths = [run.path for run in runs]
    table = print_table(paths)
    extra = evaluations(runs)
    if extra:
        print_rows("again, on other data", extra)
    (folder / "table.md").write_text(markdown(table) + ("\n" + markdown(extra) if extra else ""))
    histories = {label(run): run.read_history() for run in runs}
    figures.curves(histories, _task(runs[0]).metric, folder / "curves.png")
    done = [run for run in runs if run.done]
    if done:
        pictures = {label(run): run.predictions for run in done}
        figures.predictions(_task(done[0]), _split(done[0]), pictures, folder / "predictions.png")
    print(f"runs, each with history, predictions and model: {root}")
    print(f"report: {folder}/table.md, curves.png, predictions.png")


def print_table(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Print and return one row per run: its name and metrics."""
    rows = []
    for run in map(RunFolder, paths):
        metrics = run.read_metrics() if run.done else {"not finished": 1.0}
        rows.append({"run": label(run), **shown(metrics)})
    print_rows("test", rows)
    return rows


def evaluations(runs: Sequence[RunFolder]) -> list[dict[str, Any]]:
    """A row for every `ntil eval` of these runs, with what its data is."""
    rows = []
    for run in runs:
        own = run.config()["task"]
        for again in map(RunFolder, sorted((run.path / "evaluations").glob("*"))):
            if again.done:
                task = again.config()["task"]
                changed = ", ".join(f"{k}={v}" for k, v in task.items() if own.get(k) != v and k != "labels")
                rows.append({"run": f"{label(run)} {changed}".strip(), **shown(again.read_metrics())})
    return rows


def label(run: RunFolder) -> str:
    config = run.config()
    return f"{config['loss']['name']} seed {config['seed']}"


def shown(metrics: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in metrics.items() if not k.startswith(HIDDEN)}
    return {"examples": int(metrics["examples"]), **kept} if "examples" in metrics else kept


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column.replace("_", " "), justify="left" if column == "run" else "right", no_wrap=False)
    for row in rows:
        table.add_row(*(cell(row.get(column)) for column in columns))
    Console(width=None if Console().is_terminal else 140).print(table)


def markdown(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [" | ".join(columns), " | ".join("---" if c == "run" else "---:" for c in columns)]
    lines += [" | ".join(cell(row.get(c)) for c in columns) for row in rows]
    return "".join(f"| {line} |\n" for line in lines)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _task(run: RunFolder) -> Task:
    return build("task", run.config()["task"])


def _split(run: RunFolder) -> str:
    return run.config()["evaluation"]["split"]
