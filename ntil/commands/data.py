"""Check every row of a task's data, or draw some rows on one sheet.

    ntil data check task=refcoco task.source.folder=<release> [splits=train,test] [out=report.txt]
    ntil data show task=grounding_nano [split=train] [n=16] [out=<task>-<split>.png]

`check` reads every row of a source as training and evaluation would. It exits with 0 when every row that is left can be
used, and with 1 otherwise; rows that `task.source.on_error=skip` left out are counted and listed, and are no fault.
`show` draws some rows with their answers on one sheet.

splits: of check, separated by commas; by default all. split, n: of show, and how many rows. out: the file to write. All
else overrides the configuration of a run; answers are written in the coordinate format of `model`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from data.common.counts import counted
from data.common.errors import UserError
from ntil.commands.options import parse_options, split_options
from ntil.components import build_task
from ntil.config.errors import ConfigError, nearest
from ntil.preflight import compose_checked
from tasks.base import Task

LISTED = 20  # lines of a kind shown per split; `out=` gets all


@dataclass
class CheckOptions:
    """Options of `ntil data check`; `splits` are separated by commas, empty: all."""

    splits: str = ""
    out: str = ""


@dataclass
class ShowOptions:
    """Options of `ntil data show`; `n` rows, an empty `out` is <task>-<split>.png."""

    split: str = "train"
    n: int = 16
    out: str = ""


def main(arguments: list[str]) -> int:
    """Run `ntil data check|show`; the exit code, 1 if the check finds a row that can't be used.

    Raises:
        UserError: no such command, an override that can't be composed, or (show) a split that can't be read.
    """
    action, options = (arguments[0], arguments[1:]) if arguments else ("", [])
    if action not in ("check", "show"):
        raise ConfigError(f"ntil data {action}: write `ntil data check task=...` or `ntil data show task=...`")
    words, overrides = split_options(CheckOptions if action == "check" else ShowOptions, options)
    config = compose_checked(overrides, on_this_machine=False)
    task = build_task(config)
    task.check_files()
    if action == "check":
        return _check(task, parse_options("data check", CheckOptions, words))
    return _show(task, config.task.name, parse_options("data show", ShowOptions, words))


@dataclass
class SplitReport:
    """Result of checking one split: `skipped` rows were left out by the reader, `problems` can't be used."""

    split: str
    rows: int = 0
    skipped: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    longest_answer: int = 0

    @property
    def good(self) -> bool:
        return not self.problems and self.rows > 0

    def lines(self, most: int | None = None) -> list[str]:
        """The counts, then every finding, at most `most` of each kind."""
        counts = f"{counted(self.rows, 'row')}, {len(self.skipped)} skipped, {counted(len(self.problems), 'problem')}"
        lines = [f"{self.split}: {counts}, longest answer {counted(self.longest_answer, 'character')}"]
        for kind, entries in (("skipped", self.skipped), ("problem", self.problems)):
            lines += [f"  {kind}: {line}" for line in entries[:most]]
            if len(entries) > len(entries[:most]):
                lines.append(f"  ... {len(entries) - len(entries[:most])} more; out=<file> lists all")
        return lines


Progress = Callable[[Iterable[int], int, str], Iterable[int]]


def check(task: Task, splits: Iterable[str], progress: Progress | None = None) -> list[SplitReport]:
    """Read every row of the splits as training and evaluation would.

    A row is good when its picture decodes, its prompt isn't empty, and its own answer can be parsed strictly and
    scored. `progress(numbers, total, title)` may wrap the loop with a bar.
    """
    reports = []
    for name in splits:
        split, before = SplitReport(name), set(task.skipped)
        reports.append(split)
        try:
            rows = task.rows(name)
        except UserError as error:
            split.problems.append(str(error))
        else:
            split.rows = len(rows)
            numbers: Iterable[int] = range(len(rows))
            for number in progress(numbers, len(rows), f"checking {name}") if progress else numbers:
                _check_row(task, rows, number, split)
        split.skipped = [line for line in task.skipped if line not in before]
    return reports


def _check_row(task: Task, rows: Dataset, number: int, split: SplitReport) -> None:
    name, problem = f"row {number}", None
    try:
        row = rows[number]
        name = f"row {number} ({row['id']})"
        answer = task.answer(row)
        split.longest_answer = max(split.longest_answer, len(answer))
        record = task.record(answer, row)
        if record["failure"] is not None:
            problem = f"its own answer {answer[:80]!r} can't be parsed: {record['failure']}"
        elif not task.prompt(row).strip():
            problem = "the prompt is empty"
    except Exception as error:  # a row may be broken in any way; the check must name it and continue
        problem = f"{type(error).__name__}: {error}"
    if problem:
        split.problems.append(f"{split.split}, {name}: {problem}")


def contact_sheet(task: Task, split: str, n: int, path: Path, columns: int | None = None) -> Path:
    """Draw `n` rows, spread evenly over the split, each with its answer as the prediction, and write one PNG."""
    if n < 1:
        raise ValueError(f"a contact sheet needs n >= 1, got {n}")
    rows = task.rows(split)
    n = min(n, len(rows))
    chosen = [rows[number * len(rows) // n] for number in range(n)]
    tiles = [task.draw(row, task.parse(task.answer(row), row)) for row in chosen]
    across = columns or math.ceil(math.sqrt(n))
    wide, high = max(t.width for t in tiles) + 8, max(t.height for t in tiles) + 8
    sheet = Image.new("RGB", (across * wide, math.ceil(n / across) * high), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % across * wide + 4, index // across * high + 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _check(task: Task, options: CheckOptions) -> int:
    splits = [name for name in options.splits.split(",") if name] or list(task.splits)
    reports = check(task, splits, _bar)
    print("\n".join(line for report in reports for line in report.lines(LISTED)))
    if options.out:
        lines = [line for report in reports for line in report.lines()]
        Path(options.out).write_text("\n".join(lines) + "\n")
    good = all(report.good for report in reports)
    print("all rows can be used" if good else "not usable as it stands", file=sys.stdout if good else sys.stderr)
    return 0 if good else 1


def _show(task: Task, name: str, options: ShowOptions) -> int:
    if options.n < 1:
        raise ConfigError(f"n={options.n}: must be a number from 1")
    split = options.split if options.split in task.splits or len(task.splits) > 1 else task.splits[0]
    path = Path(options.out or f"{name}-{split}.png")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"out={path}: a sheet is a .png or .jpg file{nearest(path.suffix, ('.png', '.jpg'))}")
    contact_sheet(task, split, options.n, path)
    for line in task.skipped[:LISTED]:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{path}: {split}, {counted(len(task.skipped), 'row')} skipped")
    return 0


def _bar(numbers: Iterable[int], total: int, title: str) -> Iterable[int]:
    return tqdm(numbers, total=total, desc=title, unit="row")
