"""The tasks of a mixture in one figure: cross-entropy, validation and rows drawn of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.cells import Cell
from experiments.render.plots import COLOURS, band, tidy

STYLES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")  # of the losses


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
        for loss, style in zip(losses, STYLES * len(losses), strict=False):
            histories = [run.folder.read_history() for run in cell.runs if run.loss == loss]
            headline = f"{name}: {task.metric.replace('_', ' ')}"
            keys = ("loss/ce", name), ("eval_ce", name), (f"eval_{task.metric}", headline), ("rows", name)
            for axis, (key, label) in zip(axes, keys, strict=True):
                before = len(axis.lines)
                band(axis, histories, key, label if loss == losses[0] else "", colour)
                for line in axis.lines[before:]:
                    line.set_linestyle(style)
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
        lines = [Line2D([], [], color="grey", linestyle=s) for s in (STYLES * len(losses))[: len(losses)]]
        axes[1].legend(lines, losses, frameon=False)
    return figure
