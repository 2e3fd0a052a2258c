"""Plots of a cell's runs: learning curves with seed bands, error histograms, and digit statistics.

Every function takes what it draws and gives a matplotlib figure, or None when there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from experiments.cells import Cell
from experiments.render.number_errors import signed_errors
from ntil.config.errors import ConfigError
from ntil.runs.folder import read_json
from ntil.runs.run import Run

# Okabe-Ito, distinguishable by colour-blind readers too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


LINES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")


def colours(losses: Sequence[str]) -> dict[str, str]:
    """The same colour for a loss in every figure of a cell."""
    return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(losses)}


def line_styles(losses: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Colour and kind of line of each loss; no two alike among the first 32."""
    kinds = [LINES[i // len(COLOURS) % len(LINES)] for i in range(len(losses))]
    return {n: {"color": c, "linestyle": k} for (n, c), k in zip(colours(losses).items(), kinds, strict=True)}


def curves(cell: Cell, metric: str) -> Figure | None:
    """Cross-entropy in training; the validation split's cross-entropy and headline metric. Bands span the seeds.

    What no run has logged, as validation where there was none, has no panel.
    """
    panels = [
        ("loss/ce", "training cross-entropy (nats per token)"),
        ("eval_ce", "validation cross-entropy (nats per token)"),
        (f"eval_{metric}", f"validation {metric.replace('_', ' ')}"),
    ]
    histories = {run: run.folder.read_history() for run in cell.runs}
    logged = {key for history in histories.values() for record in history for key in record}
    panels = [(key, title) for key, title in panels if key in logged]
    if not panels:
        return None
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 4.2), layout="constrained", squeeze=False)
    for axis, (key, title) in zip(axes[0], panels, strict=True):
        for loss, style in line_styles(cell.losses).items():
            of_loss = {run: history for run, history in histories.items() if run.loss == loss}
            band(axis, *finished_and_others(of_loss), key, loss, style)
        tidy(axis, title, "step")
    axes[0][0].legend(frameon=False)
    return figure


Histories = list[list[dict[str, Any]]]


def finished_and_others(histories: dict[Run, list[dict[str, Any]]]) -> tuple[Histories, Histories]:
    """Histories of finished runs, and of others."""
    finished = [history for run, history in histories.items() if run.done]
    others = [history for run, history in histories.items() if not run.done]
    return finished, others


def band(axis: Any, finished: Histories, others: Histories, key: str, name: str, style: dict[str, Any]) -> None:
    """Mean over seeds, and the range between them, at every step that any has logged, of the seeds that have.

    Each of the other runs, which failed or go on, is a thin line of its own.
    """
    tables = [table for history in finished if (table := _logged(history, key))]
    if tables:
        steps = sorted(set().union(*tables))
        values = np.array([[table.get(step, np.nan) for step in steps] for table in tables], dtype=float)
        axis.plot(steps, np.nanmean(values, 0), label=name, linewidth=1.5, **style)
        if len(tables) > 1:
            low, high = np.nanmin(values, 0), np.nanmax(values, 0)
            axis.fill_between(steps, low, high, color=style["color"], alpha=0.15, linewidth=0)
    for table in (_logged(history, key) for history in others):
        if table:
            label = {} if name in axis.get_legend_handles_labels()[1] else {"label": name}
            axis.plot(list(table), list(table.values()), linewidth=0.7, alpha=0.7, **label, **style)


def _logged(history: list[dict[str, Any]], key: str) -> dict[int, float]:
    return {record["step"]: record[key] for record in history if key in record}


def error_histograms(cell: Cell) -> Figure | None:
    """Signed errors of numbers (see `signed_errors`), and the size of the errors on a log scale."""
    errors = {loss: _errors(cell.of(loss).values()) for loss in cell.losses}
    errors = {loss: e for loss, e in errors.items() if len(e)}
    if not errors:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
    all_errors = np.concatenate(list(errors.values()))
    span = max(float(np.quantile(np.abs(all_errors), 0.98)), 1e-9)
    bins = np.linspace(-span, span, 42)
    largest = max(float(np.abs(all_errors).max()), 1.0)
    smallest = min(float(np.abs(all_errors[all_errors != 0]).min(initial=1.0)), 1.0)
    sizes = np.geomspace(smallest, largest * 1.01, 30)
    for loss, line in line_styles(cell.losses).items():
        if loss in errors:
            values = errors[loss]
            style = {"histtype": "step", "linewidth": 1.5, **line}
            weights = np.full(len(values), 1 / len(values))
            left.hist(np.clip(values, -span, span), bins, weights=weights, label=loss, **style)
            wrong = np.abs(values[values != 0])
            right.hist(wrong, sizes, weights=np.full(len(wrong), 1 / len(values)), label=loss, **style)
    tidy(left, "signed error of each number (ends: all beyond)", "predicted - true", "share of numbers")
    left.set_yscale("log")
    tidy(right, "size of the errors, right ones left out", "|predicted - true|", "share of numbers")
    right.set_xscale("log")
    left.legend(frameon=False)
    return figure


def _errors(runs: Iterable[Run]) -> np.ndarray:
    errors: list[float] = []
    for run in runs:
        with suppress(ConfigError):  # a run whose predictions are gone; the report says so
            errors += [e for record in run.folder.read_predictions() for e in signed_errors(record)]
    return np.array(errors, dtype=float)


def digit_tables(cell: Cell) -> dict[str, dict[str, np.ndarray]]:
    """Map a loss to the tables of `digits.json`, summed over its seeds."""
    summed: dict[str, dict[str, np.ndarray]] = {}
    for loss in cell.losses:
        files = [run.folder.digits for run in cell.of(loss).values()]
        tables = [read_json(file) for file in files if file.exists()]
        if tables:
            summed[loss] = {key: sum(np.array(table[key]) for table in tables) for key in tables[0]}  # type: ignore[misc]
    return summed


def digits(cell: Cell) -> Figure | None:
    """Digit accuracy by place and by the number's length; calibration of the confidence in the most likely digit."""
    tables = {loss: t for loss, t in digit_tables(cell).items() if t["totals"][0]}
    if not tables:
        return None
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    styles = line_styles(cell.losses)
    places = max(int(np.nonzero(t["place"][:, 0])[0].max()) + 1 for t in tables.values())
    width = 0.8 / len(tables)
    for i, (loss, table) in enumerate(tables.items()):
        offset = np.arange(places) + (i - (len(tables) - 1) / 2) * width
        for axis, key in zip(axes[:2], ("place", "length"), strict=True):
            count, right = table[key][:places, 0], table[key][:places, 1]
            axis.bar(
                offset, np.divide(right, count, out=np.zeros(places), where=count > 0), width, **_bar(styles[loss])
            )
        count, right, confidence = table["calibration"].T
        filled = count > 0
        axes[2].plot(
            confidence[filled] / count[filled],
            right[filled] / count[filled],
            marker="o",
            ms=4,
            label=loss,
            **styles[loss],
        )
    for axis, title, label in (
        (axes[0], "digit accuracy by place", "place from the left"),
        (axes[1], "digit accuracy by the number's length", "digits of the number"),
    ):
        tidy(axis, f"{title} (teacher-forced)", label)
        axis.set_xticks(range(places), [str(k + 1) for k in range(places)])
        axis.set_ylim(0, 1)
    axes[2].plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    tidy(axes[2], "calibration of digits", "confidence in the most likely digit", "share that is right")
    axes[2].legend(frameon=False)
    return figure


def _bar(style: dict[str, Any]) -> dict[str, Any]:
    """A bar as a loss's line: hatched where that is no solid one."""
    return {"color": style["color"], "hatch": {"-": "", "--": "//", ":": "..", "-.": "xx"}[style["linestyle"]]}


def confusions(cell: Cell) -> Figure | None:
    """Digit confusion matrices, rows normalised; the diagonal is left white so that errors show."""
    tables = {loss: t["confusion"] for loss, t in digit_tables(cell).items() if t["totals"][0]}
    if not tables:
        return None
    figure, axes = plt.subplots(1, len(tables), figsize=(3.4 * len(tables), 3.6), layout="constrained", squeeze=False)
    rates = {loss: t / np.maximum(t.sum(1, keepdims=True), 1) for loss, t in tables.items()}
    off = {loss: np.where(np.eye(len(r), dtype=bool), np.nan, r) for loss, r in rates.items()}
    top = max(float(np.nanmax(r)) for r in off.values()) or 1.0
    for axis, (loss, rate) in zip(axes[0], off.items(), strict=True):
        image = axis.imshow(rate, vmin=0, vmax=top, cmap="magma_r")
        accuracy = float(np.trace(tables[loss]) / max(tables[loss].sum(), 1))
        axis.set_title(f"{loss}: {accuracy:.1%} right", fontsize=10)
        axis.set_xlabel("most likely digit")
        if len(rate) <= 10:
            axis.set_xticks(range(len(rate)))
            axis.set_yticks(range(len(rate)))
    axes[0][0].set_ylabel("true digit")
    figure.colorbar(image, ax=axes[0].tolist(), shrink=0.8, label="share of the true digit")
    return figure


def tidy(axis: Any, title: str, x: str, y: str = "") -> None:
    """Title, labels and a light grid."""
    axis.set_title(title, fontsize=11)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
