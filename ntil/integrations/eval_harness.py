"""Our tasks in lm-evaluation-harness and lmms-eval: a YAML, a scorer that calls ours, and the rows.

`ntil data export to=lm-eval|lmms-eval out=<folder> task=...` writes them. Prompts, reading, scores: the task's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from PIL import Image

from data.common.files import replacing
from data.common.rows import Row, image_columns, undecoded
from ntil.components import build_task
from ntil.config.errors import ConfigError
from ntil.config.permissions import without_permissions
from ntil.config.schema import RunConfig
from ntil.integrations.directions import greater_is_better
from ntil.runs.metric_names import is_lenient
from tasks.base import Task

Harness = Literal["lm-eval", "lmms-eval"]
TAG = "!function "
TAUGHT = 16  # rows whose true answers are scored too, to see which metrics there are

SCORER = '''\
"""Reads and scores answers as ntil does: {task}, protocol {protocol}. Written by `ntil data export`."""

from pathlib import Path

from ntil.integrations.eval_harness import ExportedTask

TASK = ExportedTask(Path(__file__).parent)


def process_results(doc, results):
    return TASK.scores(doc, results)


def doc_to_text(doc, *_, **__):
    return doc["prompt"]


def doc_to_visual(doc, *_, **__):
    return TASK.pictures(doc)
'''
AGGREGATION = """

def {function}(records, *_):
    return TASK.summary(records, {metric!r})
"""


class ExportedTask:
    """A task as exported to a folder: its configuration, and the functions that a harness calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def task(self) -> Task:
        return build_task(without_permissions(RunConfig.read(self.folder / "config.yaml")))

    def scores(self, doc: Row, results: Sequence[Any]) -> dict[str, Any]:
        """Scores of one answer; for a metric that is no mean of scores, the record that it is made from."""
        text = results[0] if isinstance(results[0], str) else results[0][0]
        record = self.task.record(text, json.loads(doc["row"]))
        plain = _scores_of(record)
        return {name: plain[name] if name in self._means else record for name in self._metrics}

    def summary(self, records: Iterable[Row], metric: str) -> float:
        """A metric over all records; NaN where these have none, such as accuracy on rows of a kind that isn't there."""
        return self.task.summarize(records).get(metric, math.nan)

    def pictures(self, doc: Row) -> list[Image.Image]:
        """The pictures of a row, in RGB."""
        if not doc.get("image"):
            return []
        with Image.open(self.folder / doc["image"]) as picture:
            return [picture.convert("RGB")]

    @cached_property
    def _metrics(self) -> dict[str, bool]:
        return json.loads((self.folder / "metrics.json").read_text())

    @cached_property
    def _means(self) -> set[str]:
        return {name for name, is_mean in self._metrics.items() if is_mean}


def export_task(task: Task, config: RunConfig, split: str, harness: Harness, folder: Path) -> int:
    """Write a task's split for a harness into a new folder, all at once; how many rows it has.

    Raises:
        ConfigError: the folder exists, or pictures for lm-eval, which has none.
        UserError: rows that can't be read.
    """
    if folder.exists():
        raise ConfigError(f"{folder} exists; name a new folder")
    rows = task.rows(split)
    if harness == "lm-eval" and "image" in rows.column_names:
        raise ConfigError(f"task={config.task.name} has pictures, which lm-eval's text models don't see; to=lmms-eval")
    if others := [name for name in image_columns(rows) if name != "image"]:
        raise ConfigError(
            f"task={config.task.name}: columns of several pictures ({', '.join(others)}) can't be exported"
        )
    with replacing(folder) as partial:
        partial.mkdir(parents=True)
        with (partial / "rows.jsonl").open("w") as lines:
            for number, row in enumerate(rows):
                lines.write(json.dumps(_document(task, row, number, partial), ensure_ascii=False) + "\n")
        metrics = metrics_of(task, undecoded(rows))
        (partial / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        (partial / "config.yaml").write_text(yaml.safe_dump(config.to_dict(), sort_keys=False))
        (partial / "scorer.py").write_text(_scorer(config.task.name, task.protocol, metrics))
        name = f"ntil_{config.task.name}"
        (partial / f"{name}.yaml").write_text(
            _description(name, task, harness, metrics, folder.resolve() / "rows.jsonl")
        )
    return len(rows)


def _document(task: Task, row: Row, number: int, folder: Path) -> Row:
    picture = task.picture(row)
    name = None
    if picture is not None:
        name = f"pictures/{number:06d}.png"
        (folder / "pictures").mkdir(exist_ok=True)
        picture.save(folder / name)
    # As one text, since readers of JSON lines guess types, and would take some answers for dates.
    truth = json.dumps({k: v for k, v in row.items() if k != "image"}, ensure_ascii=False)
    return {"id": str(row["id"]), "prompt": task.prompt(row), "answer": task.answer(row), "image": name, "row": truth}


def _scores_of(record: Row) -> dict[str, float]:
    return {**record["scores"], "parse_failure_rate": float(record["failure"] is not None)}


def metrics_of(task: Task, rows: Iterable[Row]) -> dict[str, bool]:
    """Names of a task's metrics, the headline first -> whether each is the plain mean of the scores of that name.

    Args:
        rows: all of them, since some metrics are of rows of some kind.
    """
    records = []
    for number, row in enumerate(rows):
        records.append(task.record("", row))
        if number < TAUGHT:
            records.append(task.record(task.answer(row), row))
    names = [n for n in task.summarize(records) if "/" not in n and not is_lenient(n) and n != "examples"]
    means = _means(task, records)
    return {name: name in means for name in sorted(names, key=lambda name: name != task.metric)}


def _means(task: Task, records: Sequence[Row]) -> set[str]:
    """Metrics that are the sum of the scores of that name by the count of examples, and of no other sum."""
    rates = [_scores_of(record) for record in records]
    sums = task.sum_scores(records)
    means = {name: math.fsum(one[name] for one in rates) / len(rates) for name in rates[0]}
    for name in list(means):
        others = {key: 1.7 * value + 0.3 for key, value in sums.items() if key not in (name, "examples")}
        try:
            metric = task.metrics_from_sums({**sums, **others}).get(name)
        except (ValueError, ArithmeticError):  # not of such sums
            metric = None
        if metric is None or abs(metric - means[name]) > 1e-9 * max(1.0, abs(means[name])):
            del means[name]
    return set(means)


def _scorer(name: str, protocol: int, metrics: dict[str, bool]) -> str:
    others = [AGGREGATION.format(function=_function(m), metric=m) for m, mean in metrics.items() if not mean]
    return SCORER.format(task=name, protocol=protocol) + "".join(others)


def _function(metric: str) -> str:
    return "of_all_" + re.sub(r"\W", "_", metric)


def _description(name: str, task: Task, harness: Harness, metrics: dict[str, bool], rows: Path) -> str:
    listed = [
        {
            "metric": metric,
            "aggregation": "mean" if mean else f"{TAG}scorer.{_function(metric)}",
            "higher_is_better": greater_is_better(task, metric),
        }
        for metric, mean in metrics.items()
    ]
    described: dict[str, Any] = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": f"{TAG}scorer.doc_to_text",
        "doc_to_target": "answer",
        "process_results": f"{TAG}scorer.process_results",
        "generation_kwargs": {"until": [], "max_gen_toks": task.max_new_tokens, "do_sample": False},
        "metric_list": listed,
        "metadata": {"version": task.protocol},
    }
    if harness == "lmms-eval":
        described["doc_to_visual"] = f"{TAG}scorer.doc_to_visual"
        described["generation_kwargs"] = {"max_new_tokens": task.max_new_tokens, "do_sample": False}
    # `!function scorer.name` is a tag of the harnesses' own YAML.
    text = re.sub(rf"'{TAG}(scorer\.\w+)'", rf"{TAG}\1", yaml.safe_dump(described, sort_keys=False))
    return (
        f"# Written by `ntil data export`: {name} as ntil asks, reads and scores it.\n"
        f"# A harness reads the rows by their whole path: where the folder is moved, correct data_files.\n{text}"
    )
