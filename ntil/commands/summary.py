"""The metrics of several runs side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntil.console import Table, first_left
from ntil.evaluation.decoding_metrics import by_decoding
from ntil.runs.folder import RunFolder
from ntil.runs.run import Run
from ntil.runs.status import status

SIDE_BY_SIDE = 6  # runs that fit beside each other in a terminal
# Prefixes of metrics that are left out of the summary; metrics.json has them all.
HIDDEN = ("lenient_", "examples", "digit_", "expected_", "train_")


def print_metrics(folders: Sequence[Path]) -> None:
    """Print the metrics of every run, as `ntil train` does at its end."""
    runs = [one for folder in folders for one in Run.read(RunFolder(folder)).by_task]
    rows = [
        row
        for run, name in zip(runs, labels(runs), strict=True)
        for row in (metrics_rows(name, run.metrics) if run.done else [{"run": name, "state": str(status(run))}])
    ]
    metrics_table("test", rows).print()


def metrics_rows(name: str, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the summary: the generated answers' metrics, then those of every decoding beside them."""
    decodings = [
        {"run": f"{name}, {decoding}", **headline_metrics(values)} for decoding, values in by_decoding(metrics).items()
    ]
    return [{"run": name, **headline_metrics(metrics)}, *decodings]


def labels(runs: Sequence[Run]) -> list[str]:
    """Name of every run: `ntil seed 0`, preceded by task and model where there are several of them."""
    several = [len({run.task for run in runs}) > 1, len({run.model for run in runs}) > 1]
    return [
        " ".join([*itertools.compress((run.task, run.model), several), f"{run.loss} seed {run.seed}"]) for run in runs
    ]


def headline_metrics(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of the summary: none of a group or a decoding (they have a slash), and of `HIDDEN` only `examples`."""
    headline = {k: v for k, v in metrics.items() if not k.startswith(HIDDEN) and "/" not in k}
    return {"examples": int(metrics["examples"]), **headline} if "examples" in metrics else headline


def metrics_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Table with a line per metric and a column per run; transposed for more than `SIDE_BY_SIDE` runs."""
    keys = [k for k in dict.fromkeys(key for row in rows for key in row) if k != "run"]
    runs = [str(row["run"]) for row in rows]
    lines = [[key.replace("_", " "), *(cell(row.get(key)) for row in rows)] for key in keys]
    columns = ["metric", *runs]
    if len(rows) > SIDE_BY_SIDE:
        columns = ["run", *(line[0] for line in lines)]
        lines = [[run, *(line[i + 1] for line in lines)] for i, run in enumerate(runs)]
    return Table(title, columns, first_left(columns), lines)


def cell(value: Any) -> str:
    """Text of a table cell: floats with 4 significant digits, `-` for None."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
