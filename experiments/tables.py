"""An analysis as text: Markdown and LaTeX tables with the same cells."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.analysis import CellReport, Line
from experiments.paper import Metric, PaperTable
from experiments.statistics import Comparison

Align = Literal["l", "r"]
# Metrics that are shown beside a task's own, where a run has them, with their short names.
CURRENCY = {
    "parse_failure_rate": "parse failures",
    "digit_nll": "digit NLL",
    "expected_error": "E abs error",
    "digit_mass": "digit mass",
}
# Behind a value of the overview, by the verdict against the base loss.
MARKS = {"better": "✓", "worse": "✗"}


@dataclass(frozen=True)
class Table:
    """Columns with their alignment, and rows of plain text."""

    title: str
    columns: list[str]
    align: list[Align]
    rows: list[list[str]]

    def markdown(self) -> str:
        rule = ["---:" if a == "r" else "---" for a in self.align]
        lines = [self.columns, rule, *self.rows]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def latex(self) -> str:
        rows = [" & ".join(map(_escaped, row)) + r" \\" for row in self.rows]
        head = " & ".join(map(_escaped, self.columns)) + r" \\"
        lines = [
            r"\begin{table}",
            rf"\caption{{{_escaped(self.title)}}}",
            rf"\begin{{tabular}}{{{''.join(self.align)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$"}
    special |= {"<": r"$<$", ">": r"$>$", "$": r"\$", "✓": r"$\checkmark$", "✗": r"$\times$"}
    return "".join(special.get(c, c) for c in text)


def cell_tables(report: CellReport, metrics: Sequence[str]) -> list[Table]:
    """One table per metric, a line per loss: mean ± standard deviation over seeds and what the statistics say of it.

    The last is the currency in which all losses can be compared, whatever they train.
    """
    name = f"{report.cell.task}, {report.cell.model}"
    lines = [line for line in report.lines if line.values or line.loss in report.cell.losses]
    found = [
        _metric_table(report, metric, f"{name}: {metric.replace('_', ' ')}")
        for metric in dict.fromkeys(metrics)
        if any(metric in line.values for line in lines)
    ]
    extra = [m for m in CURRENCY if any(m in line.values for line in lines)]
    if extra:
        rows = [[line.loss, *(spread(line, m) for m in extra)] for line in report.lines]
        columns = ["loss", *(CURRENCY[m] for m in extra)]
        found.append(Table(f"{name}: one currency for all losses", columns, _aligned(columns), rows))
    return found


def overview(reports: Sequence[CellReport]) -> Table | None:
    """Everything in one table: a line per task, model and metric, a column per loss; None where nothing is finished."""
    shown = [r for r in reports if any(line.values for line in r.lines)]
    if not shown:
        return None
    losses = list(dict.fromkeys(line.loss for r in shown for line in r.lines))
    rows = []
    for r in shown:
        lines = {line.loss: line for line in r.lines}
        for metric in (m for m in r.metrics if any(m in line.values for line in r.lines)):
            cells = [_marked(lines[loss], metric) if loss in lines else "-" for loss in losses]
            named = f"{metric.replace('_', ' ')}{' (no comparison)' if r.refused else ''}"
            rows.append([r.cell.task, r.cell.model, named, *cells])
    bases = " or ".join(dict.fromkeys(r.base for r in shown if r.base))
    columns, align = ["task", "model", "metric", *losses], ["l", "l", "l", *["r"] * len(losses)]
    return Table(f"All in one: ✓ better, ✗ worse than {bases}, else not distinguishable", columns, align, rows)  # type: ignore[arg-type]


def _marked(line: Line, metric: str) -> str:
    found = line.against.get(metric)
    return f"{spread(line, metric)} {MARKS.get(found.verdict, '') if found else ''}".rstrip()


def _metric_table(report: CellReport, metric: str, title: str) -> Table:
    columns = ["loss", "seeds", metric.replace("_", " ")]
    compared = any(metric in line.against for line in report.lines)
    if compared:
        columns += [f"difference to {report.base} [95 %]", "p (Holm)", "verdict", "seeds needed"]
    rows = []
    for line in report.lines:
        row = [line.loss, str(len(line.seeds)), spread(line, metric)]
        rows.append(row + _compared(line.against.get(metric)) if compared else row)
    return Table(title, columns, _aligned(columns), rows)


def _aligned(columns: Sequence[str]) -> list[Align]:
    return ["l", *["r"] * (len(columns) - 1)]  # type: ignore[list-item]


def spread(line: Line, metric: str) -> str:
    """`0.801 ± 0.011`: mean and standard deviation over seeds; `missing` where no seed is finished."""
    mean, deviation = line.mean(metric), line.deviation(metric)
    if mean is None:
        return "missing" if not line.seeds else "-"
    if deviation is None:
        return number(mean)
    # As many decimals as give the deviation two figures.
    decimals = 2 - math.ceil(math.log10(deviation)) if deviation > 0 else 4
    return f"{mean:.{min(max(decimals, 0), 6)}f} ± {deviation:.{min(max(decimals, 0), 6)}f}"


def _compared(found: Comparison | None) -> list[str]:
    if found is None:
        return ["-"] * 4
    interval = f"{found.difference:+.3g} [{found.low:+.3g}, {found.high:+.3g}]"
    seeds = found.seeds_needed
    needed = "-" if seeds is None else "more examples" if math.isinf(seeds) else str(seeds)
    return [interval, f"{found.p_holm:.3f}", found.verdict, needed]


def number(value: float) -> str:
    return f"{value:.4g}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"


def paper_table(paper: PaperTable, metric: Metric, reports: Sequence[CellReport], scale: str) -> Table:
    """The published column beside ours, row by row; what nobody has is `-`, what of ours is not finished `missing`.

    A published figure of a model is one over all data sets; ours, where there are several tasks, is their mean.
    """
    cells: dict[str, list[CellReport]] = {}
    for report in reports:
        if metric.key in report.metrics or not report.metrics:  # a cell of which nothing is there has none
            cells.setdefault(report.cell.model, []).append(report)
    rows_with = [row for row in paper.rows if metric.key in row.figures]
    published = [loss for loss in paper.losses if any(loss in row.figures[metric.key] for row in rows_with)]
    ours = list(dict.fromkeys([*published, *(line.loss for r in reports for line in r.lines)]))
    columns = ["model", *(f"paper {loss}" for loss in published), "our model", *(f"ours {loss}" for loss in ours)]
    rows = []
    for row in rows_with:
        model, figures = row.models[scale], row.figures[metric.key]
        found = [_over_tasks(cells.get(model, []), loss, metric) for loss in ours]
        rows.append([row.name, *(_plain(figures.get(loss)) for loss in published), model, *found])
    title = f"{paper.title}: {metric.name}, published ({paper.source}) and ours"
    if any(len(found) > 1 for found in cells.values()):
        title += ", the mean over " + ", ".join(dict.fromkeys(r.cell.task for found in cells.values() for r in found))
    align: list[Align] = ["l", *["r"] * len(published), "l", *["r"] * len(ours)]  # type: ignore[list-item]
    return Table(title, columns, align, rows)


def _over_tasks(reports: Sequence[CellReport], loss: str, metric: Metric) -> str:
    """Over the seeds that are finished on all tasks: a mean over some of them is another figure."""
    by_seed = [_by_seed(report, loss, metric) for report in reports]
    seeds = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    means = [statistics.fmean(one[seed] for one in by_seed) for seed in seeds]
    return spread(Line(loss, tuple(seeds), {metric.key: means}), metric.key)


def _by_seed(report: CellReport, loss: str, metric: Metric) -> dict[int, float]:
    runs = report.cell.of(loss).items()
    return {seed: metric.scale * run.metrics[metric.key] for seed, run in runs if metric.key in run.metrics}


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
