"""The report of a benchmark: hypotheses, the tuned and the untuned table, what was chosen, budgets, ranks."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data.common.files import write_text
from experiments.analysis import CellReport, analyse
from experiments.benchmark.plots import budgets, rank_diagram
from experiments.benchmark.protocol import Protocol
from experiments.benchmark.stages import Best, Job, Stages
from experiments.benchmark.statistics import Judgement, Ranks, expected_best, judge, ranks
from experiments.render.tables import cell_tables, number, overview
from ntil.components import build_task
from ntil.config.errors import ConfigError
from ntil.console import Table, first_left
from ntil.runs.folder import folder_of
from ntil.runs.run import Key, Run, read_runs

VERDICTS = {True: "holds", False: "does not hold", None: "undecided"}


@dataclass(frozen=True)
class Results:
    """What the runs of a benchmark say.

    Attributes:
        tuned, untuned: cell -> its report, with the protocol's base.
        best: cell -> loss -> its best trial. directions: cell -> whether its metric is better when greater.
        unranked: what the ranks leave out, and why.
    """

    tuned: dict[str, CellReport]
    untuned: dict[str, CellReport]
    best: dict[str, dict[str, Best]]
    directions: dict[str, bool]
    judgements: list[Judgement]
    ranks: Ranks | None
    unranked: list[str]


def results(stages: Stages) -> Results:
    """Read and compare the runs.

    Raises:
        ConfigError: the search isn't finished, or no tuned run is.
    """
    protocol = stages.protocol
    best = {cell: {loss: stages.best(cell, loss) for loss in protocol.losses} for cell in protocol.cells}
    tuned_jobs, untuned_jobs = stages.seeds(True), stages.seeds(False)
    tuned, untuned = _runs(tuned_jobs), _runs(untuned_jobs)
    if not any(run.done for run in tuned):
        raise ConfigError(f"{stages.folder}: no tuned run is finished; ntil benchmark runs them")
    keys = tuple(protocol.search)
    names = cell_names(stages)
    bases = dict.fromkeys([protocol.base, *(loss for h in protocol.hypotheses for loss in h.than)])
    planned = _planned(tuned_jobs)
    against = {base: _by_cell(analyse(tuned, {}, planned, base=base, tuned=keys), names) for base in bases}
    unfinished = {(job.cell, job.loss) for job in tuned_jobs if not folder_of(job.config).done}
    directions = {
        cell: build_task(stages.search(cell, protocol.losses[0])[0].config).greater_is_better for cell in best
    }
    reports = against[protocol.base]
    means, unranked = rankable(reports, unfinished)
    return Results(
        reports,
        _by_cell(analyse(untuned, {}, _planned(untuned_jobs), base=protocol.base), names),
        best,
        directions,
        [judge(hypothesis, against, list(protocol.cells), unfinished) for hypothesis in protocol.hypotheses],
        ranks(list(means.values()), [directions[cell] for cell in means]),
        unranked,
    )


def cell_names(stages: Stages) -> dict[tuple[str, str], str]:
    """(task, model) -> cell.

    Raises:
        ConfigError: two cells of one task and model, whose runs could not be told apart; or one of a mixture.
    """
    names: dict[tuple[str, str], str] = {}
    for cell in stages.protocol.cells:
        config = stages.search(cell, stages.protocol.losses[0])[0].config
        if config.members:
            raise ConfigError(
                f"cell {cell} is of a mixture, and a benchmark's cells are of one task each; name its tasks"
            )
        pair = (config.task.name, config.model.name)
        if pair in names:
            raise ConfigError(f"cells {names[pair]} and {cell} are both of {pair[0]} with {pair[1]}")
        names[pair] = cell
    return names


def _planned(jobs: Sequence[Job]) -> list[Key]:
    """Keys of the runs of these jobs, whether they have been run or not."""
    configs = [job.config for job in jobs]
    return [(config.task.name, config.model.name, config.loss.name, config.seed) for config in configs]


def _runs(jobs: Sequence[Job]) -> list[Run]:
    """The runs of these jobs that have a folder, and no others that may lie beside them."""
    configs = [job.config for job in jobs]
    roots = sorted({str(Path(config.runs, config.name)) for config in configs})
    paths = {str(folder_of(config).path) for config in configs}
    return [run for root in roots for run in read_runs(root) if str(run.folder.path) in paths]


def _by_cell(reports: Sequence[CellReport], names: dict[tuple[str, str], str]) -> dict[str, CellReport]:
    named = {names[report.cell.task, report.cell.model]: report for report in reports}
    return {cell: named[cell] for cell in names.values() if cell in named}


def rankable(
    reports: dict[str, CellReport], unfinished: Collection[tuple[str, str]]
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Cell -> loss -> mean of the headline metric, of all that may be ranked, and what may not, with the reason.

    A mean over the seeds that are left, or of what was trained otherwise, is no mean to rank by.

    Args:
        unfinished: (cell, loss) of which a planned seed has no finished run.
    """
    means: dict[str, dict[str, float]] = {}
    left_out = []
    for cell, report in reports.items():
        if report.refused or not report.base or (cell, report.base) in unfinished:
            reason = report.refused or (f"runs of {report.base} are missing" if report.base else "no run is finished")
            left_out.append(f"{cell}: {reason}")
            continue
        of_cell = {line.loss: line.mean(report.headline) for line in report.lines}
        complete = {loss: m for loss, m in of_cell.items() if m is not None and (cell, loss) not in unfinished}
        means[cell] = {loss: mean for loss, mean in complete.items() if math.isfinite(mean)}
        left_out += [
            f"{loss}: {f'{report.headline} is no number' if loss in complete else 'runs are missing'} in {cell}"
            for loss in of_cell
            if loss not in means[cell]
        ]
    return means, left_out


def write(stages: Stages, folder: Path) -> Path:
    """Write benchmark.md and its pictures to `folder`; the file."""
    outcome = results(stages)
    folder.mkdir(parents=True, exist_ok=True)
    parts = [f"# {stages.protocol.title}", *hypotheses(outcome.judgements)]
    parts += _tables("Tuned: each loss at its best trial", outcome.tuned)
    parts += [chosen(outcome, stages.protocol)]
    curves = {
        cell: {loss: expected_best(best.scores, outcome.directions[cell]) for loss, best in of_losses.items()}
        for cell, of_losses in outcome.best.items()
    }
    metrics = {cell: report.headline for cell, report in outcome.tuned.items() if report.base}
    curves = {cell: curves[cell] for cell in metrics}
    parts += [_picture(budgets(curves, metrics), folder, "budgets", "expected best validation against the budget")]
    parts += _ranked(outcome.ranks, outcome.unranked, folder)
    parts += _tables("Untuned: each loss at its defaults", outcome.untuned)
    file = folder / "benchmark.md"
    write_text(file, "\n\n".join(parts) + "\n")
    return file


def hypotheses(judgements: Sequence[Judgement]) -> list[str]:
    """The claims with what the runs say."""
    lines = []
    for judgement in judgements:
        stated = judgement.hypothesis
        lines.append(f"* **{VERDICTS[judgement.holds]}**: {stated.claim}")
        for other in stated.than:
            better, worse = judgement.better[other], judgement.worse[other]
            lines.append(
                f"  * `{stated.better}` against `{other}`: better in {_listed(better)} (wanted {stated.in_at_least}), "
                f"worse in {_listed(worse)} (at most {stated.worse_in_at_most})"
            )
        lines += [f"  * no comparison: {missing}" for missing in judgement.undecided]
    return ["## Hypotheses, written before the runs", "\n".join(lines)] if lines else []


def _listed(cells: Sequence[str]) -> str:
    return f"{len(cells)} ({', '.join(cells)})" if cells else "none"


def chosen(outcome: Results, protocol: Protocol) -> str:
    """Markdown table of each loss's best trial, with its validation score and that of the defaults."""
    keys = list(protocol.search)
    rows = []
    for cell, of_losses in outcome.best.items():
        for loss, best in of_losses.items():
            values = [number(best.settings[key]) if key in best.settings else "" for key in keys]
            diverged = sum(map(math.isnan, best.scores))
            rows.append([cell, loss, number(best.score), number(best.scores[0]), *values, str(diverged or "")])
    columns = ["cell", "loss", "validation", "of the defaults", *keys, "diverged trials"]
    return f"## Chosen on the validation split\n\n{Table('', columns, first_left(columns), rows).markdown()}"


def _tables(title: str, reports: dict[str, CellReport]) -> list[str]:
    parts = [f"## {title}"]
    table = overview([report for report in reports.values() if report.base])
    if table is not None:
        parts.append(table.markdown())
    for cell, report in reports.items():
        parts += [f"### {cell}", *([f"No comparison: {report.refused}"] if report.refused else [])]
        parts += ["\n".join(f"* Missing: {missing}" for missing in report.missing)] if report.missing else []
        if report.base:
            parts += [f"{one.title}\n\n{one.markdown()}" for one in cell_tables(report, report.metrics)]
    return parts


def _ranked(ranked: Ranks | None, unranked: Sequence[str], folder: Path) -> list[str]:
    left_out = ["\n".join(f"* Left out: {reason}" for reason in unranked)] if unranked else []
    if ranked is None:
        return ["## Ranks", "Fewer than two cells or three losses are finished.", *left_out]
    picture = _picture(rank_diagram(ranked), folder, "ranks", "critical-difference diagram")
    sentence = f"Friedman's test that all losses rank alike over the {ranked.cells} cells: p = {ranked.p:.3g}."
    return ["## Ranks", sentence, *left_out, picture]


def _picture(figure: Figure, folder: Path, name: str, text: str) -> str:
    figure.savefig(folder / f"{name}.png", dpi=110)
    plt.close(figure)
    return f"![{text}]({name}.png)"


def searched_keys(stages: Stages) -> dict[str, list[str]]:
    """Loss -> the keys that it is searched over, for the plan."""
    cell = next(iter(stages.protocol.cells))
    return {loss: stages.searched_keys(cell, loss) for loss in stages.protocol.losses}
