"""Table of the decodings of a cell's runs, beside the answers as they were generated."""

from __future__ import annotations

from experiments.analysis import CellReport
from experiments.render.tables import mean_and_deviation
from ntil.console import Table, first_left
from ntil.runs.metric_names import PREFIX


def decoding_tables(report: CellReport) -> list[Table]:
    """One table per metric, a line per loss, a column per decoding; none where no run has any."""
    keys = list(dict.fromkeys(key for line in report.lines for key in line.values if key.startswith(PREFIX)))
    tables = []
    for metric in report.metrics:
        names = [key.removeprefix(PREFIX).removesuffix(f"/{metric}") for key in keys if key.endswith(f"/{metric}")]
        names = [name for name in names if "/" not in name]
        if not names:
            continue
        rows = [
            [
                line.loss,
                mean_and_deviation(line, metric),
                *(mean_and_deviation(line, f"{PREFIX}{name}/{metric}") for name in names),
            ]
            for line in report.lines
        ]
        columns = ["loss", "as generated", *names]
        title = f"{report.cell.task}, {report.cell.model}: {metric.replace('_', ' ')} by decoding"
        tables.append(Table(title, columns, first_left(columns), rows))
    return tables
