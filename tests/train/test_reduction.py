"""One step is one step, however its rows are cut into micro-batches."""

import pytest
import torch
from transformers import PrinterCallback

from ntil.compose import compose
from ntil.config import CurriculumConfig, typed
from ntil.session import Session
from ntil.train.engine import training_arguments
from ntil.train.sampler import CurriculumSampler
from ntil.train.trainer import NumberTrainer

LOSSES = ["ce", "emd", "ntil", "ntil_paper", "ntl_was", "soft_label", "emo", "value_emd"]


def train(place, loss, batch, accumulation, *more):
    words = [
        f"loss={loss}",
        "engine=local",
        "tracker=none",
        "log_every=1",
        "task.rows={train:64}",
        "evaluation.every=0",
        *more,
        f"optim.batch_size={batch * accumulation}",
        f"engine.accumulation={accumulation}",
        "optim.steps=5",
        "optim.warmup=1",
    ]
    config = compose([*words, *(["loss.noise=0"] if loss.startswith("ntil") else [])])
    session, settings = Session.build(config), typed(config)
    torch.manual_seed(0)
    rows = session.task.rows("train")
    trainer = NumberTrainer(
        model=session.family.load(),
        args=training_arguments(settings, place / f"{loss}-{batch}x{accumulation}"),
        train_dataset=rows,
        data_collator=session.collator,
        number_loss=session.loss,
        sampler=CurriculumSampler(len(rows), 5, batch * accumulation, 0, CurriculumConfig()),
        validate=dict,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return trainer.model.state_dict(), trainer.state.log_history


@pytest.mark.parametrize("loss", LOSSES)
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


def test_a_data_worker_and_the_batch_ahead_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    without, logged = train(tmp_path, "ntil", 8, 2, "engine.workers=0")
    beside, logged_beside = train(tmp_path, "ntil", 8, 2, "engine.workers=1")
    assert all(torch.equal(beside[name], without[name]) for name in without)
    assert logged_beside[0]["loss/aux"] == logged[0]["loss/aux"]
