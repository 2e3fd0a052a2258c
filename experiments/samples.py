"""Answers of anybody's models on a task, read from files, scored by the task and compared as runs are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data.common.counts import counted
from data.common.rows import Row, undecoded
from experiments.cells import joined_sums
from experiments.render.tables import comparison_cells, number
from experiments.significance import ScoreSums, compare
from ntil.commands.options import parse_options, split_options
from ntil.components import build_task
from ntil.config.errors import ConfigError
from ntil.console import Table, first_left
from ntil.preflight import compose_checked
from ntil.runs.folder import read_jsonl
from tasks.base import Task

EXAMPLES = 3  # ids named in a refusal
FORMATS = 'predictions.jsonl of a run, `--log_samples` of a harness, or {"id": ..., "prediction": ...}'


@dataclass
class SampleOptions:
    """Options of `ntil compare --samples`; an empty `split` is the one that the task is tested on."""

    split: str = ""
    partial: bool = False


def compare_samples(arguments: list[str]) -> int:
    """Compare two files of answers (or lists of files, one a seed) on a task; the exit code.

    Raises:
        UserError: not two sides, unequal numbers of seeds, or files that don't hold the same rows of the split.
    """
    files = [word for word in arguments if "=" not in word or all(Path(name).is_file() for name in word.split(","))]
    option_arguments, overrides = split_options(SampleOptions, [word for word in arguments if word not in files])
    options = parse_options("compare --samples", SampleOptions, option_arguments)
    if len(files) != 2:
        raise ConfigError("ntil compare --samples needs two files: ntil compare --samples a.jsonl b.jsonl task=...")
    sides = [[Path(name) for name in side.split(",") if name] for side in files]
    if len(sides[0]) != len(sides[1]):
        raise ConfigError(f"{len(sides[0])} and {len(sides[1])} files: seeds are paired, so name as many on each side")
    config = compose_checked(overrides, on_this_machine=False)
    task = build_task(config)
    task.check_files()
    split = options.split or config.evaluation.split
    task.check_split(split)
    table = undecoded(task.rows(split))
    rows = {str(row["id"]): row for row in table}
    texts = [[read_answers(file, task, rows) for file in side] for side in sides]
    chosen = set(_common_rows(sides, texts, list(rows), split, options.partial))
    for name, member_rows in (task.by_member(table) if task.members else {"": table}).items():
        # Of a mixture the ids in the files begin with the name of the task.
        stem, member = (f"{name}:", task.members[name]) if name else ("", task)
        of_task = [row for row in member_rows if stem + str(row["id"]) in chosen]
        if not of_task:
            continue
        base, other = (_score_sums(member, of_task, stem, side) for side in texts)
        title = f"{name or config.task.name}, {split}: {counted(len(of_task), 'row')}"
        _table(member, base, other, (files[0], files[1]), title).print()
    return 0


def read_answers(file: Path, task: Task, rows: dict[str, Row]) -> dict[str, str]:
    """Map the id of a row to the text that was generated for it.

    Args:
        rows: of the split, by id.

    Raises:
        ConfigError: a line of no known format, a row that comes twice or isn't in the split, or (our own format) an
            answer that isn't the row's.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: there is no such file")
    answers: dict[str, str] = {}
    for line, record in enumerate(read_jsonl(file), 1):
        where = f"{file}, line {line}"
        name, text = _answer(record, where)
        if name not in rows and f"{record.get('task')}:{name}" in rows:  # as a run of a mixture writes it
            name = f"{record['task']}:{name}"
        if name not in rows:
            raise ConfigError(f"{where}: the split has no row {name!r}; choose the data and the split of these answers")
        if name in answers:
            several = f" (filter {record['filter']!r}: leave one filter's lines)" if "filter" in record else ""
            raise ConfigError(f"{where}: row {name!r} comes a second time{several}")
        true = task.answer(rows[name])
        if "prediction" not in record and "answer" in record and record["answer"] != true:
            raise ConfigError(
                f"{where}: row {name!r} has the answer {record['answer']!r}, in this split it is {true!r}; choose the "
                "data, and with model= the coordinate format, of these answers"
            )
        answers[name] = text
    if not answers:
        raise ConfigError(f"{file}: no answer there")
    return answers


def _answer(record: Row, where: str) -> tuple[str, str]:
    if "doc_id" in record:
        document = record.get("doc")
        name = document.get("id") if isinstance(document, dict) else None
        text = _first_text(record.get("filtered_resps", record.get("resps")))
        if name is None:
            raise ConfigError(f"{where}: its `doc` has no `id`, which says of which row it is (see `ntil data export`)")
    else:
        name, text = record.get("id"), record.get("prediction", record.get("text"))
    if name is None or not isinstance(text, str):
        raise ConfigError(f"{where}: no id with a text; a line is one of {FORMATS}")
    return str(name), text


def _first_text(responses: Any) -> str | None:
    while isinstance(responses, list) and responses:
        responses = responses[0]
    return responses if isinstance(responses, str) else None


def _common_rows(
    sides: Sequence[Sequence[Path]], texts: list[list[dict[str, str]]], ids: list[str], split: str, partial: bool
) -> list[str]:
    """Ids of the rows to compare, in the split's order."""
    for file, answers in _files(sides, texts):
        missing = [name for name in ids if name not in answers]
        if missing and not partial:
            first = ", ".join(map(repr, missing[:EXAMPLES]))
            raise ConfigError(
                f"{file} lacks {len(missing)} of {counted(len(ids), 'row')} of {split} (first: {first}); answer "
                "them, or compare the rows that all files have with partial=true"
            )
    common = [name for name in ids if all(name in answers for _, answers in _files(sides, texts))]
    if not common:
        raise ConfigError("the files have no row in common")
    return common


def _files(sides: Sequence[Sequence[Path]], texts: list[list[dict[str, str]]]) -> Iterator[tuple[Path, dict[str, str]]]:
    for files, side in zip(sides, texts, strict=True):
        yield from zip(files, side, strict=True)


def _score_sums(task: Task, rows: Sequence[Row], stem: str, side: Sequence[dict[str, str]]) -> ScoreSums:
    tables = [[task.sum_scores([task.record(answers[stem + str(row["id"])], row)]) for row in rows] for answers in side]
    return joined_sums(tables, task, task.metric, [task.picture_key(row) for row in rows])


def _table(task: Task, base: ScoreSums, other: ScoreSums, names: tuple[str, str], title: str) -> Table:
    directions = {task.metric: task.greater_is_better, **task.secondary_metrics, "parse_failure_rate": False}
    columns = ["metric", *names, "difference [95 %]", "p", "verdict", "seeds needed"]
    lines = []
    for metric, greater in directions.items():
        one, two = (replace(side, metric=metric) for side in (base, other))
        comparison = compare(two, one, greater)
        means = [number(float(side.metric_of().mean())) for side in (one, two)]
        lines.append([metric.replace("_", " "), *means, *comparison_cells(comparison)])
    return Table(title, columns, first_left(columns), lines)
