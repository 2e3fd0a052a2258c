"""An analysis as text: Markdown and LaTeX tables with the same cells."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Sequence

from data.common.counts import counted
from experiments.analysis import CellReport, Line
from experiments.paper import Metric, PaperTable
from experiments.significance import Comparison
from ntil.console import Align, Table, first_left

# Metrics shown besides a task's own, where a run has them, with their short names.
TEACHER_FORCED_METRICS = {
    "parse_failure_rate": "parse failures",
    "digit_nll": "digit NLL",
    "expected_error": "E abs error",
    "digit_mass": "digit mass",
}
# Marks after a value in the overview, by the verdict against the base loss.
MARKS = {"better": "✓", "worse": "✗"}


def cell_tables(report: CellReport, metrics: Sequence[str]) -> list[Table]:
    """One table per metric, a line per loss: mean ± standard deviation over seeds, and the comparison with the base.

    The last table has the teacher-forced figures, which are comparable over losses.
    """
    name = f"{report.cell.task}, {report.cell.model}"
    lines = [line for line in report.lines if line.values or line.loss in report.cell.losses]
    tables = [
        _metric_table(report, metric, f"{name}: {metric.replace('_', ' ')}")
        for metric in dict.fromkeys(metrics)
        if any(metric in line.values for line in lines)
    ]
    extra = [m for m in TEACHER_FORCED_METRICS if any(m in line.values for line in lines)]
    if extra:
        rows = [[line.loss, *(mean_and_deviation(line, m) for m in extra)] for line in report.lines]
        columns = ["loss", *(TEACHER_FORCED_METRICS[m] for m in extra)]
        tables.append(Table(f"{name}: the same figures for all losses", columns, first_left(columns), rows))
    return tables


def overview(reports: Sequence[CellReport]) -> Table | None:
    """One table of all cells: a line per task, model and metric, a column per loss; None where nothing is finished."""
    with_values = [r for r in reports if any(line.values for line in r.lines)]
    if not with_values:
        return None
    losses = list(dict.fromkeys(line.loss for r in with_values for line in r.lines))
    bases = list(dict.fromkeys(r.base for r in with_values if r.base))
    rows = []
    for r in with_values:
        lines = {line.loss: line for line in r.lines}
        for metric in (m for m in r.metrics if any(m in line.values for line in r.lines)):
            cells = [_marked(lines[loss], metric) if loss in lines else "-" for loss in losses]
            label = f"{metric.replace('_', ' ')}{_remark(r, len(bases) > 1)}"
            rows.append([r.cell.task, r.cell.model, label, *cells])
    columns = ["task", "model", "metric", *losses]
    align: list[Align] = ["l", "l", "l", *["r"] * len(losses)]  # type: ignore[list-item]
    title = f"All in one: ✓ better, ✗ worse than {' or '.join(bases)}, else not distinguishable"
    return Table(title, columns, align, rows)


def _remark(report: CellReport, several_bases: bool) -> str:
    if report.refused:
        return " (no comparison)"
    return f" (against {report.base})" if several_bases and report.base else ""


def _marked(line: Line, metric: str) -> str:
    comparison = line.against.get(metric)
    mark = MARKS.get(comparison.verdict, "") if comparison else ""
    return f"{mean_and_deviation(line, metric)} {mark}".rstrip()


def _metric_table(report: CellReport, metric: str, title: str) -> Table:
    columns = ["loss", "seeds", metric.replace("_", " ")]
    compared = any(metric in line.against for line in report.lines)
    if compared:
        columns += [f"difference to {report.base} [95 %]", "p (Holm)", "verdict", "seeds needed"]
    rows = []
    for line in report.lines:
        row = [line.loss, str(len(line.seeds)), mean_and_deviation(line, metric)]
        rows.append(row + comparison_cells(line.against.get(metric), _seeds(report, line)) if compared else row)
    return Table(title, columns, first_left(columns), rows)


def _seeds(report: CellReport, line: Line) -> set[int]:
    """How many seeds the means have that a line compares; an untrained model stands beside every seed."""
    sides = [one for one in report.lines if one.loss in (line.loss, report.base)]
    return {len(one.seeds) for one in sides if one.loss not in report.cell.untrained}


def mean_and_deviation(line: Line, metric: str) -> str:
    """`0.801 ± 0.011`: mean and standard deviation over seeds; `missing` where no seed is finished."""
    mean, deviation = line.mean(metric), line.deviation(metric)
    if mean is None:
        return "missing" if not line.seeds else "-"
    if deviation is None:
        return number(mean)
    # As many decimals as give the deviation two figures.
    decimals = 2 - math.ceil(math.log10(deviation)) if deviation > 0 else 4
    return f"{mean:.{min(max(decimals, 0), 6)}f} ± {deviation:.{min(max(decimals, 0), 6)}f}"


def comparison_cells(comparison: Comparison | None, seeds_of_means: Collection[int] = ()) -> list[str]:
    """Difference with its interval, p, verdict and seeds needed, as text.

    Args:
        seeds_of_means: how many seeds the means beside it are over. Where it is over fewer, that is said, since it is
            not the difference of those means then.
    """
    if comparison is None:
        return ["-"] * 4
    interval = f"{signed(comparison.difference)} [{signed(comparison.low)}, {signed(comparison.high)}]"
    if set(seeds_of_means) - {comparison.seeds}:
        interval += f" over {counted(comparison.seeds, 'common seed')}"
    seeds = comparison.seeds_needed
    needed = "-" if seeds is None else "more examples" if math.isinf(seeds) else str(seeds)
    p = comparison.p_holm
    return [interval, "< 0.001" if p < 0.001 else f"{p:.3f}", comparison.verdict, needed]


def signed(value: float) -> str:
    """A difference with its sign; what sums of scores that are equal leave (-9e-18) is none."""
    return f"{0.0 if abs(value) < 1e-12 else value:+.3g}"


def number(value: float) -> str:
    """Text of a value: 4 significant digits, 3 below 0.1."""
    return f"{value:.4g}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"


def paper_table(paper: PaperTable, metric: Metric, reports: Sequence[CellReport], scale: str) -> Table:
    """The published column beside ours, row by row; `-` without a value, `missing` where ours is not finished.

    A published figure of a model is one over all data sets; ours, where there are several tasks, is their mean.
    """
    cells: dict[str, list[CellReport]] = {}
    for report in reports:
        if metric.key in report.metrics or not report.metrics:  # a cell without runs has no metrics
            cells.setdefault(report.cell.model, []).append(report)
    rows_with = [row for row in paper.rows if metric.key in row.figures]
    published = [loss for loss in paper.losses if any(loss in row.figures[metric.key] for row in rows_with)]
    ours = list(dict.fromkeys([*published, *(line.loss for r in reports for line in r.lines)]))
    columns = ["model", *(f"paper {loss}" for loss in published), "our model", *(f"ours {loss}" for loss in ours)]
    rows = []
    for row in rows_with:
        model, figures = row.models[scale], row.figures[metric.key]
        means = [_over_tasks(cells.get(model, []), loss, metric) for loss in ours]
        rows.append([row.name, *(_published(figures.get(loss)) for loss in published), model, *means])
    title = f"{paper.title}: {metric.name}, published ({paper.source}) and ours"
    if any(len(reports_of) > 1 for reports_of in cells.values()):
        tasks = dict.fromkeys(r.cell.task for reports_of in cells.values() for r in reports_of)
        title += f", the mean over {', '.join(tasks)}"
    align: list[Align] = ["l", *["r"] * len(published), "l", *["r"] * len(ours)]  # type: ignore[list-item]
    return Table(title, columns, align, rows)


def _over_tasks(reports: Sequence[CellReport], loss: str, metric: Metric) -> str:
    """Mean over tasks and its deviation over seeds, from the seeds that are finished on all tasks."""
    by_seed = [_by_seed(report, loss, metric) for report in reports]
    seeds = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
    means = [statistics.fmean(one[seed] for one in by_seed) for seed in seeds]
    return mean_and_deviation(Line(loss, tuple(seeds), {metric.key: means}), metric.key)


def _by_seed(report: CellReport, loss: str, metric: Metric) -> dict[int, float]:
    runs = report.cell.of(loss).items()
    return {seed: metric.scale * run.metrics[metric.key] for seed, run in runs if metric.key in run.metrics}


def _published(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"
