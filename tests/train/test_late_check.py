"""On a GPU a loss is checked one micro-batch late: weights that it spoilt are neither kept nor handed on."""

from types import SimpleNamespace

import pytest
import torch

from ntil.components import Components
from ntil.preflight import compose_checked
from ntil.train.guards import FiniteCheck
from ntil.train.trainer import build_trainer
from tests.support.runs import TINY_RUN

STEPS = 4


class Late(FiniteCheck):
    """Waits for the next micro-batch as on a GPU, where there is none; the losses of step `bad` are no numbers."""

    def __init__(self, folder, bad):
        super().__init__(folder)
        self.bad = bad

    def __call__(self, model, total, components, step, ids):
        self.flush()
        copied = total.detach() * (float("nan") if step == self.bad else 1.0)
        event = SimpleNamespace(synchronize=lambda: None)
        self._pending = copied, event, step, ids, components  # type: ignore[assignment]  # no CUDA event without a GPU


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
    words = [*TINY_RUN, "engine=local", "engine.device=cpu", "engine.workers=0", "task.source.rows={train:8,test:2}"]
    words += [f"save_every={save_every}", f"optim.steps={STEPS}", "optim.batch_size=2", "optim.warmup=0"]
    config = compose_checked(words)
    components = Components.build(config)
    torch.manual_seed(0)
    model, rows = components.family.load(), components.task.rows("train")
    return build_trainer(config, components, model, rows, place / "checkpoints", finite=Late(place / "replay", bad))
