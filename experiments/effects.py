"""Effects of losses at several scales beside each other: does scale change the verdicts?

    ntil effects 'from scratch=runs/scratch' 'from CE=runs/from_ce' small=runs/small [base=ce] to=docs/results/scale

Each word is a label and a folder of runs; within it every loss is compared with `base` as `ntil report` does it, with
Holm's correction over the folder. effects.md has for each task and loss the difference at every scale with its 95 %
interval and verdict, and where effects differ between scales; effects.png has the intervals in one plot, better to the
right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Literal

from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from omegaconf import MISSING

from data.common.counts import counted
from data.common.files import write_text
from experiments.analysis import analyse
from experiments.render.plots import colours
from experiments.render.tables import MARKS, signed
from experiments.significance import Comparison
from ntil.commands.options import parse_options, split_options
from ntil.config.errors import ConfigError
from ntil.console import Table
from ntil.runs.run import read_runs


@dataclass
class EffectOptions:
    """Options of `ntil effects`."""

    to: str = MISSING
    base: str = "ce"


@dataclass(frozen=True)
class Effect:
    """A loss against the base at one scale. scale: its label, with the model where a scale has several for the task."""

    task: str
    metric: str
    loss: str
    scale: str
    comparison: Comparison


def main(arguments: list[str]) -> int:
    """Run `ntil effects`; the exit code.

    Raises:
        ConfigError: fewer than two scales, a label named twice, or a folder without a comparison.
    """
    settings, labelled = split_options(EffectOptions, arguments)
    options = parse_options("effects", EffectOptions, settings)
    folders = _folders(labelled)
    of_folders = [effects(label, folder, options.base) for label, folder in folders.items()]
    compared = [effect for of_folder, _ in of_folders for effect in of_folder]
    left = [note for _, notes in of_folders for note in notes]
    output = Path(options.to)
    output.mkdir(parents=True, exist_ok=True)
    figure = forest(compared)
    figure.savefig(output / "effects.png", dpi=110)
    plt.close(figure)
    file = output / "effects.md"
    write_text(file, page(compared, options.base, left))
    print("".join(f"not compared: {note}\n" for note in left) + f"effects: {file}")
    return 0


def _folders(labelled: Sequence[str]) -> dict[str, str]:
    folders: dict[str, str] = {}
    for word in labelled:
        label, equals, folder = word.partition("=")
        if not equals or not label or not folder:
            raise ConfigError(f"ntil effects: {word!r} is no label=folder, as in small=runs/small")
        if label in folders:
            raise ConfigError(f"ntil effects: the label {label!r} is there twice; give each folder its own")
        folders[label] = folder
    if len(folders) < 2:
        raise ConfigError("ntil effects needs two or more scales: ntil effects nano=runs/a small=runs/b to=<folder>")
    return folders


def effects(label: str, folder: str, base: str) -> tuple[list[Effect], list[str]]:
    """Every loss of the folder's runs against `base`, by each task's headline metric; and what isn't compared, and why.

    Raises:
        ConfigError: there is none, or runs that are no comparison.
    """
    left, reports = [], []
    for report in analyse(read_runs(folder), {}, base=base):
        reasons = [*report.missing, *([] if report.base == base else [f"no finished run of {base}"])]
        left += [f"{label}, {report.cell.task}, {report.cell.model}: {reason}" for reason in reasons]
        reports += [report] if report.base == base else []
    tasks = [report.cell.task for report in reports]
    of_losses = []
    for report in reports:
        if report.refused:
            raise ConfigError(f"{folder}: {report.cell.task}, {report.cell.model}: no comparison: {report.refused}")
        several = tasks.count(report.cell.task) > 1
        scale = f"{label}, {report.cell.model}" if several else label
        for line in report.lines:
            comparison = line.against.get(report.headline)
            if comparison is not None:
                of_losses.append(Effect(report.cell.task, report.headline, line.loss, scale, comparison))
    if not of_losses:
        raise ConfigError(f"{folder}: no finished run of {base} beside one of another loss on the same seed")
    return of_losses, left


def page(compared: Sequence[Effect], base: str, left: Sequence[str] = ()) -> str:
    """The page in Markdown. left: what isn't compared."""
    scales = list(dict.fromkeys(effect.scale for effect in compared))
    by_place = {(effect.task, effect.loss, effect.scale): effect for effect in compared}
    rows, several, differing = [], 0, []
    for task, metric, loss in dict.fromkeys((effect.task, effect.metric, effect.loss) for effect in compared):
        of_scales = {scale: by_place[task, loss, scale] for scale in scales if (task, loss, scale) in by_place}
        cells = [_cell(of_scales[scale].comparison) if scale in of_scales else "-" for scale in scales]
        rows.append([task, metric.replace("_", " "), loss, *cells])
        several += len(of_scales) > 1
        if apart := _farthest_apart(list(of_scales.values())):
            listed = " and ".join(f"{signed(e.comparison.difference)} {e.scale}" for e in apart)
            differing.append(f"* {task}, `{loss}`: {listed}")
    columns = ["task", "metric", "loss", *scales]
    align: list[Literal["l", "r"]] = ["l" if column in columns[:3] else "r" for column in columns]
    head = (
        f"Of {counted(several, 'case')} at more than one scale, effects differ in {len(differing)}, that is two 95 % "
        "intervals have nothing in common. A verdict at one scale and none at another is no difference yet"
    )
    lines = [
        f"# Losses against {base}, by scale",
        f"Difference in the headline metric, with its 95 % interval; ✓ better, ✗ worse than {base}, else not "
        "distinguishable.",
        Table("", columns, align, rows).markdown(),
        f"{head}{'. The two that are farthest apart:' if differing else '.'}",
        *(["\n".join(differing)] if differing else []),
        *(["Not compared:", "\n".join(f"* {note}" for note in left)] if left else []),
        f"![differences to {base} by scale, better to the right](effects.png)",
    ]
    return "\n\n".join(lines) + "\n"


def _farthest_apart(effects: Sequence[Effect]) -> tuple[Effect, Effect] | None:
    """The two effects with the widest gap between their intervals; None where all have something in common."""
    apart = [(one, other) for one, other in permutations(effects, 2) if one.comparison.low > other.comparison.high]
    return max(apart, key=lambda pair: pair[0].comparison.low - pair[1].comparison.high, default=None)


def _cell(comparison: Comparison) -> str:
    interval = f"[{signed(comparison.low)}, {signed(comparison.high)}]"
    mark, seeds = MARKS.get(comparison.verdict, ""), counted(comparison.seeds, "seed")
    return f"{signed(comparison.difference)} {interval} {mark} ({seeds})".replace("  ", " ")


def forest(compared: Sequence[Effect]) -> Figure:
    """Intervals of all effects, a panel for each task, a line for each loss, a colour for each scale."""
    tasks: Mapping[str, list[Effect]] = {task: [e for e in compared if e.task == task] for task in _order(compared)}
    scales = colours(list(dict.fromkeys(effect.scale for effect in compared)))
    tallest = max(len({effect.loss for effect in of_task}) for of_task in tasks.values())
    size = (4.6 * len(tasks), 1.6 + tallest * (0.2 + 0.16 * len(scales)))
    figure, axes = plt.subplots(1, len(tasks), figsize=size, layout="constrained", squeeze=False)
    for axis, (task, of_task) in zip(axes[0], tasks.items(), strict=True):
        losses = list(dict.fromkeys(effect.loss for effect in of_task))
        here = [scale for scale in scales if any(effect.scale == scale for effect in of_task)]
        for effect in of_task:
            sign = 1 if effect.comparison.greater_is_better else -1
            middle, *ends = (
                sign * v for v in (effect.comparison.difference, effect.comparison.low, effect.comparison.high)
            )
            level = -losses.index(effect.loss) - 0.8 * here.index(effect.scale) / len(here)
            distinct = effect.comparison.verdict in MARKS
            axis.plot(sorted(ends), [level, level], color=scales[effect.scale], linewidth=2)
            face = scales[effect.scale] if distinct else "white"
            axis.plot(middle, level, "o", color=scales[effect.scale], markerfacecolor=face, markersize=5)
        axis.axvline(0, color="#888888", linewidth=0.8)
        middle_of_line = 0.4 * (len(here) - 1) / len(here)
        axis.set_yticks([-i - middle_of_line for i in range(len(losses))], losses, fontsize=8)
        axis.set_ylim(-len(losses) + 0.1, 0.3)
        axis.set_title(task, fontsize=10)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlabel(f"difference in {of_task[0].metric.replace('_', ' ')}, better to the right")
        axis.spines[["top", "right"]].set_visible(False)
    for scale, colour in scales.items():
        axes[0][0].plot([], [], "o-", color=colour, label=scale)
    axes[0][0].plot([], [], "o", color="#555555", markerfacecolor="white", label="not distinguishable from the base")
    columns = min(len(scales) + 1, 2 * len(tasks))
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _order(compared: Sequence[Effect]) -> list[str]:
    return list(dict.fromkeys(effect.task for effect in compared))
