"""Gallery of test rows under every loss, drawn by their task; half of them are those whose scores differ most."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from data.common.errors import UserError
from data.common.rows import Row
from experiments.cells import Cell, row_key
from ntil.config.errors import ConfigError
from ntil.runs.run import Run
from tasks.base import Task

SHEET = 1250  # pixels: the most that a sheet is wide


@dataclass(frozen=True)
class Example:
    """One test row: the answer, headline score and picture under each loss."""

    id: str
    answer: str
    texts: dict[str, str]
    scores: dict[str, float]
    pictures: dict[str, Image.Image]

    @property
    def score_range(self) -> float:
        return max(self.scores.values()) - min(self.scores.values())


@dataclass(frozen=True)
class Gallery:
    """Examples of a cell, or in `missing` the reason that there are none."""

    examples: tuple[Example, ...] = ()
    missing: str = ""


def build_gallery(cell: Cell, metric: str, count: int) -> Gallery:
    """Rows of the lowest shared seed: half of them where the losses' scores differ most, half the first ones."""
    runs = _one_run_each(cell)
    if not runs:
        return Gallery(missing="no seed has a finished run of every loss")
    try:
        tables = {loss: list(run.folder.read_predictions()) for loss, run in runs.items()}
    except ConfigError as error:
        return Gallery(missing=str(error))
    keys = {tuple(map(row_key, table)) for table in tables.values()}
    if len(keys) > 1:
        return Gallery(missing="the losses were tested on other examples or answers")
    try:
        first = next(iter(runs.values()))
        score = partial(headline_score, first.built_task, metric=metric)
        examples = _drawn(first, tables, _chosen(tables, score, count), score)
    except (UserError, OSError) as error:
        return Gallery(missing=f"the test rows can't be read again: {error}")
    return Gallery(tuple(examples))


def _chosen(tables: dict[str, list[Row]], score: Callable[[Row], float], count: int) -> list[int]:
    gaps: list[tuple[float, int]] = []
    for index, records in enumerate(zip(*tables.values(), strict=True)):
        scores = [score(record) for record in records]
        gaps.append((max(scores) - min(scores), index))
    differing = [index for gap, index in sorted(gaps, key=lambda g: (-g[0], g[1])) if gap > 0][: count // 2]
    agreeing = [index for _, index in gaps if index not in differing]
    return sorted({*differing, *agreeing[: count - len(differing)]})


def _one_run_each(cell: Cell) -> dict[str, Run]:
    done = {loss: cell.of(loss) for loss in cell.losses if cell.of(loss)}
    seeds = {loss: set(runs) for loss, runs in done.items()}
    of_trained = [of_loss for loss, of_loss in seeds.items() if loss not in cell.untrained]
    shared = set.intersection(*(of_trained or seeds.values())) if seeds else set()
    return {loss: runs.get(min(shared), runs[min(runs)]) for loss, runs in done.items()} if shared else {}


def headline_score(task: Task, record: Row, metric: str) -> float:
    """The metric of this example alone, or its first score where one example has none (a correlation)."""
    scores = record["scores"]
    if metric in scores:
        return float(scores[metric])
    try:
        alone = task.metrics_from_sums(task.sum_scores([record])).get(metric, math.nan)
    except (ValueError, ArithmeticError):
        alone = math.nan
    return float(alone if math.isfinite(alone) else next(iter(scores.values())))


def _drawn(
    run: Run, tables: dict[str, list[Row]], indices: Sequence[int], score: Callable[[Row], float]
) -> list[Example]:
    """Draw the rows at `indices` under every loss.

    Raises:
        ConfigError: the split no longer has these rows.
    """
    task = run.built_task
    rows = task.rows(run.config.evaluation.split)
    # Not by their position: rows that a model can't use have no prediction.
    positions = {str(name): position for position, name in enumerate(rows["id"])}
    examples = []
    for index in indices:
        records = {loss: table[index] for loss, table in tables.items()}
        first = next(iter(records.values()))
        position = positions.get(str(first["id"]))
        row = None if position is None else rows[position]
        if row is None or task.answer(row) != first["answer"]:
            raise ConfigError(f"there is no row {first['id']} with the answer {first['answer']!r} any more")
        pictures = {loss: task.draw(row, task.parse(r["text"], row)) for loss, r in records.items()}
        texts = {loss: r["text"] for loss, r in records.items()}
        scores = {loss: score(r) for loss, r in records.items()}
        examples.append(Example(str(row["id"]), first["answer"], texts, scores, pictures))
    return examples


def write_sheet(examples: Sequence[Example], file: Path, columns: int = 8) -> None:
    """Write one PNG: a line of pictures per loss, at most `columns` examples, half of them the most differing."""
    chosen = sorted(examples, key=lambda e: -e.score_range)[: columns // 2]
    chosen += [e for e in examples if e not in chosen][: columns - len(chosen)]
    losses = list(chosen[0].pictures)
    width = max(p.width for e in chosen for p in e.pictures.values())
    height = max(p.height for e in chosen for p in e.pictures.values())
    font = ImageFont.load_default(size=18)
    margin = max(130, 20 + round(max(font.getlength(loss) for loss in losses)))
    canvas = Image.new("RGB", (margin + width * len(chosen), height * len(losses)), "white")
    draw = ImageDraw.Draw(canvas)
    for line, loss in enumerate(losses):
        draw.text((10, line * height + height // 3), loss, fill="black", font=font)
        for column, example in enumerate(chosen):
            canvas.paste(example.pictures[loss], (margin + column * width, line * height))
    canvas.thumbnail((SHEET, canvas.height))
    save_small(canvas, file)


def save_small(picture: Image.Image, file: Path) -> None:
    """Save as a PNG of 256 colours, a few times smaller than with all of them.

    The colours are chosen by octree: the median cut merges small saturated areas into large grey ones.
    """
    picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(file, optimize=True)


def data_uri(picture: Image.Image, longest: int = 260) -> str:
    """The picture as a data URI (WebP), with at most `longest` pixels a side."""
    reduced = picture.convert("RGB")
    reduced.thumbnail((longest, longest))
    buffer = io.BytesIO()
    reduced.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
