"""`ntil eval` computes where the run's configuration says."""

import pytest
import torch

from ntil.config.compose import compose
from ntil.distributed.ranks import Ranks
from ntil.runs.folder import RunFolder
from ntil.train.evaluation import _device


@pytest.mark.parametrize(("device", "expected"), [("cpu", "cpu"), ("auto", "cuda")])
def test_a_run_that_asked_for_the_cpu_is_evaluated_on_it(tmp_path, monkeypatch, device, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config = compose(["engine=local", f"engine.device={device}"])
    assert _device(config, RunFolder(tmp_path), Ranks()).type == expected
