"""One step is one step, however its rows are cut into micro-batches."""

import pytest
import torch

from ntil.components import Components
from ntil.config.compose import compose
from ntil.train.trainer import build_trainer
from tests.support.chosen import slow_but
from tests.support.runs import TINY_RUN

LOSSES = ["ce", "emd", "ntil", "ntil_paper", "ntl_was", "soft_label", "emo", "value_emd"]
QUICK = ("ce", "ntil", "emo")  # without terms, rescaled, with embeddings


def train(place, loss, batch, accumulation, *more):
    words = [
        *TINY_RUN,
        f"loss={loss}",
        "engine=local",
        "task.source.rows={train:64}",
        *more,
        f"optim.batch_size={batch * accumulation}",
        f"engine.accumulation={accumulation}",
        "optim.steps=5",
    ]
    config = compose([*words, *(["loss.noise=0"] if loss.startswith("ntil") else [])])
    components = Components.build(config)
    torch.manual_seed(0)
    rows = components.task.rows("train")
    trainer = build_trainer(
        config, components, components.family.load(), rows, place / f"{loss}-{batch}x{accumulation}"
    )
    trainer.train()
    assert trainer.model is not None
    return trainer.model.state_dict(), trainer.state.log_history


@pytest.mark.parametrize("loss", slow_but(QUICK, LOSSES))
def test_accumulation_changes_nothing(tmp_path, monkeypatch, loss):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    whole, logged = train(tmp_path, loss, 8, 1)
    parts, logged_in_parts = train(tmp_path, loss, 2, 4)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-5, rtol=1e-4, msg=name)
    assert "loss/ce" in logged[0]
    for key in ("loss/ce", "loss/aux", "loss/digit"):
        assert (key in logged_in_parts[0]) == (key in logged[0])
        if key in logged[0]:
            assert logged_in_parts[0][key] == pytest.approx(logged[0][key], rel=1e-4)


def test_factors_of_a_balanced_sum_are_those_of_the_step(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    balanced = ["loss.parts=[emd,value_emd]", "loss.balance=grad_norm", "log_every=1"]
    whole, logged = train(tmp_path, "sum", 8, 1, *balanced)
    parts, logged_in_parts = train(tmp_path, "sum", 2, 4, *balanced)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-5, rtol=1e-4, msg=name)
    for key in ("loss/emd/factor", "loss/value_emd/factor", "loss/value_emd/value"):
        assert logged_in_parts[0][key] == pytest.approx(logged[0][key], rel=1e-4)
    assert logged[0]["gradient_share/emd/digit"] == pytest.approx(0.3 / 1.6, rel=1e-4)
    assert logged[0]["loss/emd/factor"] != logged[1]["loss/emd/factor"]


def test_boxes_are_counted_over_the_step(tmp_path, monkeypatch):
    """A picture has one box or several, so micro-batches have more and fewer."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    boxes = ["model=paligemma_nano", "task=detection_nano"]
    whole, logged = train(tmp_path, "box_iou", 8, 1, *boxes)
    parts, logged_in_parts = train(tmp_path, "box_iou", 2, 4, *boxes)
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-5, rtol=1e-4, msg=name)
    assert 0 < logged[0]["loss/iou"] <= 1
    for key in ("loss/ce", "loss/aux", "loss/iou"):
        assert logged_in_parts[0][key] == pytest.approx(logged[0][key], rel=1e-4)


def test_a_data_worker_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    without, logged = train(tmp_path, "ntil", 8, 2, "engine.workers=0")
    beside, logged_beside = train(tmp_path, "ntil", 8, 2, "engine.workers=1")
    assert all(torch.equal(beside[name], without[name]) for name in without)
    assert logged_beside[0]["loss/aux"] == logged[0]["loss/aux"]
