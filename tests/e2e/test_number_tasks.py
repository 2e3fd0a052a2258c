"""The numeric tasks from the command line: a rendered figure to a vision model, a problem to a text model."""

import json

import pytest
from command_line import ntil

SMALL = ["optim.steps=4", "optim.batch_size=8", "optim.warmup=1", "evaluation.every=2", "evaluation.validation_rows=8"]
WORDS = [*SMALL, "loss=ntil", "engine=local", "engine.threads=1", "tracker=none", "curriculum=none", "runs=runs"]


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
    words = ["train", f"task={task}", f"model={model}", "task.rows={train:64,validation:12,test:60}", *WORDS]
    done = ntil(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(next(tmp_path.glob("runs/**/metrics.json")).read_text())
    assert found["examples"] == 60 and set(metrics) <= set(found)
    lines = next(tmp_path.glob("runs/**/predictions.jsonl")).read_text().splitlines()
    assert len(lines) == 60 and all(json.loads(line)["groups"] for line in lines)
