"""The same test rows under every loss, drawn by their task, those on which two losses differ most first."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from experiments.collect import Cell, Run, row_key
from ntil.config import ConfigError
from ntil.runs import read_jsonl

SHEET = 1250  # pixels: the most that a sheet is wide


@dataclass(frozen=True)
class Example:
    """One test row: what each loss wrote, its headline score, and its picture."""

    id: str
    answer: str
    texts: dict[str, str]
    scores: dict[str, float]
    pictures: dict[str, Image.Image]

    @property
    def spread(self) -> float:
        return max(self.scores.values()) - min(self.scores.values())


@dataclass(frozen=True)
class Gallery:
    """What can be shown of a cell, or why nothing can."""

    examples: tuple[Example, ...] = ()
    missing: str = ""


def of(cell: Cell, metric: str, count: int) -> Gallery:
    """Rows of the lowest shared seed: half of them where the losses' scores differ most, half the first ones."""
    runs = _one_run_each(cell)
    if not runs:
        return Gallery()
    tables = {loss: list(read_jsonl(run.folder.predictions)) for loss, run in runs.items()}
    keys = {tuple(map(row_key, table)) for table in tables.values()}
    if len(keys) > 1:
        return Gallery(missing="the losses were tested on other examples or answers")
    try:
        found = _drawn(next(iter(runs.values())), tables, _chosen(tables, metric, count), metric)
    except (ConfigError, OSError) as error:
        return Gallery(missing=f"the test rows can't be read again: {error}")
    return Gallery(tuple(found))


def _chosen(tables: dict[str, list[dict[str, Any]]], metric: str, count: int) -> list[int]:
    gaps: list[tuple[float, int]] = []
    for place, records in enumerate(zip(*tables.values(), strict=True)):
        scores = [_score(record, metric) for record in records]
        gaps.append((max(scores) - min(scores), place))
    differing = [place for gap, place in sorted(gaps, key=lambda g: (-g[0], g[1])) if gap > 0][: count // 2]
    others = [place for _, place in gaps if place not in differing]
    return sorted({*differing, *others[: count - len(differing)]})


def _one_run_each(cell: Cell) -> dict[str, Run]:
    done = {loss: cell.of(loss) for loss in cell.losses if cell.of(loss)}
    shared = set.intersection(*(set(runs) for runs in done.values())) if done else set()
    return {loss: runs[min(shared)] for loss, runs in done.items()} if shared else {}


def _score(record: dict[str, Any], metric: str) -> float:
    """The headline score, or the first one where the headline is no mean over examples (hmean, a correlation)."""
    scores = record["scores"]
    return float(scores[metric] if metric in scores else next(iter(scores.values())))


def _drawn(run: Run, tables: dict[str, list[dict[str, Any]]], places: Sequence[int], metric: str) -> list[Example]:
    """
    Raises:
        ConfigError: the split no longer has these rows.
    """
    task = run.built_task
    rows = task.rows(run.config["evaluation"]["split"])
    found = []
    for place in places:
        records = {loss: table[place] for loss, table in tables.items()}
        first = next(iter(records.values()))
        row = rows[place] if place < len(rows) else None
        if row is None or (str(row["id"]), task.answer(row)) != row_key(first):
            raise ConfigError(f"row {place} is no longer {first['id']} with the answer {first['answer']!r}")
        pictures = {loss: task.draw(row, task.parse(r["text"], row)) for loss, r in records.items()}
        texts = {loss: r["text"] for loss, r in records.items()}
        scores = {loss: _score(r, metric) for loss, r in records.items()}
        found.append(Example(str(row["id"]), first["answer"], texts, scores, pictures))
    return found


def sheet(found: Sequence[Example], file: Path, columns: int = 8) -> None:
    """One PNG: a line of pictures per loss, at most `columns` examples, the most differing ones among them."""
    chosen = sorted(found, key=lambda e: -e.spread)[: columns // 2]
    chosen += [e for e in found if e not in chosen][: columns - len(chosen)]
    losses = list(chosen[0].pictures)
    width = max(p.width for e in chosen for p in e.pictures.values())
    height = max(p.height for e in chosen for p in e.pictures.values())
    margin = 130
    canvas = Image.new("RGB", (margin + width * len(chosen), height * len(losses)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=18)
    for line, loss in enumerate(losses):
        draw.text((10, line * height + height // 3), loss, fill="black", font=font)
        for column, example in enumerate(chosen):
            canvas.paste(example.pictures[loss], (margin + column * width, line * height))
    canvas.thumbnail((SHEET, canvas.height))
    save_small(canvas, file)


def save_small(picture: Image.Image, file: Path) -> None:
    """As a PNG of 256 colours, a few times smaller than with all of them.

    By octree: the median cut gives small things of a strong colour to the large grey ones around them.
    """
    picture.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE).save(file, optimize=True)


def data_uri(picture: Image.Image, longest: int = 260) -> str:
    """The picture inside a page, reduced where it is large."""
    shown = picture.convert("RGB")
    shown.thumbnail((longest, longest))
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
