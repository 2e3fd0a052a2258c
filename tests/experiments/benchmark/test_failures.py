"""Trials and seeds that failed: one that diverged says something of its loss, one on a full disk doesn't."""

import json
import math

import pytest
import yaml

from experiments.benchmark.protocol import read
from experiments.benchmark.report import results
from experiments.benchmark.stages import Job, Stages
from ntil.components import build_task
from ntil.config.errors import ConfigError
from ntil.runs.folder import folder_of
from tests.experiments.benchmark.test_command import PROTOCOL

DIVERGED = "Traceback\nFloatingPointError: the loss is not finite at step 2 (ce nan)\n"
FULL = "Traceback\nOSError: [Errno 28] No space left on device\n"


@pytest.fixture
def stages(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "small.yaml"
    file.write_text(PROTOCOL)
    return Stages(read(file), tmp_path / "runs")


def finish(job: Job, exact: float) -> None:
    folder = folder_of(job.config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.write_metrics({"exact": exact}, 1)


def fail(job: Job, error: str) -> None:
    folder = folder_of(job.config)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.error.write_text(error)


def test_a_trial_that_diverged_is_the_worst_and_one_that_failed_otherwise_is_run_again(stages):
    first, second = stages.search("sums", "emd")
    finish(second, 0.25)
    fail(first, DIVERGED)
    best = stages.best("sums", "emd")
    assert (best.score, best.settings) == (0.25, second.settings)
    assert math.isnan(best.scores[0])
    fail(first, FULL)
    with pytest.raises(
        ConfigError, match=r"1 trials .*; 1 failed \(OSError: .*No space left.*retry=true runs them again"
    ):
        stages.best("sums", "emd")
    assert not first.config.retry
    assert Stages(stages.protocol, stages.folder, retry=True).search("sums", "emd")[0].config.retry


@pytest.mark.slow
def test_a_claim_on_a_loss_that_failed_in_a_seed_is_undecided(stages):
    for loss in stages.protocol.losses:
        for number, job in enumerate(stages.search("sums", loss)):
            finish(job, 0.5 - 0.1 * number)  # the defaults are the best
    for job in [*stages.seeds(True), *stages.seeds(False)]:
        folder, task = folder_of(job.config), build_task(job.config)
        finish(job, 0.5)
        folder.config_file.write_text(yaml.safe_dump(job.config.to_dict()))
        records = [task.record(task.answer(row), row) for row in task.rows("test")]
        folder.predictions.write_text("".join(json.dumps(record) + "\n" for record in records))
    diverged = next(job for job in stages.seeds(True) if job.loss == "emd" and job.config.seed == 1)
    folder_of(diverged.config).metrics.unlink()
    fail(diverged, DIVERGED)
    (judgement,) = results(stages).judgements
    assert judgement.holds is None
    assert judgement.undecided == ["sums: emd against ce"]
