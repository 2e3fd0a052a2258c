"""Check every row of a task's data, draw some rows on one sheet, or export the task to an evaluation harness.

    ntil data check task=refcoco task.source.folder=<release> [model=<name>] [splits=train,test]
                   [workers=8] [out=report.txt]
    ntil data show task=grounding_nano [split=train] [n=16] [out=<task>-<split>.png] [augment=[flip,crop]]
    ntil data export task=gsm8k to=lm-eval|lmms-eval out=<folder> [split=test]

`check` reads every row of a source as training and evaluation would. It exits with 0 when every row that is left can be
used, and with 1 otherwise; rows that `task.source.on_error=skip` left out are counted and listed, and are no fault.
Notes say what a reader resolved by itself: files that are no pictures, repeated entries, ids of two kinds. The ceiling
is the scores that the taught answers themselves reach, with a warning below 0.99.
With `model=` every row is encoded as that model is trained: pictures of a shape that it doesn't take, answers that its
tokenizer doesn't give back, lengths. Its tokenizer is read, no weights; a training of the same reads the result.
Of a mixture (`task=[clock,arithmetic]`) every task is checked by itself, and `show` draws rows of each.
`show` draws some rows with their answers on one sheet; with `model=` the pictures are as sharp as that model sees them,
with `augment=` each row is followed by what a training first makes of it.
`export` writes a YAML, the rows with their pictures, and a scorer that calls ours (ntil must be installed beside the
harness), so that lm-evaluation-harness or lmms-eval asks, reads and scores as ntil does.

splits: of check, separated by commas; by default all. workers: processes of check; by default one a processor, up to 8.
split, n: of show, and how many rows. out: the file to write. All else overrides the configuration of a run; answers are
written in the coordinate format of `model`.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from data.augment.options import AugmentConfig
from data.common.counts import counted
from data.common.errors import UserError
from data.common.files import write_text
from data.common.rgb import rgb
from data.common.rows import Row, undecoded
from ntil.commands import data_export
from ntil.commands.options import parse_options, split_options
from ntil.components import Components, build_task
from ntil.config.errors import ConfigError, nearest
from ntil.config.schema import RunConfig
from ntil.evaluation.row_check import (
    EXAMPLES,
    Places,
    Progress,
    SplitCheck,
    SplitChecker,
    context_warning,
    too_long,
    without_refused,
)
from ntil.evaluation.usable_rows import cached_check, ceiling_warnings, length_option, workers_for
from ntil.models.base import Family
from ntil.preflight import compose_checked
from ntil.runs.metric_names import is_lenient
from ntil.train.augmentation import AugmentedRows
from tasks.base import Task
from tasks.mixture import has_split

LISTED = 20  # lines of a kind shown per split; `out=` gets all
FEW = 5  # answers shown per split that don't score best
NO_SCORES = ("examples", "parse_failure_rate")


@dataclass
class CheckOptions:
    """Options of `ntil data check`; `splits` are separated by commas, empty: all; `workers` null: by processors."""

    splits: str = ""
    out: str = ""
    workers: int | None = None


@dataclass
class ShowOptions:
    """Options of `ntil data show`; `n` rows, an empty `out` is <task>-<split>.png."""

    split: str = "train"
    n: int = 16
    out: str = ""


def main(arguments: list[str]) -> int:
    """Run `ntil data check|show|export`; the exit code, 1 if the check finds a row that can't be used.

    Raises:
        UserError: no such command, an override that can't be composed, or (show) a split that can't be read.
    """
    action, options = (arguments[0], arguments[1:]) if arguments else ("", [])
    if action == "export":
        return data_export.main(options)
    if action not in ("check", "show"):
        raise ConfigError(
            f"{f'ntil data {action}'.rstrip()}: write `ntil data check task=...`, `ntil data show task=...` or "
            "`ntil data export to=...`"
        )
    words, overrides = split_options(CheckOptions if action == "check" else ShowOptions, options)
    config = compose_checked(overrides, on_this_machine=False)
    task = build_task(config)
    task.check_files()
    with_model = any(word.partition("=")[0].partition(".")[0].lstrip("+") == "model" for word in overrides)
    if action == "check":
        return _check(config, task, with_model, parse_options("data check", CheckOptions, words))
    family = Components.build(config).family if with_model else None
    return _show(task, config, parse_options("data show", ShowOptions, words), family)


@dataclass
class SplitReport:
    """Result of checking one split.

    `skipped` rows were left out by the reader, `problems` can't be used, `notes` are what it resolved by itself.
    `below`: some of the `below_count` rows whose own answer doesn't score best.
    """

    split: str
    rows: int = 0
    skipped: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)
    below_count: int = 0
    longest_answer: int = 0
    longest_tokens: tuple[int, int] = (0, 0)
    ceiling: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return not self.problems and self.rows > 0

    def lines(self, most: int | None = None) -> list[str]:
        """The counts, the ceiling, then every finding, at most `most` of each kind."""
        counts = f"{counted(self.rows, 'row')}, {len(self.skipped)} skipped, {counted(len(self.problems), 'problem')}"
        lines = [f"{self.split}: {counts}, longest answer {counted(self.longest_answer, 'character')}"]
        if any(self.longest_tokens):
            lines.append("  longest answer {} tokens, longest row {} tokens".format(*self.longest_tokens))
        if self.ceiling:
            scores = ", ".join(f"{name} {value:.4g}" for name, value in self.ceiling.items())
            lines.append(f"  the taught answers reach {scores}")
        if self.below:
            lines.append(f"  {self.below_count} of {self.rows} taught answers don't score best themselves:")
            lines += [f"    {line}" for line in self.below[: EXAMPLES if most is None else FEW]]
        findings = (
            ("note", self.notes),
            ("skipped", self.skipped),
            ("problem", self.problems),
            ("warning", self.warnings),
        )
        for kind, entries in findings:
            lines += [f"  {kind}: {line}" for line in entries[:most]]
            if len(entries) > len(entries[:most]):
                lines.append(f"  ... {len(entries) - len(entries[:most])} more; out=<file> lists all")
        return lines


Check = Callable[[str, Dataset], SplitCheck]


def check(
    task: Task, splits: Iterable[str], check_rows: Check | None = None, model: ModelLimits | None = None
) -> list[SplitReport]:
    """Report on every row of the splits.

    Args:
        check_rows: checks the rows of a split with that name; by default what holds for every model.
        model: the model that the rows were encoded for, and its limits.
    """
    reports = []
    for name in splits:
        report, before = SplitReport(name), {*task.skipped, *task.notes}
        reports.append(report)
        try:
            rows = task.rows(name)
        except UserError as error:
            report.problems.append(str(error))
        else:
            result = check_rows(name, rows) if check_rows else SplitChecker(task, None, True)(rows)
            _fill(report, task, rows, result, model)
        report.skipped = [line for line in task.skipped if line not in before]
        report.notes = [line for line in task.notes if line not in before]
    return reports


def _fill(report: SplitReport, task: Task, rows: Dataset, result: SplitCheck, model: ModelLimits | None) -> None:
    places = Places(report.split, rows)
    try:
        report.rows = len(without_refused(task, report.split, rows, result))
    except UserError:
        report.rows = result.rows
        report.problems += [places.line(finding) for finding in result.refused]
    report.problems += [places.line(finding) for finding in result.unscored]
    report.longest_answer = result.characters
    report.longest_tokens = max(result.answer_tokens, default=0), max(result.tokens, default=0)
    report.ceiling = {
        name: value
        for name, value in result.ceiling.items()
        if "/" not in name and name not in NO_SCORES and not is_lenient(name)
    }
    report.warnings += ceiling_warnings(task, result, places)
    report.below = [places.line(finding) for finding in result.below]
    report.below_count = result.below_count
    if model is not None:
        report.problems += too_long(result, places, task.max_new_tokens, model.max_length, model.option)
        report.warnings += filter(None, [context_warning(result, places, model.family)])


@dataclass(frozen=True)
class ModelLimits:
    """A model family, the longest row of its training, and how to set `max_new_tokens`."""

    family: Family
    max_length: int
    option: str


def contact_sheet(
    task: Task,
    split: str,
    n: int,
    path: Path,
    columns: int | None = None,
    family: Family | None = None,
    augment: AugmentConfig | None = None,
    seed: int = 0,
) -> Path:
    """Draw `n` rows, spread evenly over the split, each with its answer as the prediction, and write one PNG.

    Args:
        family: draw pictures as sharp as that model sees them.
        augment, seed: draw after each row what the run of this seed makes of it when it first draws it.
    """
    if n < 1:
        raise ValueError(f"a contact sheet needs n >= 1, got {n}")
    rows = task.rows(split)
    n = min(n, len(rows))
    indices = _spread(task, rows, n)
    chosen = [rows[index] for index in indices]
    if augment is not None and augment.on:
        pairs = zip(chosen, AugmentedRows(rows, task, augment, seed).__getitems__(indices), strict=True)
        chosen, n = [row for pair in pairs for row in pair], 2 * n
        columns = columns or 2 * math.ceil(math.sqrt(n) / 2)
    chosen = [seen_by(family, row) for row in chosen]
    tiles = [task.draw(row, task.parse(task.answer(row), row)) for row in chosen]
    across = columns or math.ceil(math.sqrt(n))
    wide, high = max(t.width for t in tiles) + 8, max(t.height for t in tiles) + 8
    sheet = Image.new("RGB", (across * wide, math.ceil(n / across) * high), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % across * wide + 4, index // across * high + 4))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    return path


def _spread(task: Task, rows: Dataset, n: int) -> list[int]:
    """Indices of `n` rows, spread evenly; of a mixture about equally many of each task."""
    places: dict[str, list[int]] = {}
    for index, row_id in enumerate(rows.select_columns(["id"])["id"]):
        places.setdefault(task.member_of({"id": row_id}), []).append(index)
    counts = {name: min(-(-n // len(places)), len(part)) for name, part in places.items()}
    return [part[i * len(part) // counts[name]] for name, part in places.items() for i in range(counts[name])][:n]


def seen_by(family: Family | None, row: Row) -> Row:
    """The row with its picture scaled down to what the family's processor makes of it, and up again.

    A picture that the processor enlarges stays, and so does one whose family doesn't tell its size.
    """
    if family is None or row.get("image") is None or type(family).resized is Family.resized:
        return row
    image = row["image"]
    wide, high, _, _ = family.frame(image.size)
    across, down = family.resized(image.size)
    seen = max(1, round(image.width * across / wide)), max(1, round(image.height * down / high))
    small = min(seen[0], image.width), min(seen[1], image.height)
    picture = rgb(image).resize(small, Image.Resampling.BICUBIC).resize(image.size, Image.Resampling.BICUBIC)
    return {**row, "image": picture}


def _check(config: RunConfig, task: Task, with_model: bool, options: CheckOptions) -> int:
    named = [name for name in options.splits.split(",") if name]
    listed = _list_file(options.out) if options.out else None  # before all rows are read
    components = Components.build(config) if with_model else None
    task = components.task if components else task
    for split in named if task.members else ():
        if not any(has_split(member, split) for member in task.members.values()):
            task.check_split(split)
    reports = []
    for name, member in (task.members or {"": task}).items():
        settings = config.members[name] if name else config
        splits = [split for split in named if not name or has_split(member, split)] if named else member.splits
        of_member = components.members[name] if components else None
        for report in _reports(settings, member, splits, of_member, options.workers):
            reports.append(replace(report, split=f"{name}, {report.split}" if name else report.split))
    print("\n".join(line for report in reports for line in report.lines(LISTED)))
    if not with_model:
        print("add model=<name> to encode every row for that model")
    if listed:
        lines = [line for report in reports for line in report.lines()]
        write_text(listed, "\n".join(lines) + "\n")
    good = all(report.good for report in reports)
    print("all rows can be used" if good else "not usable as it stands", file=sys.stdout if good else sys.stderr)
    return 0 if good else 1


def _list_file(out: str) -> Path:
    """File of the list of findings, in a folder that is there.

    Raises:
        ConfigError: it is a folder.
    """
    path = Path(out).expanduser()
    if path.is_dir():
        raise ConfigError(f"out={out}: is a folder; name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _reports(
    config: RunConfig, task: Task, splits: Sequence[str], components: Components | None, workers: int | None
) -> list[SplitReport]:
    """Reports on the splits of one task."""
    if components is None:
        return check(task, splits, partial(_check_without_model, task, workers))
    model = ModelLimits(components.family, config.max_length, length_option(config))
    return check(task, splits, partial(_check_with_model, config, components, workers), model)


def _check_without_model(task: Task, workers: int | None, split: str, rows: Dataset) -> SplitCheck:
    return SplitChecker(task, None, True, workers_for(rows, workers), _bar(split))(rows)


def _check_with_model(
    config: RunConfig, components: Components, workers: int | None, split: str, rows: Dataset
) -> SplitCheck:
    return cached_check(config, components, rows, True, workers_for(rows, workers), _bar(split))


def _show(task: Task, config: RunConfig, options: ShowOptions, family: Family | None) -> int:
    if options.n < 1:
        raise ConfigError(f"n={options.n}: must be a number from 1")
    split = options.split if options.split in task.splits or len(task.splits) > 1 else task.splits[0]
    if config.augment.on and split != "train":
        raise ConfigError(f"split={split}: augment= changes training rows alone; leave one of them out")
    path = Path(options.out or f"{config.task.name}-{split}.png")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise ConfigError(f"out={path}: a sheet is a .png or .jpg file{nearest(path.suffix, ('.png', '.jpg'))}")
    contact_sheet(task, split, options.n, path, family=family, augment=config.augment, seed=config.seed)
    for line in task.skipped[:LISTED]:
        print(f"skipped: {line}", file=sys.stderr)
    print(f"{path}: {split}, {counted(len(task.skipped), 'row')} skipped")
    print(f"first prompt: {task.prompt(undecoded(task.rows(split))[0])!r}")
    return 0


def _bar(split: str) -> Progress:
    return lambda results, total: tqdm(results, total=total, desc=f"checking {split}", unit="row")
