"""Run folders as a sweep leaves them, written without training: 2 losses x 3 seeds of clocks."""

import json

import numpy as np
import pytest

from ntil.components import build_task
from ntil.config.compose import compose
from ntil.config.identity import run_path
from ntil.runs.folder import RunFolder


def _write_run(place, loss, seed, right, words=(), examples=80):
    """A finished run whose answers are right at a rate of `right`."""
    words = [f"loss={loss}", f"seed={seed}", f"runs={place}", "name=clock", "engine=local", "tracker=none", *words]
    config = compose([*words, f"task.source.rows={{train:8,validation:4,test:{examples}}}"])
    run = RunFolder(run_path(config))
    run.freeze(config)
    task = build_task(config)
    rng = np.random.default_rng([seed, len(loss)])
    records = []
    for row in task.rows("test"):
        text = task.answer(row) if rng.random() < right else "07:31" if rng.random() < 0.8 else "no idea"
        records.append(task.record(text, row))
    run.predictions.write_text("".join(json.dumps(r) + "\n" for r in records))
    history = [{"step": s, "loss/ce": 2 / s, "eval_ce": 2 / s, "eval_exact": right} for s in (1, 2, 3)]
    run.history.write_text("".join(json.dumps(r) + "\n" for r in history))
    run.write_metrics(task.summarize(records), task.protocol)
    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(place / "cache"))
    for seed in range(3):
        _write_run(place, "ce", seed, 0.2)
        _write_run(place, "ntil", seed, 0.9)
    yield place / "clock"
    patch.undo()


@pytest.fixture(scope="session")
def write_run(runs):
    """Writes one more such run: write_run(place, loss, seed, rate of right answers, words=[...])."""
    return _write_run
