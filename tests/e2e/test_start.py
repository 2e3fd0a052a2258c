"""A table from weights that plain cross-entropy has made: make them, export them, start every loss from them."""

from dataclasses import replace

import pytest
import torch

from ntil.components import Components
from ntil.runs.folder import find_runs
from tests.support.command_line import ntil
from tests.support.runs import TINY_RUN

pytestmark = pytest.mark.slow
WORDS = [*TINY_RUN, "task.source.rows={train:64,validation:8,test:12}", "optim.steps=4", "engine=local"]


# Under ZeRO, whose weights are pieces of one tensor; Yi-VL writes the release's own layout.
def test_every_loss_starts_from_the_same_weights(tmp_path):
    small = ["train", "-m", "experiment=clock", *WORDS, "engine.zero_stage=2", "model=llava_nano,yi_vl_nano"]
    made = ntil(tmp_path, *small, "init=make", "loss=ce", "seed=1000")
    assert made.returncode == 0, made.stderr
    exported = ntil(tmp_path, "export", "run=runs/starts", "to=starts/{task}/{model}")
    assert exported.returncode == 0, exported.stderr
    tuned = ntil(tmp_path, *small, "init=ce", "loss=ce,ntil", "seed=0", "optim.lr=1e-12")
    assert tuned.returncode == 0, tuned.stderr
    runs = find_runs(tmp_path / "runs/from_ce/clock")
    assert len(runs) == 4
    for run in runs:
        config = run.config()
        from_scratch = replace(config.model, options={**config.model.options, "checkpoint": None})
        family = Components.build(replace(config, model=from_scratch)).family
        start = family.load(tmp_path / config.model.options["checkpoint"]).state_dict()
        for name, value in family.load(run.model).state_dict().items():
            torch.testing.assert_close(value, start[name], atol=1e-9, rtol=0)


def test_a_start_that_was_not_made_is_said(tmp_path):
    done = ntil(tmp_path, "train", "experiment=clock", *WORDS, "model=llava_nano", "init=ce", "loss=ce", "seed=0")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "model.checkpoint=starts/clock/llava_nano: no such folder" in done.stderr
    assert not list(tmp_path.glob("runs/**/config.yaml"))
