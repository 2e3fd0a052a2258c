"""The tasks of a mixture in one figure: cross-entropy, validation and rows drawn of each."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.cells import Cell
from experiments.render.plots import COLOURS, LINES, band, finished_and_others, tidy


def task_curves(cells: Sequence[Cell]) -> Figure | None:
    """A colour for each task, a style of line for each loss; bands span the seeds.

    Args:
        cells: of one mixture and model, one for each task.
    """
    if not any(run.folder.read_history() for cell in cells for run in cell.runs):
        return None
    figure, axes = plt.subplots(1, 4, figsize=(20, 4.2), layout="constrained")
    losses = list(dict.fromkeys(loss for cell in cells for loss in cell.losses))
    for cell, colour in zip(cells, COLOURS * len(cells), strict=False):
        name, task = cell.runs[0].member, cell.runs[0].built_task
        for loss, line in zip(losses, LINES * len(losses), strict=False):
            style = {"color": colour, "linestyle": line}
            histories = finished_and_others({r: r.folder.read_history() for r in cell.runs if r.loss == loss})
            headline = f"{name}: {task.metric.replace('_', ' ')}"
            keys = ("loss/ce", name), ("eval_ce", name), (f"eval_{task.metric}", headline), ("rows", name)
            for axis, (key, label) in zip(axes, keys, strict=True):
                band(axis, *histories, key, label if loss == losses[0] else "", style)
    titles = (
        "training cross-entropy (nats per token)",
        "validation cross-entropy (nats per token)",
        "validation, each task's headline metric",
        "rows drawn",
    )
    for axis, title in zip(axes, titles, strict=True):
        tidy(axis, title, "step")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False)
    if len(losses) > 1:
        lines = [Line2D([], [], color="grey", linestyle=s) for s in (LINES * len(losses))[: len(losses)]]
        axes[1].legend(lines, losses, frameon=False)
    return figure
