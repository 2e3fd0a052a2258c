"""Plots of a benchmark: validation against the budget of the search, and the critical-difference diagram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.benchmark.statistics import Ranks
from experiments.render.plots import line_styles


def budgets(curves: Mapping[str, Mapping[str, Sequence[float]]], metrics: Mapping[str, str]) -> Figure:
    """Expected best validation score against the number of trials, a panel for each cell.

    Args:
        curves: cell -> loss -> score of 1, 2, ... trials. metrics: cell -> its metric's name.
    """
    figure, axes = plt.subplots(1, len(curves), figsize=(5 * len(curves), 4.2), layout="constrained", squeeze=False)
    for axis, (cell, of_losses) in zip(axes[0], curves.items(), strict=True):
        for loss, style in line_styles(list(of_losses)).items():
            axis.plot(range(1, len(of_losses[loss]) + 1), of_losses[loss], label=loss, **style)
        axis.set_title(cell, fontsize=10)
        axis.set_xlabel("trials")
        axis.set_ylabel(f"expected best validation {metrics[cell].replace('_', ' ')}")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False, fontsize=8)
    return figure


def rank_diagram(ranked: Ranks) -> Figure:
    """Mean ranks on a line, the best on the left; bars join losses within the critical difference of each other.

    As in Demšar (2006): the names of the better half stand on the left and of the other on the right, the outermost
    highest, so that no line crosses a name.
    """
    order = sorted(ranked.means.items(), key=lambda pair: pair[1])
    bars = _groups([mean for _, mean in order], ranked.critical)
    count, half = len(order), (len(order) + 1) // 2
    lowest = -0.5 * len(bars) - 0.6 * half - 0.3
    figure, axis = plt.subplots(figsize=(9, 0.5 * (2 - lowest)), layout="constrained")
    axis.set_xlim(0.2 - 0.4 * count, 0.8 + 1.4 * count)  # names have 0.4 of the axis's length on either side
    axis.set_ylim(lowest, 1)
    axis.hlines(0, 1, count, color="black", linewidth=1)
    for rank in range(1, count + 1):
        axis.vlines(rank, 0, 0.15, color="black", linewidth=1)
        axis.text(rank, 0.25, str(rank), ha="center", va="bottom", fontsize=9)
    for line, (first, last) in enumerate(bars, start=1):
        axis.hlines(-line * 0.5, order[first][1] - 0.04, order[last][1] + 0.04, color="#555555", linewidth=4)
    for index, (loss, mean) in enumerate(order):
        left = index < half
        level = -0.5 * len(bars) - 0.6 * (index + 1 if left else count - index)
        side = 0.9 if left else count + 0.1
        axis.plot([mean, mean, side], [0, level, level], color="#999999", linewidth=0.8)
        axis.text(side, level, f" {loss} {mean:.2f} ", ha="right" if left else "left", va="center", fontsize=9)
    axis.axis("off")
    axis.set_title(f"mean rank over {ranked.cells} cells, critical difference {ranked.critical:.2f}", fontsize=10)
    return figure


def _groups(means: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """First and last index of each largest group of sorted ranks that are within the critical difference."""
    groups: list[tuple[int, int]] = []
    for first, mean in enumerate(means):
        last = max(i for i, other in enumerate(means) if other - mean <= critical)
        if last > first and (not groups or last > groups[-1][1]):
            groups.append((first, last))
    return groups
