"""The numeric tasks from the command line: a rendered figure to a vision model, a problem to a text model."""

import json

import pytest

from tests.support.command_line import ntil
from tests.support.runs import TINY_RUN

WORDS = [*TINY_RUN, "loss=ntil", "engine=local", "optim.steps=4"]
WORDS += ["evaluation.every_steps=2", "evaluation.validation_rows=8"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "model", "metrics"),
    [
        (
            "mathvista_nano",
            "llava_nano",
            ("official_accuracy", "relative_error", "task/figure question answering/accuracy"),
        ),
        ("arithmetic", "qwen25_nano", ("exact", "pearson", "spearman", "extrapolation/mae", "interpolation/log_error")),
    ],
)
def test_train_and_score(tmp_path, task, model, metrics):
    words = ["train", f"task={task}", f"model={model}", "task.source.rows={train:64,validation:12,test:60}", *WORDS]
    done = ntil(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(next(tmp_path.glob("runs/**/metrics.json")).read_text())
    assert found["examples"] == 60
    assert set(metrics) <= set(found)
    lines = next(tmp_path.glob("runs/**/predictions.jsonl")).read_text().splitlines()
    assert len(lines) == 60
    assert all(json.loads(line)["groups"] for line in lines)
