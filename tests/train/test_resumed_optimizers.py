"""Optimizers, schedules and losses with a factor a step go on where a run was stopped, bit for bit."""

import pytest
import torch

from ntil.commands.evaluate import overridden
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from tests.support.chosen import slow_but
from tests.support.in_process import WORDS, trainer_of


@pytest.mark.parametrize(
    "words",
    [
        ["optim.name=adafactor", "optim.schedule=wsd", "optim.decay=0.5", "optim.lr_of.language=1e-2"],
        pytest.param(
            ["optim.name=sgd", "optim.options.momentum=0.9", "optim.schedule=linear", "optim.lr=1e-2"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_resumed_training_of_one_epoch_is_the_one_without_a_stop(tmp_path, words):
    words = [*words, "optim.epochs=1", "optim.warmup=0.25", "save_every=4", "keep_checkpoints=2"]
    through = trainer_of(tmp_path, *words)
    through.train()
    assert through.state.max_steps == 8  # 64 rows, 8 a step
    resumed = trainer_of(tmp_path, *words)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    rates, again = ([r["learning_rate"] for r in t.state.log_history if "loss" in r] for t in (through, resumed))
    assert rates == again
    assert rates[:3] == pytest.approx([rates[2] * f for f in ([0.05, 0.525, 1])])  # both warm up from the least rate
    weights = through.inner_model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.inner_model.state_dict().items())


@pytest.mark.parametrize(
    "more", slow_but([["engine.accumulation=2"]], [[], ["engine.accumulation=2"]]), ids=["in one", "in micro-batches"]
)
def test_a_resumed_training_with_a_balanced_sum_is_the_one_without_a_stop(tmp_path, more):
    words = [
        "loss=sum",
        "loss.parts=[emd_mass,value_emd_mass]",
        "loss.balance=grad_norm",
        "optim.steps=6",
        "log_every=1",
    ]
    words += [*more, "save_every=3", "keep_checkpoints=2"]
    through = trainer_of(tmp_path, *words)
    through.train()
    resumed = trainer_of(tmp_path, *words)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    factors, again = (
        [[v for k, v in sorted(r.items()) if k.endswith("/factor")] for r in t.state.log_history if "loss" in r]
        for t in (through, resumed)
    )
    assert factors == again
    assert len(factors) == 6
    assert all(len(of_step) == 2 and min(of_step) > 0 for of_step in factors)
    assert len({tuple(of_step) for of_step in factors}) == 6
    weights = through.inner_model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.inner_model.state_dict().items())


def test_a_resumed_training_with_dropout_and_micro_batches_is_the_one_without_a_stop(tmp_path):
    """The factor of a rescaled loss comes from a forward of its own, whose dropout must be that of the step too."""
    words = ["loss=ntil", "engine.accumulation=2", "tuning=lora", "tuning.dropout=0.1", "optim.steps=4", "save_every=2"]
    through = trainer_of(tmp_path, *words, "keep_checkpoints=2")
    through.train()
    resumed = trainer_of(tmp_path, *words, "keep_checkpoints=2")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    weights = through.inner_model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.inner_model.state_dict().items())


def test_an_evaluation_cannot_choose_which_weights_were_saved():
    with pytest.raises(ConfigError, match=r"evaluation\.test says which weights a training saves"):
        overridden(compose([*WORDS, "evaluation.every_steps=5"]), ["evaluation.test=best"])
