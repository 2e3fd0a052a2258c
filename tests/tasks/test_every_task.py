"""What every task promises, held against every config in conf/task: a new task is covered by being there.

A row's own answer is read strictly and scores best. No text at all crashes a task or scores above the true answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.common.errors import InvalidData
from ntil.config.build import build
from ntil.config.compose import choices, compose
from ntil.config.schema import Component
from tasks.answers.coordinates import FORMATS
from tasks.base import ParseFailure, Task
from tests.conftest import SHARED
from tests.support.chosen import slow_but
from tests.support.sources import SOURCES

NAMES = choices("task")
# One of each task; the others have rows of another source.
QUICK = (
    *("arithmetic", "clock", "detection_nano", "grounding_nano", "gsm8k", "jsonl", "mathvista_nano", "pointing_nano"),
    *("text_detection_single", "word_problems", "grounding_table"),
)
PER_SPLIT = 3


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Everything rendered or read for these tests lies there."""
    root = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NTIL_CACHE", str(root / "cache"))
        _built.cache_clear()
        yield root


def _specs(name: str, folder: Path) -> Iterator[Component]:
    task = compose([f"task={name}"]).task
    changes = SOURCES[name](folder, SHARED) if name in SOURCES else [{}]
    for change in changes:
        options = {**task.options, **{key: value for key, value in change.items() if key != "source"}}
        yield replace(task, options=_of_few_rows(options, change.get("source", {})))


def _of_few_rows(options: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """The options of a task, or of a mixture's tasks, with other values of its source and few rows."""
    if "tasks" in options:
        return {**options, "tasks": {name: _of_few_rows(task, {}) for name, task in options["tasks"].items()}}
    source = {**options["source"], **source}
    if "rows" in source:
        source["rows"] = dict.fromkeys(source["rows"], 2 * PER_SPLIT)
    return {**options, "source": source}


@cache
def _built(name: str, folder: Path) -> list[tuple[Task, list[dict[str, Any]]]]:
    """The config's tasks, in every coordinate format where that matters, with rows of every split."""
    own = folder / name
    own.mkdir(exist_ok=True)
    found = []
    for spec in _specs(name, own):
        # One format of each form of text; all of them are held to the same in test_coordinates.
        names = ("int1000", "loc", "json_pixels", "tags") if build("task", spec).coordinates else ("int1000",)
        formats = [FORMATS[name] for name in names]
        for coords in formats:
            task = build("task", spec, coords=coords)
            rows = [r for split in task.splits for r in task.rows(split).select(range(_few(task, split)))]
            found.append((task, rows))
    return found


def _few(task: Task, split: str) -> int:
    return min(PER_SPLIT, len(task.rows(split)))


def built(name: str, folder: Path) -> list[tuple[Task, list[dict[str, Any]]]]:
    try:
        return _built(name, folder)
    except (InvalidData, OSError) as error:
        pytest.skip(f"task={name} has no data here: {error}")


def headline(task: Task, record: dict[str, Any], lenient: bool = False) -> float:
    """The record's headline figure, so turned that more is better.

    An official script's figure may know one reading only (MathVista's), then that is the lenient one too.
    """
    metrics = task.summarize([record])
    value = metrics.get(f"lenient_{task.metric}", metrics[task.metric]) if lenient else metrics[task.metric]
    return value if task.greater_is_better else -value


@pytest.mark.parametrize("name", slow_but(QUICK, NAMES))
def test_own_answers_are_read_strictly_and_score_best(name, folder):
    for task, rows in built(name, folder):
        assert rows
        worse = 0
        for row in rows:
            assert isinstance(row["id"], str)
            assert task.prompt(row).strip()
            answer = task.answer(row)
            right, wrong = task.record(answer, row), task.record("", row)
            assert right["failure"] is None, (answer, right["failure"])
            assert json.loads(json.dumps(right)) == right
            assert headline(task, right) == headline(task, right, lenient=True) == (1 if task.greater_is_better else 0)
            worse += headline(task, wrong) < headline(task, right)
            assert wrong["failure"]
            assert set(right["scores"]) == set(wrong["scores"]) == set(wrong["lenient"])
            assert task.draw(row, task.parse(answer, row)).width > 0
            # What a batch of generation gives back may be padded with blanks.
            assert task.record(f" {answer}\n", row)["scores"] == right["scores"]
        # An official rule may find a choice nearest even to nothing, but not the right one every time.
        assert worse == len(rows) or (worse and task.metric.startswith("official"))


@pytest.mark.parametrize("name", NAMES)
def test_readings_have_distances(name, folder):
    for task, rows in built(name, folder):
        for row in rows:
            readings = [task.parse(task.answer(other), row) for other in rows]
            answer = task.parse(task.answer(row), row)
            assert task.distance(answer, answer, row) == 0
            for other in (one for one in readings if not isinstance(one, ParseFailure)):
                apart = task.distance(answer, other, row)
                assert apart == pytest.approx(task.distance(other, answer, row))
                assert apart >= 0
                assert apart == 0 or answer != other


@pytest.mark.parametrize("name", NAMES)
def test_sums_of_shards_add_up_to_those_of_all(name, folder):
    for task, rows in built(name, folder):
        texts = [task.answer(rows[-1]), "", "7"]
        records = [task.record(texts[i % 3] if i % 2 else task.answer(row), row) for i, row in enumerate(rows * 3)]
        sums: dict[str, Any] = {}
        for shard in range(4):
            for key, value in task.sum_scores(iter(records[shard::4])).items():
                sums[key] = sums[key] + value if key in sums else value
        # A summary may hold more than sums can tell (rank correlations), but nothing else.
        summary, finished = task.summarize(iter(records)), task.metrics_from_sums(sums)
        assert finished == pytest.approx({key: summary[key] for key in finished}, abs=1e-9)
        assert task.summarize(records)["examples"] == len(records)


PIECES = st.sampled_from(
    [
        *("[", "]", ", ", "; ", "none", "-", ".", "0", "999", "1000", "9" * 50, "1e999", "nan", "inf", "12:60"),
        *("<loc1024>", "<|box_start|>", "(1,2)", "\x00", "\ud800", "\u0663", "\u2212", "A", "(B)", "%", "####", "$"),
        *("1/0", "\n", " "),
    ]
)
ANYTHING = (
    st.text(max_size=60)
    | st.lists(PIECES, max_size=30).map("".join)
    | st.from_regex(r"[0-9 ,.:;()\[\]<>|/a-eA-E%$#+\-]{0,80}", fullmatch=True)
)


@st.composite
def texts(draw, answers: list[str]) -> str:
    """Anything, or a true answer cut, repeated or patched."""
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return draw(ANYTHING)
    answer = draw(st.sampled_from(answers))
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(answer))] * 2)))
    if kind == 1:
        return answer[:start] + draw(ANYTHING) + answer[end:]
    if kind == 2:
        return answer[start:end] * draw(st.integers(1, 400))
    if kind == 3:
        return draw(ANYTHING) + answer + draw(ANYTHING)
    return draw(st.sampled_from([", ", "; ", " ", "\n", ""])).join([answer, draw(st.sampled_from(answers))])


def hold(task: Task, row: dict[str, Any], text: str, best: tuple[float, float]) -> None:
    record = task.record(text, row)
    json.dumps(record)
    values = [*record["scores"].values(), *record["lenient"].values()]
    assert all(math.isfinite(v) for v in values), record
    assert headline(task, record) <= best[0], record
    assert headline(task, record, lenient=True) <= best[1], record
    strict = task.parse(text, row)
    assert (record["failure"] is not None) == isinstance(strict, ParseFailure)
    if not isinstance(strict, ParseFailure | str):  # a text is right or wrong by the truth
        assert task.parse_lenient(text, row) == strict
    worse, better = headline(task, record), headline(task, record, lenient=True)
    assert better >= worse or task.metric.startswith("official"), record
    task.draw(row, strict)
    task.draw(row, task.parse_lenient(text, row))


def fuzz(name: str, folder: Path, examples: int) -> None:
    cases = built(name, folder)
    bests = {}
    for number, (task, rows) in enumerate(cases):
        for place, row in enumerate(rows):
            record = task.record(task.answer(row), row)
            bests[number, place] = headline(task, record), headline(task, record, lenient=True)

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.data())
    def run(data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(cases) - 1))
        task, rows = cases[number]
        place = data.draw(st.integers(0, len(rows) - 1))
        text = data.draw(texts([task.answer(row) for row in rows]))
        hold(task, rows[place], text, bests[number, place])

    run()


@pytest.mark.parametrize("name", slow_but(QUICK, NAMES))
def test_no_text_crashes_a_task_or_scores_above_the_truth(name, folder):
    fuzz(name, folder, 40)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_text_at_greater_length(name, folder):
    fuzz(name, folder, 1000 if name in QUICK else 100)
