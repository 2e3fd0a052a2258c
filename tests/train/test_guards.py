"""Losses that are not finite stop a run and leave what a replay needs; spikes are reported."""

import json

import pytest
import torch
from transformers import TrainerControl, TrainerState

from ntil.train.guards import FiniteCheck, LossSpikes


def test_a_finite_loss_passes_and_leaves_nothing(tmp_path):
    check = FiniteCheck(tmp_path / "replay")
    check(torch.nn.Linear(1, 1), torch.tensor(1.0), {"ce": torch.tensor(1.0)}, 3, ["a"])
    assert not (tmp_path / "replay").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_batch_and_the_weights_are_kept(tmp_path, value):
    check = FiniteCheck(tmp_path / "replay", lambda model, folder: torch.save(model.state_dict(), folder))
    model = torch.nn.Linear(2, 2)
    with pytest.raises(FloatingPointError, match=r"step 7 \(ce 1, digit (nan|inf)\).*2 rows with `ntil replay run="):
        check(model, torch.tensor(value), {"ce": torch.tensor(1.0), "digit": torch.tensor(value)}, 7, ["a", "b"])
    saved = json.loads((tmp_path / "replay" / "batch.json").read_text())
    assert saved["ids"] == ["a", "b"]
    assert saved["step"] == 7
    assert saved["weights"] == "model"
    torch.testing.assert_close(torch.load(tmp_path / "replay" / "model", weights_only=True), model.state_dict())


def test_spikes_are_far_above_the_recent_losses(capsys):
    spikes, state, control = LossSpikes(), TrainerState(is_world_process_zero=True, global_step=5), TrainerControl()
    falling = [2.0, 1.6, 1.3, 1.1, 1.0, 0.95, 0.9, 0.92]
    for loss in falling:
        logs = {"loss": loss}
        spikes.on_log(None, state, control, logs)
        assert "spike" not in logs
    logs = {"loss": 5.0}
    spikes.on_log(None, state, control, logs)
    assert logs["spike"] == pytest.approx(5.0 / 1.05, rel=0.02)
    assert "step 5: the loss 5 is" in capsys.readouterr().out
    spikes.on_log(None, state, control, {"eval_ce": 1.0})
