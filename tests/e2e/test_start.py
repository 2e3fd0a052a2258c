"""A table from weights that plain cross-entropy has made: make them, export them, start every loss from them."""

import pytest
import torch
from command_line import ntil
from test_survival import SMALL

from ntil.models.checkpoint import CheckpointError
from ntil.runs import find
from ntil.session import Session

pytestmark = pytest.mark.slow


# Under ZeRO, whose weights are pieces of one tensor; Yi-VL writes the release's own layout.
def test_every_loss_starts_from_the_same_weights(tmp_path):
    small = ["train", "-m", "experiment=clock", *SMALL, "engine.zero=2", "model=llava_nano,yi_vl_nano"]
    made = ntil(tmp_path, *small, "start=make", "loss=ce", "seed=1000")
    assert made.returncode == 0, made.stderr
    exported = ntil(tmp_path, "export", "run=runs/starts", "to=starts/{task}/{model}")
    assert exported.returncode == 0, exported.stderr
    tuned = ntil(tmp_path, *small, "start=ce", "loss=ce,ntil", "seed=0", "optim.lr=1e-12")
    assert tuned.returncode == 0, tuned.stderr
    runs = find(tmp_path / "runs/from_ce/clock")
    assert len(runs) == 4
    for run in runs:
        config = run.config()
        family = Session.build({**config, "model": {**config["model"], "checkpoint": None}}).family
        start = family.load(tmp_path / config["model"]["checkpoint"]).state_dict()
        for name, value in family.load(run.model).state_dict().items():
            torch.testing.assert_close(value, start[name], atol=1e-9, rtol=0)


def test_a_start_that_was_not_made_is_said(tmp_path):
    done = ntil(tmp_path, "train", "experiment=clock", *SMALL, "model=llava_nano", "start=ce", "loss=ce", "seed=0")
    assert done.returncode == 1
    assert CheckpointError.__name__ in done.stderr
    assert "starts/clock/llava_nano: no such folder" in done.stderr
