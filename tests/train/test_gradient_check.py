"""A gradient that is not finite under a finite loss, and weights that are not, replace no good checkpoint."""

import json
from typing import Any

import pytest
import torch

from ntil.commands import replay
from ntil.config.errors import ConfigError
from ntil.losses import CE
from ntil.train.guards import SKIPPED_LIMIT, FiniteCheck
from ntil.train.trainer import NumberTrainer
from tests.support.chosen import slow_but
from tests.support.in_process import frozen, perform

WORDS = ["loss=ce", "optim.steps=4", "optim.warmup=0", "save_every=1", "evaluation.every_steps=0", "keep_checkpoints=1"]


@pytest.fixture
def spoil(monkeypatch):
    """`spoil(step)`: the loss of the step is finite and its gradient is not, as where a backward overflows."""

    def spoil(step):
        plain = CE.parts

        def parts(self, logits, targets, spans, info, *rest):
            made = plain(self, logits, targets, spans, info, *rest)
            zero = logits.sum() * 0
            return made._replace(ce=made.ce + (zero * zero).sqrt()) if info.draw == step - 1 else made

        monkeypatch.setattr(CE, "parts", parts)

    return spoil


def checkpoints(run):
    return [p.name for p in run.checkpoints.glob("checkpoint-*")]


@pytest.mark.parametrize("words", slow_but([[]], [[], ["engine.accumulation=2"], ["optim.max_grad_norm=0"]]))
def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_good_checkpoint(tmp_path, spoil, words, capsys):
    run = frozen(tmp_path, *WORDS, *words)
    spoil(3)
    with pytest.raises(FloatingPointError, match=r"the gradient is not finite at step 3 \(norm nan\)"):
        perform(run)
    assert checkpoints(run) == ["checkpoint-2"]
    assert not run.trained.exists()
    batch = json.loads((run.replay / "batch.json").read_text())
    assert (batch["step"], batch["weights"]) == (3, "model")
    assert len(set(batch["ids"])) == run.config().optim.batch_size  # of all micro-batches
    assert replay.main([f"run={run.path}"]) == 0
    assert "gradient nan" in capsys.readouterr().out


def test_the_last_step_saves_no_model_either(tmp_path, spoil):
    run = frozen(tmp_path, *WORDS, "save_every=0")
    spoil(4)
    with pytest.raises(FloatingPointError, match="the gradient is not finite at step 4"):
        perform(run)
    assert not run.trained.exists()
    assert not run.model.exists()


def test_a_step_that_the_scaler_of_float16_skips_is_none_of_it(tmp_path):
    """What the trainer asks of the check under float16: no stop at once, since such a step changes no weight."""
    trainer: Any = object.__new__(NumberTrainer)
    trainer._finite = FiniteCheck(tmp_path / "replay")
    trainer.inner_model = torch.nn.Linear(1, 1)
    trainer.state = type("State", (), {"global_step": 0})()
    for fp16 in (True, False):
        trainer.args = type("Arguments", (), {"fp16": fp16})()
        trainer.accelerator = type("Accelerator", (), {"distributed_type": None})()
        if fp16:
            assert trainer._get_grad_norm(None, grad_norm=float("inf")) == float("inf")
        else:
            with pytest.raises(FloatingPointError, match="the gradient is not finite at step 1"):
                trainer._get_grad_norm(None, grad_norm=float("inf"))


def test_a_gradient_of_float16_that_no_scale_makes_finite_stops_the_run(tmp_path):
    check, model = FiniteCheck(tmp_path / "replay"), torch.nn.Linear(1, 1)
    for step, norm in enumerate([*[float("inf")] * (SKIPPED_LIMIT - 1), 1.0, *[float("nan")] * (SKIPPED_LIMIT - 1)], 1):
        check(model, torch.tensor(0.5), {"ce": torch.tensor(0.5)}, step, [f"row-{step}"])
        check.scaled_gradient(model, norm, step)
    assert not check.folder.exists()
    last = 2 * SKIPPED_LIMIT
    check(model, torch.tensor(0.5), {"ce": torch.tensor(0.5)}, last, ["the-last"])
    with pytest.raises(FloatingPointError, match=rf"the gradient is not finite at step {last}"):
        check.scaled_gradient(model, torch.tensor(float("nan")), last)
    assert json.loads((check.folder / "batch.json").read_text())["ids"] == ["the-last"]


@pytest.mark.parametrize(("save_every", "kept"), [(1, ["checkpoint-2"]), (0, [])])
def test_weights_that_an_optimizer_spoils_are_not_saved(tmp_path, monkeypatch, save_every, kept):
    run = frozen(tmp_path, *WORDS, f"save_every={save_every}", "optim.steps=3")
    plain = FiniteCheck.gradient

    def spoil(self, model, norm, step):
        plain(self, model, norm, step)
        if step == 3:  # the step that follows makes these of the weights
            for parameter in model.parameters():
                parameter.data.fill_(float("inf"))

    monkeypatch.setattr(FiniteCheck, "gradient", spoil)
    with pytest.raises(FloatingPointError, match="the trained weights are not finite after step 3"):
        perform(run)
    assert checkpoints(run) == kept
    assert not run.model.exists()


@pytest.mark.parametrize(
    "change", [{"ids": [3]}, {"ids": "row"}, {"ids": []}, {"components": ["ce"]}, {"components": {"ce": "much"}}]
)
def test_a_record_of_a_batch_that_is_none_is_one_sentence(tmp_path, change):
    """The folder may be a stranger's."""
    run = frozen(tmp_path, *WORDS)
    run.replay.mkdir(parents=True)
    batch = {"ids": ["a"], "step": 1, "rank": 0, "weights": "model", "components": {"ce": 1.0}}
    (run.replay / "batch.json").write_text(json.dumps(batch | change))
    with pytest.raises(ConfigError, match="the file is damaged"):
        replay.main([f"run={run.path}"])
