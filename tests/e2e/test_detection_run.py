"""Text detection from the command line: data looked at and checked, a short run, its scores."""

import json

import pytest

from tests.support.command_line import ntil
from tests.support.runs import TINY_RUN

ROWS = "task.source.rows={train:64,validation:8,test:12}"


@pytest.mark.slow
def test_a_run_writes_counts_per_example_and_micro_averages(tmp_path):
    words = [ROWS, "task.source.difficulty=rich", "task.shape=polygon", "task.max_new_tokens=600"]
    checked = ntil(tmp_path, "data", "check", "task=text_detection_nano", *words)
    assert checked.returncode == 0, checked.stderr
    assert "12 rows, 0 skipped, 0 problems" in checked.stdout
    train = [*TINY_RUN, "optim.steps=6", "evaluation.every_steps=3", "engine=local", "loss=ntil", "model=llava_nano"]
    done = ntil(tmp_path, "train", "task=text_detection_nano", *words, *train)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("runs/**/metrics.json")
    metrics = json.loads(file.read_text())
    records = [json.loads(line) for line in (file.parent / "predictions.jsonl").read_text().splitlines()]
    assert metrics["examples"] == len(records) == 12
    assert metrics["true"] == sum(r["scores"]["sum_true"] for r in records) > 10
    assert metrics["found"] == sum(r["scores"]["sum_found"] for r in records)
    assert metrics["parse_failure_rate"] == sum(r["failure"] is not None for r in records) / 12
    assert 0 <= metrics["acc_0.5"] <= metrics["hmean"] <= 1


@pytest.mark.slow
def test_every_release_says_what_it_lacks(tmp_path):
    for name in ("icdar2013", "icdar2015", "totaltext", "ctw1500"):
        checked = ntil(tmp_path, "data", "show", f"task={name}", "split=test")
        assert checked.returncode == 2
        assert f"datasets/{name}" in checked.stderr
        assert "there is no such file" in checked.stderr
        assert "task.source.truth." in checked.stderr
