"""`ntil data check task=...` reads every row of a source; `ntil data show task=...` draws some rows on one sheet.

    ntil data check task=refcoco task.folder=<release> [splits=train,test] [out=report.txt]
    ntil data show task=grounding_nano [split=train] [n=16] [out=<task>-<split>.png]

`check` exits with 0 when every row that is left can be used, and with 1 otherwise; rows that `task.on_error=skip` left
out are counted and listed, and are no fault. Answers are written in the coordinate format of `model`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ntil.compose import compose
from ntil.config import ConfigError, build, locate, nearest

LISTED = 20  # lines of a kind shown per split; `out=` gets all
OWN = {"check": {"splits": "", "out": ""}, "show": {"split": "train", "n": "16", "out": ""}}


def main(words: list[str]) -> int:
    """
    Raises:
        ConfigError: no such command, an override that can't be composed, or (show) a split that can't be read.
    """
    if not words or words[0] not in OWN:
        said = words[0] if words else ""
        raise ConfigError(f"ntil data {said}: write `ntil data check task=...` or `ntil data show task=...`")
    own = OWN[words[0]] | {k: v for k, _, v in (w.partition("=") for w in words[1:]) if k in OWN[words[0]]}
    config = compose([w for w in words[1:] if w.partition("=")[0] not in OWN[words[0]]])
    task = built(config)
    return _check(task, own) if words[0] == "check" else _show(task, config["task"].get("name", "task"), own)


def built(config: dict[str, Any]) -> Any:
    """The config's task, with its model's coordinate format, without building the model.

    Raises:
        ConfigError: the task refuses its configuration.
    """
    from tasks import coords

    model = config["model"]
    try:
        return build(
            "task", config["task"], coords=coords.format(model.get("coords") or locate(model["target"]).coords)
        )
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(str(error)) from error


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

    def lines(self, most: int | None = None) -> list[str]:
        """The counts, then every finding, at most so many of a kind."""
        counts = f"{self.rows} rows, {len(self.skipped)} skipped, {len(self.problems)} problems"
        lines = [f"{self.split}: {counts}, longest answer {self.longest_answer} characters"]
        for kind, found in (("skipped", self.skipped), ("problem", self.problems)):
            lines += [f"  {kind}: {line}" for line in found[:most]]
            if len(found) > len(found[:most]):
                lines.append(f"  ... {len(found) - len(found[:most])} more; out=<file> lists all")
        return lines


Progress = Callable[[Iterable[int], int, str], Iterable[int]]


def check(task: Any, splits: Iterable[str], progress: Progress | None = None) -> list[SplitReport]:
    """Read every row of the splits as training and evaluation would.

    A row is good when its picture decodes, its prompt is a text, and its own answer can be parsed strictly and scored.
    `progress(numbers, total, title)` may wrap the loop with a bar.
    """
    reports = []
    for name in splits:
        split, before = SplitReport(name), set(task.skipped)
        reports.append(split)
        try:
            rows = task.rows(name)
        except ValueError as error:
            split.problems.append(str(error))
        else:
            split.rows = len(rows)
            numbers: Iterable[int] = range(len(rows))
            for number in progress(numbers, len(rows), f"checking {name}") if progress else numbers:
                _check_row(task, rows, number, split)
        split.skipped = [line for line in task.skipped if line not in before]
    return reports


def _check_row(task: Any, rows: Any, number: int, split: SplitReport) -> None:
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
    except Exception as error:  # any row may be broken in any way; the check must name it and go on
        problem = f"{type(error).__name__}: {error}"
    if problem:
        split.problems.append(f"{split.split}, {name}: {problem}")


def contact_sheet(task: Any, split: str, n: int, path: Path, columns: int | None = None) -> Path:
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
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (place % across * wide + 4, place // across * high + 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _check(task: Any, own: dict[str, str]) -> int:
    splits = [name for name in own["splits"].split(",") if name] or list(task.split_names)
    reports = check(task, splits, _bar)
    print("\n".join(line for report in reports for line in report.lines(LISTED)))
    if own["out"]:
        Path(own["out"]).write_text("\n".join(line for report in reports for line in report.lines()) + "\n")
    good = all(report.good for report in reports)
    print("all rows can be used" if good else "not usable as it stands", file=sys.stdout if good else sys.stderr)
    return 0 if good else 1


def _show(task: Any, name: str, own: dict[str, str]) -> int:
    if not own["n"].isdigit() or int(own["n"]) < 1:
        raise ConfigError(f"n={own['n']}: must be a number from 1")
    if own["split"] not in task.split_names and len(task.split_names) == 1:
        own["split"] = task.split_names[0]
    path = Path(own["out"] or f"{name}-{own['split']}.png")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"out={path}: a sheet is a .png or .jpg file{nearest(path.suffix, ('.png', '.jpg'))}")
    try:
        contact_sheet(task, own["split"], int(own["n"]), path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    for line in task.skipped[:LISTED]:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{path}: {own['split']}, {len(task.skipped)} rows skipped")
    return 0


def _bar(numbers: Iterable[int], total: int, title: str) -> Iterable[int]:
    from tqdm.auto import tqdm

    return tqdm(numbers, total=total, desc=title, unit="row")
