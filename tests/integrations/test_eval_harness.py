"""`ntil data export`: a task in lm-evaluation-harness and lmms-eval scores as ours does."""

import importlib.util
import json
import math
import re
import sys
from typing import Any

import pytest
import yaml

from data.common.errors import UserError
from ntil.commands.data import main
from ntil.components import build_task
from ntil.config.compose import compose
from ntil.runs.metric_names import is_lenient
from tasks.drawing import picture_of

ROWS = "task.source.rows={train:8,validation:4,test:6}"


class Loader(yaml.SafeLoader):
    """Reads `!function scorer.name` as the harnesses do."""


def read(folder, name):
    specification: Any = importlib.util.spec_from_file_location("scorer", folder / "scorer.py")
    scorer = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(scorer)
    Loader.add_constructor("!function", lambda _, node: getattr(scorer, node.value.removeprefix("scorer.")))
    described = yaml.load((folder / f"ntil_{name}.yaml").read_text(), Loader)
    return described, [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def aggregated(described, documents, texts):
    """What a harness makes of the answers."""
    results = [described["process_results"](doc, [text]) for doc, text in zip(documents, texts, strict=True)]
    metrics = {}
    for listed in described["metric_list"]:
        values = [result[listed["metric"]] for result in results]
        aggregate = listed["aggregation"]
        metrics[listed["metric"]] = sum(values) / len(values) if aggregate == "mean" else aggregate(values)
    return metrics


@pytest.mark.parametrize(
    ("harness", "name"),
    [
        ("lm-eval", "arithmetic"),
        ("lmms-eval", "grounding_nano"),
        ("lmms-eval", "detection_nano"),
        ("lmms-eval", "text_detection_nano"),
        ("lmms-eval", "grec_nano"),
        ("lmms-eval", "mathvista_nano"),
    ],
)
def test_metrics_are_ours(tmp_path, monkeypatch, harness, name, capsys):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "exported"
    assert main(["export", f"to={harness}", f"out={folder}", f"task={name}", ROWS]) == 0
    assert f"--tasks ntil_{name} --log_samples" in capsys.readouterr().out
    task = build_task(compose([f"task={name}", ROWS]))
    rows = list(task.rows("test"))
    described, documents = read(folder, name)
    texts = [task.answer(row) if i % 2 else "none" for i, row in enumerate(rows)]
    ours = task.summarize([task.record(text, row) for text, row in zip(texts, rows, strict=True)])
    metrics = aggregated(described, documents, texts)
    assert next(iter(metrics)) == task.metric
    assert {"parse_failure_rate", *task.secondary_metrics} <= metrics.keys()
    for metric, value in metrics.items():
        assert value == pytest.approx(ours[metric], abs=1e-9), metric
    counts = {"true", "found", "matched", "examples"}
    assert metrics.keys() >= {name for name in ours if "/" not in name and not is_lenient(name)} - counts
    assert described["metadata"] == {"version": task.protocol}
    assert [described["doc_to_text"](doc) for doc in documents] == [task.prompt(row) for row in rows]
    if harness == "lmms-eval":
        assert described["doc_to_visual"](documents[0])[0].tobytes() == picture_of(rows[0]).convert("RGB").tobytes()
    directions = {listed["metric"]: listed["higher_is_better"] for listed in described["metric_list"]}
    assert directions[task.metric] == task.greater_is_better
    assert not directions["parse_failure_rate"]


def test_refusals(tmp_path):
    cases = [
        (["to=lm-eval", "task=clock"], "clock has pictures, which lm-eval's text models don't see"),
        (["to=lm-eval2", "task=arithmetic"], "no harness of that name; did you mean 'lm-eval'?"),
        (["task=arithmetic"], "needs to=..."),
        (["to=lm-eval", "task=arithmetic", "split=tests"], "for the split 'tests'"),
        (["to=lm-eval", "task=arithmetic", f"out={tmp_path}"], "exists; name a new folder"),
    ]
    for words, message in cases:
        with pytest.raises(UserError, match=re.escape(message)):
            main(["export", f"out={tmp_path / 'new'}", ROWS, *words])
    assert not (tmp_path / "new").exists()


def test_lm_evaluation_harness_itself(tmp_path, monkeypatch):
    harness = pytest.importorskip("lm_eval.tasks", reason="lm-evaluation-harness isn't installed: pip install lm-eval")
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "exported"
    main(["export", "to=lm-eval", f"out={folder}", "task=arithmetic", ROWS])
    manager = harness.TaskManager(include_path=str(folder), include_defaults=False)
    loaded = manager.load(["ntil_arithmetic"])["tasks"]["ntil_arithmetic"]
    documents = list(loaded.test_docs())
    assert len(documents) == 6
    assert loaded.doc_to_text(documents[0]) == documents[0]["prompt"]
    assert loaded.process_results(documents[0], [documents[0]["answer"]])["exact"] == 1
    assert "lm_eval" in sys.modules


def test_rows_of_which_a_metric_says_nothing_have_none_of_it(tmp_path, monkeypatch):
    """What a harness is told to leave out may be all rows with objects."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "exported"
    words = ["task=grec_nano", "task.source.rows={train:2,validation:2,test:24}"]
    assert main(["export", "to=lmms-eval", f"out={folder}", *words]) == 0
    described, documents = read(folder, "grec_nano")
    without = [doc for doc in documents if doc["answer"] == "none"]
    assert 0 < len(without) < len(documents)
    metrics = aggregated(described, without, ["none"] * len(without))
    assert metrics["n_acc"] == 1
    assert math.isnan(metrics["precision_0.5"])
