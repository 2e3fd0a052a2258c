"""An analysis as one HTML file that needs no network and no server."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from math import isinf
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
from experiments.render.examples import build_gallery, data_uri
from experiments.render.tables import MARKS, cell_tables
from ntil.console import Table

TEMPLATES = Path(__file__).parents[1] / "templates"
METHOD = (
    "A value is the mean over seeds, ± the standard deviation. A difference is to the base loss on the same test "
    "examples and the same seeds; its 95 % interval joins a bootstrap over examples with Student's t over seeds. p "
    "is of a permutation test that swaps two losses example by example, corrected by Holm over all comparisons of "
    "the metric on this page. `better` and `worse` need both: an interval without zero and p below 0.05. With one "
    "seed nothing is known about other seeds. Answers that can't be read count as the worst score. digit NLL, digit "
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
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    cells = [_cell(report, examples) for report in reports]
    verdicts = {mark: verdict for verdict, mark in MARKS.items()}
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        cells=cells,
        paper=paper,
        method=METHOD,
        provenance=provenance,
        overview=overview,
        verdicts=verdicts,
    )


def paper_part(paper: PaperTable, tables: Sequence[Table], scale: str) -> dict[str, Any]:
    """Variables of the page's part on the paper, see `render`."""
    return {"tables": tables, "unknown": paper.unknown, "scale": scale}


def _cell(report: CellReport, examples: int) -> dict[str, Any]:
    cell = report.cell
    part: dict[str, Any] = {"title": f"{cell.task}, {cell.model}", "losses": cell.losses}
    part |= {"missing": report.missing, "refused": report.refused, "words": sentences(report)}
    if not any(cell.of(loss) for loss in cell.losses):
        return part
    gallery = build_gallery(cell, report.headline, examples)
    return part | {
        "no_examples": gallery.missing,
        "tables": [*cell_tables(report, report.metrics), *decoding_tables(report)],
        "plots": [{"title": title, "uri": _uri(figure)} for title, figure in _plots(report) if figure is not None],
        "examples": [
            {
                "id": e.id,
                "answer": e.answer,
                "texts": e.texts,
                "scores": e.scores,
                "pictures": {loss: data_uri(picture) for loss, picture in e.pictures.items()},
            }
            for e in gallery.examples
        ],
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
            sentence += f" ({c.difference:+.3g}, 95 % [{c.low:+.3g}, {c.high:+.3g}], {extent})"
            if c.verdict == "not distinguishable" and c.seeds_needed is not None:
                few = (
                    "more test examples, whatever the seeds"
                    if isinf(c.seeds_needed)
                    else f"about {counted(int(c.seeds_needed), 'seed')}"
                )
                sentence += f"; a difference of that size would need {few}"
            paragraphs.append(sentence + ("; one seed says nothing about others." if c.seeds == 1 else "."))
    return paragraphs


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    plt.close(figure)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
