"""Compare all runs of a folder in tables, statistics and one HTML page.

    ntil report runs=<folder> | experiment=<name> [examples=24 to=<folder>]

Files are written to <folder>/report/, or to to=<folder>: report.html (everything, in one file), table.md, table.tex,
and as pictures curves.png, errors.png, digits.png and predictions.png of every cell. The tasks of a mixture are cells
of their own, and stand together in tasks-<mixture>-<model>.png. Runs that are missing or failed are shown as missing.
An experiment of a name that `experiments/paper` knows gets the paper's table beside ours.

runs: a folder of runs; together with experiment, the folder of all runs. experiment: the name of one. examples: how
many test rows the page shows of a cell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hydra.errors import HydraException
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from data.common.counts import counted
from data.common.errors import UserError
from data.common.files import write_text
from experiments import paper
from experiments.analysis import CellReport, analyse
from experiments.cells import Cell, differences
from experiments.provenance import describe_runs
from experiments.render import html, plots
from experiments.render.decodings import decoding_tables
from experiments.render.examples import build_gallery, save_small, write_sheet
from experiments.render.mixtures import task_curves
from experiments.render.tables import cell_tables, overview, paper_table
from ntil.commands.options import parse_options
from ntil.commands.summary import cell, labels, metrics_rows, metrics_table
from ntil.config.compose import choices
from ntil.config.errors import ConfigError, nearest
from ntil.console import Table, first_left
from ntil.launch.plan import plan
from ntil.runs.run import Key, Run, read_runs


@dataclass
class ReportOptions:
    """Options of `ntil report`; `runs` or `experiment` must be given."""

    runs: str = ""
    experiment: str = ""
    examples: int = 24
    to: str = ""


def main(arguments: list[str]) -> int:
    """Run `ntil report`; the exit code.

    Raises:
        ConfigError: neither runs= nor experiment= given, or no run there.
    """
    options = parse_options("report", ReportOptions, arguments)
    name = options.experiment
    if not name and not options.runs:
        raise ConfigError("ntil report needs experiment=<name> or runs=<folder of runs>; see --help")
    folder = Path(options.runs or "runs", name).expanduser()
    if name and not folder.exists():
        siblings = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.exists() else []
        raise ConfigError(f"{folder}: no runs of that experiment{nearest(name, siblings)}")
    runs = read_runs(str(folder))
    if not runs:
        raise ConfigError(f"{folder}: no run lies there")
    expected = _expected(name, runs, folder) if name else ()
    report(
        folder,
        runs,
        name or folder.resolve().name,
        options.examples,
        expected,
        Path(options.to).expanduser() if options.to else None,
    )
    return 0


def _expected(name: str, runs: Sequence[Run], folder: Path) -> list[Key]:
    """Keys of the runs that the experiment's config sweeps, at the scale whose models the runs have."""
    if name not in choices("experiment"):
        return []
    models = {run.model for run in runs}
    with Console().status("composing the planned runs"):
        for scale in choices("scale"):
            arguments = ["-m", f"experiment={name}", f"scale={scale}", f"runs={folder.parent}"]
            try:
                planned = plan(arguments, on_this_machine=False)
            except (UserError, HydraException):
                continue  # an experiment need not fit every scale
            keys = [run.key for one in planned for run in one.run.by_task]
            if models & {model for _, model, _, _ in keys}:
                return keys
    return []


def report(
    root: Path,
    runs: Sequence[Run],
    name: str,
    examples: int = 24,
    expected: Sequence[Key] = (),
    to: Path | None = None,
) -> list[CellReport]:
    """Analyse, print, and write all files of the report to `to`, or to `report` in `root`."""
    published = paper.load(name)
    if published and not {run.model for run in runs} & published.models:
        published = None  # models that have no line in the paper's table
    metrics = {m.key: m.greater_is_better for m in published.metrics.values()} if published else {}
    with Console().status("comparing the runs"):
        reports = analyse(runs, metrics, expected)
    scale = _scale(runs, published)
    beside = [paper_table(published, m, reports, scale) for m in published.metrics.values()] if published else []
    all_in_one = overview(reports)
    tables = [*([all_in_one] if all_in_one else []), *beside]
    tables += [one for r in reports if r.lines for one in (*cell_tables(r, r.metrics), *decoding_tables(r))]
    again = evaluations(runs)
    print_report(reports, tables, again)
    folder = to or root / "report"
    folder.mkdir(parents=True, exist_ok=True)
    provenance, before, images = describe_runs(runs), _pictures_before(folder), pictures(folder, reports)
    write_text(folder / "table.md", markdown(reports, tables, again, provenance, images))
    for old in before.difference(*images.values()):
        (folder / old).unlink(missing_ok=True)
    write_text(folder / "table.tex", "\n".join(one.latex() for one in tables))
    paper_section = html.paper_part(published, beside, scale) if published else None
    subtitle = f"{counted(len(runs), 'run')}, {sum(run.done for run in runs)} finished"
    page = html.render(name, subtitle, reports, paper_section, examples, provenance, all_in_one)
    write_text(folder / "report.html", page)
    print(f"runs, each with history, predictions and model: {root}")
    print(f"report: {folder}/report.html, table.md, table.tex, and the pictures of table.md")
    return reports


def print_report(reports: Sequence[CellReport], tables: Sequence[Table], again: list[dict[str, Any]]) -> None:
    """Print the tables, then the notes on each cell; `again` has a row per `ntil eval`."""
    for table in tables:
        table.print()
    for r in reports:
        print(f"{r.cell.task}, {r.cell.model}:")
        for line in [*([f"no comparison: {r.refused}"] if r.refused else []), *r.missing, *html.sentences(r)]:
            print(f"  {line}")
    if again:
        metrics_table("again, on other data", again).print()


def _pictures_before(folder: Path) -> set[str]:
    """File names of the pictures of an earlier report here; the next may have other cells, and so other names."""
    before = folder / "table.md"
    ours = r"^!\[.*\]\(((?:curves|errors|digits|predictions|tasks)(?:-[^/)]*)?\.png)\)$"
    return set(re.findall(ours, before.read_text(), re.M)) if before.exists() else set()


def _scale(runs: Sequence[Run], table: paper.PaperTable | None) -> str:
    """The scale whose models the runs have."""
    models = {run.model for run in runs}
    full = {row.models["full"] for row in table.rows} if table else set()
    return "full" if models & full else "nano"


def pictures(folder: Path, reports: Sequence[CellReport]) -> dict[tuple[str, str], list[str]]:
    """Write every cell's pictures, with its name in theirs where there are several; (task, model) -> file names."""
    reports, files = [r for r in reports if r.cell.runs], {}
    for r in reports:
        suffix = f"-{r.cell.task}-{r.cell.model}" if len(reports) > 1 else ""
        drawn = {
            f"curves{suffix}.png": plots.curves(r.cell, r.headline),
            f"errors{suffix}.png": plots.error_histograms(r.cell),
            f"digits{suffix}.png": plots.digits(r.cell),
        }
        names = _saved(drawn, folder)
        examples = build_gallery(r.cell, r.headline, 8).examples
        if examples:
            names.append(f"predictions{suffix}.png")
            write_sheet(examples, folder / names[-1])
        files[r.cell.task, r.cell.model] = names
    for cells in mixtures([r.cell for r in reports]):
        first = cells[0]
        name = f"tasks-{first.runs[0].config.task.name}-{first.model}.png"
        files[first.task, first.model][:0] = _saved({name: task_curves(cells)}, folder)
    return files


def mixtures(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells of each mixture and model."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for one in cells:
        if one.runs and one.runs[0].member:
            groups.setdefault((one.runs[0].config.task.name, one.model), []).append(one)
    return list(groups.values())


def _saved(figures: Mapping[str, Figure | None], folder: Path) -> list[str]:
    """Write the figures that there are; the names of their files."""
    names = []
    for name, figure in figures.items():
        if figure is not None:
            names.append(name)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
            save_small(Image.fromarray(np.asarray(canvas.buffer_rgba())), folder / name)
            plt.close(figure)
    return names


def markdown(
    reports: Sequence[CellReport],
    tables: Sequence[Table],
    again: list[dict[str, Any]],
    provenance: Sequence[str],
    images: dict[tuple[str, str], list[str]],
) -> str:
    """Text of table.md: tables, notes and pictures of each cell, evaluations, provenance."""
    parts = [f"## {one.title}\n\n{one.markdown()}" for one in tables]
    for r in reports:
        notes = [*([f"No comparison: {r.refused}"] if r.refused else []), *(f"Missing: {m}" for m in r.missing)]
        notes += html.sentences(r)
        files = images.get((r.cell.task, r.cell.model), [])
        if notes or files:
            head = f"### {r.cell.task}, {r.cell.model}\n\n" + "".join(f"* {note}\n" for note in notes)
            parts.append(head + "".join(f"\n![{file.removesuffix('.png')}]({file})\n" for file in files))
    if again:
        columns = list(dict.fromkeys(key for row in again for key in row))
        rows = [[cell(row.get(c)) for c in columns] for row in again]
        table = Table("Again, on other data", columns, first_left(columns), rows)
        parts.append(f"## {table.title}\n\n{table.markdown()}")
    parts += ["## How the runs were made\n\n" + "".join(f"* {line}\n" for line in provenance)] if provenance else []
    return "\n".join(parts)


def evaluations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for every `ntil eval` of these runs, named by the settings in which it differs."""
    rows = []
    runs = [one for run in runs for one in run.by_task]
    for run, name in zip(runs, labels(runs), strict=True):
        for folder in run.folder.finished_evaluations():
            again = next((one for one in Run.read(folder).by_task if _same_task(run, one)), None)
            if again is not None:
                changed = differences([run, again])
                on = [f"{k}={values[1]}" for k, values in changed.items() if k != "task.source.labels"]
                rows += metrics_rows(" ".join([name, ", ".join(on)]).strip(), again.metrics)
    return rows


def _same_task(run: Run, again: Run) -> bool:
    """Whether an evaluation is of the task as which the run is looked at; a mixture's may be of one task alone."""
    return again.member == run.member or (not again.member and again.task == run.member)
