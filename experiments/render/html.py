"""An analysis as one HTML file that needs no network and no server."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite, isinf
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from data.common.counts import counted
from experiments.analysis import CellReport
from experiments.paper import PaperTable
from experiments.render import plots
from experiments.render.decodings import decoding_tables
from experiments.render.examples import Example, build_gallery, data_uri
from experiments.render.tables import MARKS, cell_tables, signed
from ntil.console import Table

TEMPLATES = Path(__file__).parents[1] / "templates"
DPI = 100  # of plots
METHOD = (
    "A value is the mean over seeds, ± the standard deviation. A difference is to the base loss on the same test "
    "examples and the same seeds; its 95 % interval joins a bootstrap over examples with Student's t over seeds. p "
    "is of a permutation test that swaps two losses example by example (both take the examples of one picture "
    "together, where predictions say which these are), corrected by Holm over all comparisons of "
    "the metric on this page. `better` and `worse` need both: an interval without zero and p below 0.05. With one "
    "seed nothing is known about other seeds. Answers that can't be read count as wrong. digit NLL, digit "
    "mass and the expected absolute error (E abs error) are teacher-forced on the test split and mean the same for "
    "every loss."
)


def render(
    title: str,
    subtitle: str,
    reports: Sequence[CellReport],
    paper: dict[str, Any] | None,
    examples: int,
    provenance: Sequence[str] = (),
    overview: Table | None = None,
) -> str:
    """The page. `paper` holds `tables`, `unknown` and `scale`, or is None; `overview` comes first."""
    cells = [cell_part(report, examples) for report in reports]
    return page(title, subtitle, cells, paper, provenance, overview)


def page(
    title: str,
    subtitle: str,
    cells: Sequence[dict[str, Any]],
    paper: dict[str, Any] | None = None,
    provenance: Sequence[str] = (),
    overview: Table | None = None,
) -> str:
    """The page of cells that `cell_part` prepared; see `render`."""
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        cells=cells,
        paper=paper,
        method=METHOD,
        provenance=provenance,
        overview=replace(overview, title=overview.title.removeprefix("All in one: ")) if overview else None,
        anchors={(cell["task"], cell["model"]): f"#cell{i}" for i, cell in enumerate(cells, 1)},
        verdicts={mark: verdict for verdict, mark in MARKS.items()},
        leading_labels=leading_labels,
    )


def leading_labels(table: Table) -> int:
    """How many columns name a row: the first ones that are aligned to the left, at least one."""
    return max(1, next((i for i, align in enumerate(table.align) if align != "l"), len(table.align)))


def paper_part(paper: PaperTable, tables: Sequence[Table], scale: str) -> dict[str, Any]:
    """Variables of the page's part on the paper, see `render`."""
    return {"tables": tables, "unknown": paper.unknown, "scale": scale}


def cell_part(report: CellReport, examples: int) -> dict[str, Any]:
    """What the page shows of a cell: sentences, tables, plots, and at most `examples` test rows under each loss."""
    cell = report.cell
    name = f"{cell.task}, {cell.model}"
    variables: dict[str, Any] = {"title": name, "task": cell.task, "model": cell.model}
    variables |= {"missing": report.missing, "refused": report.refused, "words": sentences(report)}
    if not any(cell.of(loss) for loss in cell.losses):
        return variables
    gallery = build_gallery(cell, report.headline, examples)
    finished = ", ".join(loss for loss in cell.losses if cell.of(loss))
    tables = [*cell_tables(report, report.metrics), *decoding_tables(report)]
    return variables | {
        "no_examples": gallery.missing,
        "tables": [replace(t, title=t.title.removeprefix(f"{name}: ")) for t in tables],
        "plots": [
            {"title": title, "alt": f"{title} of {finished}: {name}", "uri": _uri(figure), **_size(figure)}
            for title, figure in _plots(report)
            if figure is not None
        ],
        "metric": report.headline.replace("_", " "),
        "losses": list(gallery.examples[0].scores) if gallery.examples else [],
        "examples": [example_part(example) for example in gallery.examples],
    }


def example_part(example: Example) -> dict[str, Any]:
    """What the page shows of a test row; a score that is no number is None."""
    return {
        "id": example.id,
        "answer": example.answer,
        "texts": example.texts,
        # JSON has no name for them, and a browser refuses Python's.
        "scores": {loss: score if isfinite(score) else None for loss, score in example.scores.items()},
        "pictures": {
            loss: {"uri": data_uri(picture), "width": picture.width, "height": picture.height}
            for loss, picture in example.pictures.items()
        },
    }


def _plots(report: CellReport) -> list[tuple[str, Figure | None]]:
    cell = report.cell
    return [
        ("Learning curves (bands: range over seeds)", plots.curves(cell, report.headline)),
        ("Errors of the numbers", plots.error_histograms(cell)),
        ("Digits", plots.digits(cell)),
        ("Digit confusions", plots.confusions(cell)),
    ]


def sentences(report: CellReport) -> list[str]:
    """Results of the comparisons, a sentence for each loss and metric."""
    paragraphs = []
    for line in report.lines:
        for metric, c in line.against.items():
            sentence = (
                f"{line.loss} is {c.verdict} than {report.base} in {metric.replace('_', ' ')}"
                if c.verdict in ("better", "worse")
                else f"{line.loss} and {report.base} are not distinguishable in {metric.replace('_', ' ')}"
            )
            extent = f"{counted(c.seeds, 'seed')}, {counted(c.examples, 'example')}"
            extent += f" of {counted(c.pictures, 'picture')}" if c.pictures else ""
            sentence += f" ({signed(c.difference)}, 95 % [{signed(c.low)}, {signed(c.high)}], {extent})"
            if c.verdict == "not distinguishable" and c.seeds_needed is not None:
                few = (
                    "more test examples, whatever the seeds"
                    if isinf(c.seeds_needed)
                    else f"about {counted(int(c.seeds_needed), 'seed')}"
                )
                sentence += f"; a difference of that size would need {few}"
            paragraphs.append(sentence + ("; one seed says nothing about others." if c.seeds == 1 else "."))
    return paragraphs


def _size(figure: Figure) -> dict[str, int]:
    """Width and height of its PNG in pixels: a browser leaves the room before it has decoded the picture."""
    width, height = figure.get_size_inches() * DPI
    return {"width": round(width), "height": round(height)}


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
