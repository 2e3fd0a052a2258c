"""What a report says of how its runs ended and which of their weights were tested."""

import json

from experiments.provenance import describe_runs
from ntil.config.compose import compose
from ntil.runs.folder import RunFolder
from ntil.runs.run import Run


def described(tmp_path, record, *words):
    config = compose(["task=arithmetic", "model=qwen25_nano", "optim.steps=800", *words])
    folder = RunFolder(tmp_path / str(len(list(tmp_path.iterdir()))))
    folder.freeze(config)
    folder.trained.write_text(json.dumps({"step": 800, "seconds": 1.0, **record}))
    folder.write_metrics({"examples": 8.0, "exact": 0.5, "train_seconds": 1.0}, 1)
    return " ".join(describe_runs([Run(folder, config)]))


def test_a_report_says_which_weights_were_tested(tmp_path):
    best = {"metric": "exact", "best": {"step": 600, "value": 0.4375, "waited": 2}, "stopped_early": False}
    plain = described(tmp_path, {})
    assert "tested" not in plain
    assert "early" not in plain
    assert "tested: the best weights by validation, of step 600 (exact 0.4375)" in described(
        tmp_path, {**best, "tested": "best"}, "evaluation.test=best"
    )
    early = described(tmp_path, {**best, "tested": "last", "stopped_early": True, "step": 640}, "optim.patience=2")
    assert "1 ended early, at step 640" in early
    assert "the best weights" not in early
    assert "weights averaged with decay 0.999" in described(tmp_path, {}, "optim.ema=0.999")
