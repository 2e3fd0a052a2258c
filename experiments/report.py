"""`ntil report runs=<folder>` or `ntil report experiment=<name>`: all runs there, compared.

Files lie in <folder>/report/, or in to=<folder>: report.html (everything, in one file), table.md, table.tex, and as
pictures curves.png, errors.png, digits.png and predictions.png of every cell. Runs that are missing or failed are shown
as missing. An experiment of a name that `experiments/paper` knows gets the paper's table beside ours.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from rich.console import Console
from rich.table import Table as RichTable

from experiments import figures, gallery, page, paper
from experiments.analysis import CellReport, analyse
from experiments.collect import Run, differences
from experiments.plan import planned
from experiments.provenance import made
from experiments.tables import Table, cell_tables, overview, paper_table
from ntil.compose import CONF
from ntil.config import ConfigError, nearest
from ntil.runs import RunFolder, find, write

# What a reader looks for first; every other metric is in metrics.json.
SIDE_BY_SIDE = 6  # runs that fit beside each other in a terminal
HIDDEN = ("lenient_", "examples", "digit_", "expected_", "train_")


def main(words: list[str]) -> int:
    """
    Raises:
        ConfigError: neither runs= nor experiment= given, or no run there.
    """
    keys = dict(word.partition("=")[::2] for word in words)
    name, root = keys.pop("experiment", None), keys.pop("runs", None)
    examples, to = keys.pop("examples", "24"), keys.pop("to", None)
    if keys or (name is None and root is None) or not examples.isdigit():
        raise ConfigError(
            "ntil report needs experiment=<name> or runs=<folder of runs>; takes examples=<how many> and to=<folder>"
        )
    folder = Path(root or "runs", name or "")
    if name is not None and not folder.exists():
        known = [p.name for p in folder.parent.iterdir() if p.is_dir()] if folder.parent.exists() else []
        raise ConfigError(f"{folder}: no runs of that experiment{nearest(name, known)}")
    found = [Run.read(run) for run in find(folder)]
    if not found:
        raise ConfigError(f"{folder}: no run lies there")
    expected = _expected(name, found, folder) if name else ()
    report(folder, found, name or folder.name, int(examples), expected, Path(to) if to else None)
    return 0


def _expected(name: str, runs: Sequence[Run], folder: Path) -> list[tuple[str, str, str, int]]:
    """The runs that the experiment's config sweeps, at the scale whose models the runs have."""
    if not (CONF / "experiment" / f"{name}.yaml").exists():
        return []
    models = {run.model for run in runs}
    with Console().status("composing the planned runs"):
        for scale in get_args(paper.Scale):
            words = ["-m", f"experiment={name}", f"scale={scale}", f"runs={folder.parent}"]
            keys = [job.key for job in planned(words, here=False)]
            if models & {model for _, model, _, _ in keys}:
                return keys
    return []


def report(
    root: Path,
    runs: Sequence[Run],
    name: str,
    examples: int = 24,
    expected: Sequence[tuple[str, str, str, int]] = (),
    to: Path | None = None,
) -> list[CellReport]:
    """Analyse, print, and write all files of the report to `to`, or to `report` in `root`."""
    table = paper.load(name)
    metrics = {m.key: m.greater_is_better for m in table.metrics.values()} if table else {}
    with Console().status("comparing the runs"):
        reports = analyse(runs, metrics, expected)
    scale = _scale(runs, table)
    beside = [paper_table(table, m, reports, scale) for m in table.metrics.values()] if table else []
    whole = overview(reports)
    tables = [*([whole] if whole else []), *beside]
    tables += [one for r in reports if r.lines for one in cell_tables(r, r.metrics)]
    for one in tables:
        print_table(one)
    for r in reports:
        print(f"{r.cell.task}, {r.cell.model}:")
        for line in [*([f"no comparison: {r.refused}"] if r.refused else []), *r.missing, *page.words(r)]:
            print(f"  {line}")
    extra = evaluations(runs)
    if extra:
        print_rows("again, on other data", extra)
    folder = to or root / "report"
    folder.mkdir(parents=True, exist_ok=True)
    how, before, images = made(runs), _shown_before(folder), pictures(folder, reports)
    write(folder / "table.md", markdown(reports, tables, extra, how, images))
    for old in before.difference(*images.values()):
        (folder / old).unlink(missing_ok=True)
    write(folder / "table.tex", "\n".join(one.latex() for one in tables))
    part = page.paper_part(table, beside, scale) if table else None
    subtitle = f"{len(runs)} runs, {sum(run.done for run in runs)} finished"
    write(folder / "report.html", page.render(name, subtitle, reports, part, examples, how, whole))
    print(f"runs, each with history, predictions and model: {root}")
    print(f"report: {folder}/report.html, table.md, table.tex, and the pictures of table.md")
    return reports


def _shown_before(folder: Path) -> set[str]:
    """The pictures of the report that lies here; the next may have other cells, and so other names."""
    before = folder / "table.md"
    return set(re.findall(r"^!\[.*\]\(([^/)]+\.png)\)$", before.read_text(), re.M)) if before.exists() else set()


def _scale(runs: Sequence[Run], table: paper.PaperTable | None) -> str:
    """The scale whose models the runs have."""
    models = {run.model for run in runs}
    full = {row.models["full"] for row in table.rows} if table else set()
    return "full" if models & full else "nano"


def pictures(folder: Path, reports: Sequence[CellReport]) -> dict[tuple[str, str], list[str]]:
    """Write every cell's pictures, with its name in theirs where there are several; (task, model) -> file names."""
    reports, written = [r for r in reports if r.cell.runs], {}
    for r in reports:
        suffix = f"-{r.cell.task}-{r.cell.model}" if len(reports) > 1 else ""
        drawn = {
            "curves": figures.curves(r.cell, r.headline),
            "errors": figures.error_histograms(r.cell),
            "digits": figures.digits(r.cell),
        }
        names = []
        for name, figure in drawn.items():
            if figure is not None:
                names.append(f"{name}{suffix}.png")
                canvas = FigureCanvasAgg(figure)
                canvas.draw()
                gallery.save_small(Image.fromarray(np.asarray(canvas.buffer_rgba())), folder / names[-1])
                plt.close(figure)
        found = gallery.of(r.cell, r.headline, 8).examples
        if found:
            names.append(f"predictions{suffix}.png")
            gallery.sheet(found, folder / names[-1])
        written[r.cell.task, r.cell.model] = names
    return written


def markdown(
    reports: Sequence[CellReport],
    tables: Sequence[Table],
    extra: list[dict[str, Any]],
    how: Sequence[str],
    images: dict[tuple[str, str], list[str]],
) -> str:
    parts = [f"## {one.title}\n\n{one.markdown()}" for one in tables]
    for r in reports:
        notes = [*([f"No comparison: {r.refused}"] if r.refused else []), *(f"Missing: {m}" for m in r.missing)]
        notes += page.words(r)
        shown = images.get((r.cell.task, r.cell.model), [])
        if notes or shown:
            head = f"### {r.cell.task}, {r.cell.model}\n\n" + "".join(f"* {note}\n" for note in notes)
            parts.append(head + "".join(f"\n![{file.removesuffix('.png')}]({file})\n" for file in shown))
    if extra:
        columns = list(dict.fromkeys(key for row in extra for key in row))
        rows = [[cell(row.get(c)) for c in columns] for row in extra]
        again = Table("Again, on other data", columns, ["l", *["r"] * (len(columns) - 1)], rows)  # type: ignore[list-item]
        parts.append(f"## {again.title}\n\n{again.markdown()}")
    parts += ["## How the runs were made\n\n" + "".join(f"* {line}\n" for line in how)] if how else []
    return "\n".join(parts)


def summary(paths: Sequence[Path]) -> None:
    """What `ntil train` prints at its end: one row per run with its metrics."""
    runs = [Run.read(RunFolder(path)) for path in paths]
    names = labels(runs)
    rows = [
        {"run": name, **(shown(run.metrics) if run.done else {"state": run.state})}
        for run, name in zip(runs, names, strict=True)
    ]
    print_rows("test", rows)


def evaluations(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A row for every `ntil eval` of these runs, with what its data is."""
    rows = []
    for run, name in zip(runs, labels(runs), strict=True):
        for folder in sorted((run.folder.path / "evaluations").glob("*")):
            again = Run.read(RunFolder(folder))
            if again.done:
                changed = differences([run, again])
                on = [f"{k}={values[1]}" for k, values in changed.items() if k != "task.labels"]
                rows.append({"run": " ".join([name, ", ".join(on)]).strip(), **shown(again.metrics)})
    return rows


def labels(runs: Sequence[Run]) -> list[str]:
    """`ntil seed 0`, with task and model before it where there are several."""
    several = [len({run.task for run in runs}) > 1, len({run.model for run in runs}) > 1]
    return [
        " ".join([*itertools.compress((run.task, run.model), several), f"{run.loss} seed {run.seed}"]) for run in runs
    ]


def shown(metrics: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in metrics.items() if not k.startswith(HIDDEN) and "/" not in k}
    return {"examples": int(metrics["examples"]), **kept} if "examples" in metrics else kept


def print_table(one: Table) -> None:
    table = RichTable(title=one.title, title_justify="left")
    for column, align in zip(one.columns, one.align, strict=True):
        table.add_column(column, justify="left" if align == "l" else "right")
    for row in one.rows:
        table.add_row(*row)
    _console().print(table)


def print_rows(title: str, rows: list[dict[str, Any]]) -> None:
    """A line per metric and a column per run, or the other way round where there are many runs."""
    keys = [k for k in dict.fromkeys(key for row in rows for key in row) if k != "run"]
    runs = [str(row["run"]) for row in rows]
    lines = [[key.replace("_", " "), *(cell(row.get(key)) for row in rows)] for key in keys]
    columns = ["metric", *runs]
    if len(rows) > SIDE_BY_SIDE:
        columns = ["run", *(line[0] for line in lines)]
        lines = [[run, *(line[i + 1] for line in lines)] for i, run in enumerate(runs)]
    print_table(Table(title, columns, ["l", *["r"] * (len(columns) - 1)], lines))  # type: ignore[list-item]


def _console() -> Console:
    return Console(width=None if Console().is_terminal else 160)


def cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
