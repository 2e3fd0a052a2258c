"""Pictures of runs: learning curves and drawn predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from PIL import Image, ImageDraw, ImageFont

from ntil.runs import read_jsonl
from tasks.base import Task

# Okabe-Ito: told apart by colour-blind readers too.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442"]


def curves(histories: dict[str, list[dict[str, Any]]], metric: str, file: Path) -> None:
    """Cross-entropy in training, and the validation split's cross-entropy and headline metric, over steps."""
    panels = (
        ("loss/ce", "training cross-entropy (nats per token)"),
        ("eval_ce", "validation cross-entropy (nats per token)"),
        (f"eval_{metric}", f"validation {metric.replace('_', ' ')}"),
    )
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for axis, (key, title) in zip(axes, panels, strict=True):
        for colour, (name, history) in zip(COLOURS * 9, histories.items(), strict=False):
            points = [(record["step"], record[key]) for record in history if key in record]
            if points:
                axis.plot(*zip(*points, strict=True), color=colour, label=name, linewidth=1.5)
        axis.set_title(title, fontsize=11)
        axis.set_xlabel("step")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    if axes[0].lines:
        axes[0].legend(frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def predictions(task: Task, split: str, files: dict[str, Path], file: Path, examples: int = 8) -> None:
    """The same test rows under every run, drawn by the task: one line of pictures per run.

    Half of them are the first rows on which the runs' texts differ, the others the first of all.
    """
    rows = task.rows(split)
    chosen = _telling(list(files.values()), examples)
    tiles: list[tuple[str, list[Image.Image]]] = []
    for name, source in files.items():
        texts = {i: record["text"] for i, record in enumerate(read_jsonl(source)) if i in chosen}
        tiles.append((name, [task.draw(rows[i], task.parse(texts[i], rows[i])) for i in chosen]))
    width, height = tiles[0][1][0].size
    margin = 120
    sheet = Image.new("RGB", (margin + width * len(tiles[0][1]), height * len(tiles)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=18)
    for line, (name, pictures) in enumerate(tiles):
        draw.multiline_text((10, line * height + height // 3), name.replace(" seed", "\nseed"), fill="black", font=font)
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (margin + column * width, line * height))
    sheet.save(file)


def _telling(files: list[Path], examples: int) -> list[int]:
    """Row numbers, rising: the first on which the texts differ, filled up with the first of all."""
    differ: list[int] = []
    count = 0
    for records in zip(*map(read_jsonl, files), strict=False):
        if len(differ) < examples // 2 and len({record["text"] for record in records}) > 1:
            differ.append(count)
        count += 1
    others = [i for i in range(count) if i not in differ]
    return sorted([*differ, *others[: examples - len(differ)]])
