"""Look at a task's data: check every row of a source, or draw some rows with their answers on one sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image


@dataclass
class SplitReport:
    """What the check of one split found. `skipped` are rows the reader left out, `problems` rows that are no use."""

    split: str
    rows: int = 0
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    longest_answer: int = 0

    @property
    def good(self) -> bool:
        return not self.problems and self.rows > 0


@dataclass
class Report:
    splits: list[SplitReport] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return all(split.good for split in self.splits)

    def __str__(self) -> str:
        lines = []
        for split in self.splits:
            counts = f"{split.rows} rows, {len(split.skipped)} skipped, {len(split.problems)} problems"
            lines.append(f"{split.split}: {counts}, longest answer {split.longest_answer} characters")
            lines += [f"  skipped: {line}" for line in split.skipped] + [
                f"  problem: {line}" for line in split.problems
            ]
        return "\n".join(lines)


Progress = Callable[[Iterable[int], int, str], Iterable[int]]


def check(task: Any, splits: Iterable[str], progress: Progress | None = None) -> Report:
    """Read every row of the splits as training and evaluation would.

    A row is good when its picture decodes, its prompt is a text, and its own answer can be parsed strictly and scored.
    `progress(numbers, total, title)` may wrap the loop with a bar.
    """
    report = Report()
    for name in splits:
        split, before = SplitReport(name), len(task.skipped)
        report.splits.append(split)
        try:
            rows = task.rows(name)
        except ValueError as error:
            split.problems.append(str(error))
            continue
        split.rows, split.skipped = len(rows), task.skipped[before:]
        numbers: Iterable[int] = range(len(rows))
        for number in progress(numbers, len(rows), f"checking {name}") if progress else numbers:
            _check_row(task, rows, number, split)
    return report


def _check_row(task: Any, rows: Any, number: int, split: SplitReport) -> None:
    try:
        row = rows[number]
        answer = task.answer(row)
        split.longest_answer = max(split.longest_answer, len(answer))
        problem = None if task.prompt(row).strip() else "the prompt is empty"
        record = task.record(answer, row)
        if record["failure"] is not None:
            problem = f"its own answer {answer[:80]!r} can't be parsed: {record['failure']}"
    except Exception as error:  # any row may be broken in any way; the check must name it and go on
        problem = f"{type(error).__name__}: {error}"
    if problem:
        split.problems.append(f"{split.split}, row {number}: {problem}")


def contact_sheet(task: Any, split: str, n: int, path: Path, columns: int | None = None) -> Path:
    """Draw `n` rows, spread evenly over the split, each with its answer as the prediction, and write one PNG."""
    rows = task.rows(split)
    if n < 1:
        raise ValueError(f"a contact sheet needs n >= 1, got {n}")
    n = min(n, len(rows))
    chosen = [rows[number * len(rows) // n] for number in range(n)]
    tiles = [task.draw(row, task.parse(task.answer(row), row)) for row in chosen]
    across = columns or math.ceil(math.sqrt(n))
    wide, high = max(t.width for t in tiles) + 8, max(t.height for t in tiles) + 8
    sheet = Image.new("RGB", (across * wide, math.ceil(n / across) * high), "white")
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % across * wide + 4, place // across * high + 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path
