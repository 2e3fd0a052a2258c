"""The average of the weights is torch's, is what is scored and saved, and goes on where a run was stopped."""

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback

from ntil.config.errors import ConfigError
from ntil.models.saving import load_saved
from ntil.preflight import compose_checked
from ntil.train import run as run_module
from ntil.train.averaging import FILE
from tests.support.in_process import StopAt, frozen, perform, trainer_of

EMA = ["optim.ema=0.7", "optim.steps=5", "optim.lr=1e-2"]


class Reference(TrainerCallback):
    """torch's own average of the whole model."""

    def __init__(self, model):
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7))

    def on_step_end(self, args, state, control, model=None, **_):
        self.average.update_parameters(model)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_average_is_torchs(tmp_path, tuning):
    trainer = trainer_of(tmp_path, *EMA, f"tuning={tuning}")
    reference = Reference(trainer.inner_model)
    trainer.add_callback(reference)
    trainer.train()
    expected = dict(reference.average.module.named_parameters())
    trained = {name for name, parameter in trainer.inner_model.named_parameters() if parameter.requires_grad}
    assert set(trainer.average.averages) == trained
    assert all(torch.equal(average, expected[name]) for name, average in trainer.average.averages.items())
    raw = {name: parameter.clone() for name, parameter in trainer.inner_model.named_parameters()}
    with trainer.average.applied():
        inside = dict(trainer.inner_model.named_parameters())
        assert all(torch.equal(inside[name], expected[name]) for name in trained)
        assert any(not torch.equal(inside[name], raw[name]) for name in trained)
    assert all(torch.equal(p, raw[name]) for name, p in trainer.inner_model.named_parameters())


def test_a_resumed_average_is_bit_for_bit_that_of_an_undisturbed_run(tmp_path):
    words = [*EMA, "save_every=2", "keep_checkpoints=9"]
    through = trainer_of(tmp_path, *words)
    through.train()
    resumed = trainer_of(tmp_path, *words)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    averages = through.average.averages
    assert all(torch.equal(averages[name], value) for name, value in resumed.average.averages.items())
    (tmp_path / "checkpoint-4" / FILE).unlink()
    with pytest.raises(ConfigError, match="has no average of these weights"):
        trainer_of(tmp_path, *words).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


@pytest.mark.slow
def test_a_run_validates_saves_and_tests_its_average(tmp_path, monkeypatch):
    seen = {}

    def validate(validation, trainer):
        weights = {n: p.clone() for n, p in trainer.inner_model.named_parameters() if p.requires_grad}
        seen[trainer.state.global_step] = weights, {n: a.clone() for n, a in trainer.average.averages.items()}
        return {validation.components.task.metric: 0.0}

    monkeypatch.setattr(run_module.Validation, "__call__", validate)
    words = [*EMA, "tuning=lora", "evaluation.every_steps=2", "save_every=2"]
    through, cut = (frozen(tmp_path / name, *words) for name in ("through", "cut"))
    perform(through)
    assert seen.keys() == {2, 4, 5}  # the last step is always validated
    assert all(torch.equal(value, averages[name]) for value, averages in [seen[2]] for name, value in value.items())
    with pytest.raises(KeyboardInterrupt):
        perform(cut, StopAt(3))
    perform(cut)
    one, two = (load_file(run.model / "adapter_model.safetensors") for run in (through, cut))
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    metrics = [{k: v for k, v in run.read_metrics().items() if k != "train_seconds"} for run in (through, cut)]
    assert metrics[0] == metrics[1]


@pytest.mark.slow
def test_what_is_saved_is_the_average_in_the_type_of_the_weights(tmp_path, monkeypatch):
    ends = {}
    original = run_module.NumberTrainer.train

    def train(trainer, *args, **kwargs):
        output = original(trainer, *args, **kwargs)
        ends.update({name: average.clone() for name, average in trainer.average.averages.items()})
        return output

    monkeypatch.setattr(run_module.NumberTrainer, "train", train)
    run = frozen(tmp_path, *EMA, "model.dtype=bfloat16")
    perform(run)
    from ntil.components import Components

    model = load_saved(Components.build(run.config()).family, run.model)
    saved = dict(model.named_parameters())
    assert all(saved[name].dtype == torch.bfloat16 for name in ends)
    assert all(torch.equal(saved[name], average.bfloat16()) for name, average in ends.items())


def test_an_average_needs_whole_weights():
    with pytest.raises(ConfigError, match="under ZeRO-3 no rank has the weights to average"):
        compose_checked(["engine=zero3", "optim.ema=0.99"])
    with pytest.raises(ConfigError, match=r"must lie in \(0, 1\)"):
        compose_checked(["optim.ema=1"])
