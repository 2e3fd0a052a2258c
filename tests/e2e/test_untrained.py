"""The model as it is loaded is a run of its own, and the first row of a report, whatever its training keys are."""

import pytest

from experiments.analysis import analyse
from ntil.commands import evaluate
from ntil.config.errors import ConfigError
from ntil.runs.run import read_runs
from tests.support.command_line import ntil

ROWS = "task.source.rows={train:8,validation:2,test:4}"
COMMON = ["model=qwen2_vl_nano", "task=grounding_nano", ROWS, "runs=runs", "name=t", "evaluation.every_steps=0"]
TRAIN = ["loss=ce", "optim.steps=1", "optim.warmup=0", "optim.batch_size=4", "engine=local"]


@pytest.mark.slow
def test_the_untrained_row_comes_before_cross_entropy_and_is_compared_with_it(tmp_path):
    assert ntil(tmp_path, "eval", *COMMON).returncode == 0
    for seed in (0, 1):
        assert ntil(tmp_path, "train", *COMMON, *TRAIN, f"seed={seed}").returncode == 0
    runs = read_runs(str(tmp_path / "runs"))
    (untrained,) = [run for run in runs if run.loss == "untrained"]
    assert not untrained.folder.model.exists()
    assert untrained.config.task.options["question_style"] == "family"
    assert untrained.config.task.options["max_new_tokens"] == 128
    assert untrained.metrics["train_seconds"] == 0
    assert {"acc_0.5", "lenient_acc_0.5", "parse_failure_rate"} <= untrained.metrics.keys()
    (report,) = analyse(runs, {}, draws=20)
    assert report.refused is None
    assert report.missing == ()
    assert report.base == "ce"
    assert [line.loss for line in report.lines] == ["untrained", "ce"]
    assert report.lines[0].seeds == (0,)
    assert report.lines[0].against
    # And a finished one is evaluated again without weights of its own.
    again = ntil(tmp_path, "eval", f"run={untrained.folder.path}", "evaluation.split=validation")
    assert again.returncode == 0, again.stderr


def test_without_a_run_and_a_model_the_command_says_what_it_needs():
    with pytest.raises(ConfigError, match="needs run=<folder>, or model=<name> and task=<name>"):
        evaluate.main(["task=clock"])
