"""Length of a training: steps or epochs, whichever is named, and a bound on passes over few rows."""

import pytest

from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.config.schema import OptimConfig, RunConfig
from ntil.launch.costs import Length
from ntil.launch.plan import plan
from ntil.preflight import remarks


def optim(*words):
    return compose(words).optim


@pytest.mark.parametrize(
    ("words", "length"),
    [
        ([], (2600, None, None)),
        (["optim.steps=7"], (7, None, None)),
        (["optim.epochs=3"], (None, 3, None)),
        (["optim.epochs=0.5", "optim.steps=null"], (None, 0.5, None)),
        (["optim.max_epochs=3"], (2600, None, 3)),
        (["model=qwen2_vl_2b"], (2000, None, 30)),
        (["model=qwen2_vl_2b", "optim.steps=7"], (7, None, None)),
        (["model=qwen2_vl_2b", "optim.steps=7", "optim.max_epochs=2"], (7, None, 2)),
        (["model=qwen2_vl_2b", "optim.epochs=3"], (None, 3, None)),
        (["model=qwen2_vl_2b", "optim.max_epochs=null"], (2000, None, None)),
        (["experiment=demo", "optim.epochs=3"], (None, 3, None)),
    ],
)
def test_what_is_named_replaces_the_default(words, length):
    chosen = optim(*words)
    assert (chosen.steps, chosen.epochs, chosen.max_epochs) == length


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.epochs=3", "optim.steps=4"], "optim.epochs=3 and optim.steps=4 both say how long the training is"),
        (["optim.epochs=3", "optim.max_epochs=4"], "as with optim.max_epochs=null"),
        (["optim.steps=null"], "both null"),
        (["optim.epochs=0"], "optim.epochs must be above 0"),
        (["optim.max_epochs=-1"], "optim.max_epochs must be above 0"),
        (["optim.warmup=1.5"], "must be whole steps, or below 1 a share"),
    ],
)
def test_two_lengths_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        compose(words)


def test_a_sweep_over_epochs():
    jobs = plan(["-m", "loss=ce", "optim.epochs=1,3"])
    assert [job.run.config.optim.epochs for job in jobs] == [1, 3]
    assert len({job.run.folder.path for job in jobs}) == 2


def test_steps_follow_from_rows():
    assert OptimConfig(steps=None, epochs=3, batch_size=64).steps_for(206) == 10  # 9.66
    assert OptimConfig(steps=None, epochs=0.001, batch_size=64).steps_for(206) == 1
    assert OptimConfig(steps=None, epochs=1.1, batch_size=8).steps_for(6400) == 880  # 1.1 * 6400 is 7040.000000000001
    assert OptimConfig(steps=None, epochs=0.3, batch_size=1).steps_for(10) == 3
    assert OptimConfig(steps=None, epochs=3).steps_for(None) is None
    assert OptimConfig(steps=7).steps_for(None) == OptimConfig(steps=7).steps_for(10**6) == 7
    recipe = OptimConfig(steps=2000, max_epochs=30, batch_size=64)
    assert recipe.steps_for(207) == 98  # ICDAR2013, which were 621 epochs
    assert recipe.steps_for(120_624) == 2000  # RefCOCO
    assert recipe.steps_for(None) is None


def test_a_frozen_config_reads_as_it_was_written():
    for words in (["optim.epochs=3"], ["model=qwen2_vl_2b"], ["optim.lr_of.projector=2e-5"], ["optim.warmup=0.1"]):
        config = compose(words)
        again = RunConfig.from_dict(config.to_dict())
        assert again == config
        assert config_hash(again) == config_hash(config)
    assert config_hash(compose(["optim.epochs=3"])) != config_hash(compose([]))
    assert config_hash(compose(["optim.accept_lr=true", "optim.lr_of.projector=null"])) == config_hash(compose([]))


def test_a_warm_up_is_steps_or_a_share():
    assert isinstance(optim("optim.warmup=20").warmup, int)
    assert optim("optim.warmup=0.05").warmup == 0.05
    assert remarks(compose(["optim.warmup=0.05", "optim.steps=3"])) == []
    assert remarks(compose(["optim.warmup=20", "optim.epochs=3"])) == []


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["task=clock"], "2600 (4.16 epochs)"),
        (["task=clock", "optim.epochs=2"], "1250 (2 epochs)"),
        (["task=refcoco", "model=qwen2_vl_7b"], "2000 (1.06 epochs)"),
        (["task=refcocog", "model=qwen2_vl_7b", "optim.epochs=1"], "1258 (1 epoch)"),
        (["task=icdar2013", "model=qwen2_vl_7b"], "98 (30.3 epochs)"),
        (["task=refcoco", "task.source.folder=mine", "model=qwen2_vl_7b"], "up to 2000 (up to 30 epochs)"),
        (["task=gsm8k", "model=qwen25_nano", "optim.epochs=3"], "not known yet (3 epochs)"),
        (["task=gsm8k", "model=qwen25_nano"], "2600"),
    ],
)
def test_a_dry_run_shows_steps_and_epochs(words, shown, monkeypatch, tmp_path):
    monkeypatch.setattr("tasks.base.Task.check_files", lambda task: None)
    (job,) = plan([*words, f"runs={tmp_path}"])
    assert str(Length.of(job.run)) == shown


def test_a_recorded_length_wins(tmp_path):
    (job,) = plan(["optim.epochs=2", f"runs={tmp_path}"])
    job.run.folder.path.mkdir(parents=True)
    job.run.folder.length.write_text('{"rows": 64, "steps": 2, "epochs": 2.0}')
    assert job.run.steps == 2
    assert str(Length.of(job.run)) == "2 (2 epochs)"
