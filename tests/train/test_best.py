"""The best weights are stored, survive interrupts and kills, and are tested; a run that waits too long ends."""

import json

import pytest
import torch
from safetensors.torch import load_file

from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.preflight import compose_checked
from ntil.runs.folder import read_json
from ntil.train import run as run_module
from ntil.train.best import FILE
from tests.support.in_process import StopAt, frozen, perform

WORDS = ["optim.steps=8", "optim.lr=1e-2", "evaluation.every_steps=1", "save_every=2", "tuning=lora"]
SCORES = dict(enumerate([0.1, 0.4, 0.3, 0.5, 0.2, 0.5, 0.4, 0.3], 1))  # of a step; the best is that of 4


@pytest.fixture
def seen(monkeypatch):
    """Step -> the trained weights when it was validated; validations have the scores above."""
    weights = {}

    def validate(validation, trainer):
        step = trainer.state.global_step
        weights[step] = {n: p.clone() for n, p in trainer.inner_model.named_parameters() if p.requires_grad}
        return {validation.components.task.metric: SCORES[step]}

    monkeypatch.setattr(run_module.Validation, "__call__", validate)
    return weights


def saved(run):
    """The adapters of a run, by the names of its parameters."""
    weights = load_file(run.model / "adapter_model.safetensors")
    return {name.replace(".weight", ".default.weight"): value for name, value in weights.items() if "lora_" in name}


def figures(run):
    return {name: value for name, value in run.read_metrics().items() if name != "train_seconds"}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.slow
def test_the_best_weights_are_saved_and_tested_after_interrupts_and_kills_too(tmp_path, seen):
    words = [*WORDS, "evaluation.test=best"]
    through, cut = (frozen(tmp_path / name, *words) for name in ("through", "cut"))
    perform(through)
    assert same(saved(through), {name: value for name, value in seen[4].items() if "lora_" in name})
    assert not same(saved(through), seen[8])
    assert figures(through)["train_best_step"] == 4
    assert figures(through)["train_best"] == 0.5
    assert figures(through)["train_steps"] == 8
    assert read_json(through.trained)["tested"] == "best"
    assert not through.best.exists()

    with pytest.raises(MemoryError):  # 2 is the best of checkpoint 2, 4 a better one that no checkpoint knows
        perform(cut, StopAt(4, dies=True))
    assert [p.name for p in cut.checkpoints.glob("*")] == ["checkpoint-2"]
    assert read_json(cut.checkpoints / "checkpoint-2" / FILE) == {"step": 2, "value": 0.4, "waited": 0}
    seen.clear()
    with pytest.raises(KeyboardInterrupt):  # at a step that is validated
        perform(cut, StopAt(5))
    assert [*seen] == [3, 4, 5, 6, 7]
    assert {p.name for p in cut.best.iterdir()} == {"step-2", "step-4"}  # two at most; no others were written
    perform(cut)
    assert [*seen] == [3, 4, 5, 6, 7, 8]
    assert same(saved(cut), saved(through))
    assert figures(cut) == figures(through)


@pytest.mark.slow
def test_a_run_that_waits_too_long_ends_and_goes_on_to_the_same_end(tmp_path, seen, capsys):
    words = [*WORDS, "optim.patience=2", "optim.min_delta=0.15", "tuning.rank=2"]
    through, cut = (frozen(tmp_path / name, *words) for name in ("through", "cut"))
    perform(through)
    # 0.1, 0.4 (better), 0.3, then 0.5 is better by less than 0.15: two validations without one.
    assert max(seen) == 4
    assert "step 4: no better exact in 2 validations (the best: 0.5 at step 4); the training ends" in (
        capsys.readouterr().out
    )
    record = read_json(through.trained)
    assert (record["step"], record["stopped_early"], record["tested"]) == (4, True, "last")
    assert same(saved(through), {name: value for name, value in seen[4].items() if "lora_" in name})
    with pytest.raises(KeyboardInterrupt):  # its last step would have been saved; a run from there trains one more
        perform(cut, StopAt(4))
    assert [p.name for p in cut.checkpoints.glob("*")] == ["checkpoint-2"]
    perform(cut)
    assert same(saved(cut), saved(through))
    assert figures(cut) == figures(through)


@pytest.mark.slow
def test_a_run_ends_at_its_target_and_goes_on_to_the_same_end(tmp_path, seen, capsys):
    words = [*WORDS, "optim.target=0.4"]
    through, cut = (frozen(tmp_path / name, *words) for name in ("through", "cut"))
    perform(through)
    assert max(seen) == 2
    assert "step 2: exact has reached 0.4; the training ends" in capsys.readouterr().out
    record = read_json(through.trained)
    assert (record["step"], record["stopped_early"], record["tested"]) == (2, True, "last")
    with pytest.raises(KeyboardInterrupt):
        perform(cut, StopAt(1))
    perform(cut)
    assert same(saved(cut), saved(through))
    assert figures(cut) == figures(through)


@pytest.mark.slow
def test_weights_that_are_gone_are_missed_before_training(tmp_path, seen):
    run = frozen(tmp_path, *WORDS, "evaluation.test=best", "tuning.rank=1")
    with pytest.raises(KeyboardInterrupt):
        perform(run, StopAt(3))
    (run.best / "step-2").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"step-2 is missing: the best weights so far"):
        perform(run)
    (run.checkpoints / "checkpoint-3" / FILE).write_text(json.dumps({}))
    with pytest.raises(ConfigError, match=r"best.json is missing; remove .*checkpoint-3"):
        perform(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.patience=2", "evaluation.every_steps=0"], "optim.patience=2 goes by validations"),
        (["optim.target=0.6", "evaluation.every_steps=0"], r"optim.target=0.6 goes by validations"),
        (["evaluation.test=best", "evaluation.every_steps=0"], "evaluation.test=best goes by validations"),
        (["evaluation.test=worst"], "evaluation.test must be last or best"),
        (["optim.min_delta=0.1"], "for early stopping; set optim.patience"),
        (["optim.patience=0"], "optim.patience must be at least 1"),
    ],
)
def test_what_goes_by_validations_needs_some(words, message):
    with pytest.raises(ConfigError, match=message):
        compose_checked(words)


def test_what_means_as_before_changes_no_hash():
    before = config_hash(compose([]))
    for word in ("evaluation.test=last", "optim.patience=null", "optim.ema=null", "optim.name=adamw"):
        assert config_hash(compose([word])) == before, word
    for word in ("evaluation.test=best", "optim.patience=3", "optim.ema=0.9", "optim.name=sgd", "optim.schedule=wsd"):
        assert config_hash(compose([word])) != before, word


@pytest.mark.slow
def test_an_interrupt_at_the_step_of_an_early_end_loses_no_model(tmp_path, seen):
    run = frozen(tmp_path, *WORDS, "optim.target=0.4", "save_every=0")
    with pytest.raises(KeyboardInterrupt):
        perform(run, StopAt(2))
    assert (run.trained.exists(), run.done) == (True, False)
    perform(run)
    assert run.done
