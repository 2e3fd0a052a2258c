"""On a GPU a loss is checked one micro-batch late: weights that it spoilt are neither kept nor handed on."""

from types import SimpleNamespace

import pytest
import torch
from transformers import PrinterCallback

from ntil.compose import compose
from ntil.config import CurriculumConfig, typed
from ntil.session import Session
from ntil.train.engine import training_arguments
from ntil.train.guards import FiniteCheck
from ntil.train.sampler import CurriculumSampler
from ntil.train.trainer import NumberTrainer

STEPS = 4


class Late(FiniteCheck):
    """Waits for the next micro-batch as on a GPU, where there is none; the losses of step `bad` are no numbers."""

    def __init__(self, folder, bad):
        super().__init__(folder)
        self.bad = bad

    def __call__(self, model, total, components, step, ids):
        self.flush()
        seen = total.detach() * (float("nan") if step == self.bad else 1.0)
        self._pending = seen, SimpleNamespace(synchronize=lambda: None), step, ids, components


@pytest.mark.parametrize(("bad", "kept"), [(2, []), (3, ["checkpoint-2"]), (4, ["checkpoint-2"])])
def test_no_checkpoint_holds_weights_of_a_loss_that_is_not_finite(tmp_path, monkeypatch, bad, kept):
    with pytest.raises(FloatingPointError, match=f"not finite at step {bad} "):
        trainer(tmp_path, monkeypatch, bad, save_every=2).train()
    assert [p.name for p in (tmp_path / "checkpoints").glob("checkpoint-*")] == kept


def test_the_last_loss_is_checked_without_a_checkpoint_to_write(tmp_path, monkeypatch):
    with pytest.raises(FloatingPointError, match=f"not finite at step {STEPS} "):
        trainer(tmp_path, monkeypatch, STEPS, save_every=0).train()
    trainer(tmp_path, monkeypatch, None, save_every=0).train()


def trainer(place, monkeypatch, bad, save_every):
    monkeypatch.setenv("NTIL_CACHE", str(place / "cache"))
    words = ["engine=local", "engine.device=cpu", "engine.workers=0", "tracker=none", "task.rows={train:8}"]
    words += ["evaluation.every=0", f"save_every={save_every}", f"optim.steps={STEPS}", "optim.batch_size=2"]
    config = compose([*words, "optim.warmup=0"])
    session, settings = Session.build(config), typed(config)
    torch.manual_seed(0)
    rows = session.task.rows("train")
    made = NumberTrainer(
        model=session.family.load(),
        args=training_arguments(settings, place / "checkpoints"),
        train_dataset=rows,
        data_collator=session.collator,
        number_loss=session.loss,
        sampler=CurriculumSampler(len(rows), STEPS, 2, 0, CurriculumConfig()),
        validate=dict,
        finite=Late(place / "replay", bad),
    )
    made.remove_callback(PrinterCallback)
    return made
