"""Composing, typing and identity of configs; mistakes end in one line with the nearest valid name."""

import subprocess
import sys

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ntil.cli import main
from ntil.config.compose import choices, explain
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash, run_path
from ntil.preflight import compose_checked


def explained(*words: str) -> str:
    with pytest.raises((ConfigError, HydraException, OmegaConfBaseException)) as error:
        compose_checked(words)
    return str(error.value) if isinstance(error.value, ConfigError) else explain(error.value, words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("loss=ntill", "did you mean 'ntil'?"),
        ("lost=ce", "did you mean 'loss'?"),
        ("optim.step=3", "did you mean 'optim.steps'?"),
        ("loss.lamm=3", "did you mean 'loss.lam'?"),
        ("task.source.difficult=rich", "did you mean 'task.source.difficulty'?"),
        ("model.vison=3", "did you mean 'model.vision'?"),
        ("optim.steps=many", "optim.steps"),
        ("optim.steps=0", "optim.steps must be at least 1"),
        ("engine.zero_stage=4", "engine.zero_stage must be null, 0, 1, 2 or 3, got 4"),
        ("evaluation.validation_rows=0", "evaluation.validation_rows must be at least 1, got 0"),
        ("evaluation.batch_size=0", "evaluation.batch_size must be at least 1"),
        ("evaluation.every_steps=-1", "evaluation.every_steps must be at least 0 (0: never)"),
        ("log_every=0", "log_every must be at least 1"),
        ("save_every=-1", "save_every must be at least 0 (0: never)"),
        ("optim.betas=[0.9]", "optim.betas must be two numbers in [0, 1), as in [0.9,0.999], got [0.9]"),
        ("optim.betas=[0.9,1]", "optim.betas must be two numbers"),
        ("optim.min_lr_ratio=2", "optim.min_lr_ratio must lie in [0, 1]"),
        ("optim.weight_decay=-1", "optim.weight_decay must be at least 0"),
        ("optim.warmup=-5", "optim.warmup must be at least 0"),
        ("engine.workers=-1", "engine.workers must be at least 0"),
        ("engine.threads=0", "engine.threads must be at least 1"),
        ("+loss.gamma=1", "loss.gamma"),
        ("curriculum.stages=[{until:0.5,max:0},{until:0.2,max:1}]", "must rise"),
    ],
)
def test_mistakes(word, message):
    text = explained(word)
    assert message in text
    assert "\n" not in text


def test_the_demo_differs_between_losses_in_the_loss_only():
    configs = [compose_checked(["experiment=demo", f"loss={loss}"]).to_dict() for loss in ("ce", "emd", "ntil")]
    assert configs[0]["name"] == "demo"
    assert configs[0]["task"]["name"] == "text_detection_single"
    for config in configs:
        config.pop("loss")
    assert configs[0] == configs[1] == configs[2]


def test_identity_ignores_where_and_how_to_watch():
    base = compose_checked([])
    assert config_hash(base) == config_hash(
        compose_checked(["runs=/elsewhere", "tracker=none", "save_every=7", "seed=5"])
    )
    assert config_hash(base) != config_hash(compose_checked(["optim.lr=0.002"]))
    folder = run_path(compose_checked(["runs=r", "name=n", "loss=ce", "seed=5"]))
    assert folder.parts[:5] == ("r", "n", "clock", "llava_nano", "ce")
    assert folder.name.startswith("seed5-")


def test_every_config_of_every_group_composes():
    for group in ("loss", "engine", "optim", "tracker", "curriculum", "model"):
        assert choices(group)
        for name in choices(group):
            compose_checked([f"{group}={name}"])


def test_help_needs_nothing_heavy():
    code = (
        "import sys; from ntil.cli import main; main(['--help']);"
        "print({'torch', 'hydra', 'transformers'} & set(sys.modules))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "ntil train" in shown
    assert shown.endswith("set()\n")


@pytest.mark.parametrize("words", [["init=null"], ["-m", "experiment=clock", "init=null", "--dry-run"]])
def test_a_group_that_is_null_is_said_in_one_line(words, capsys):
    assert main(["train", *words]) == 2
    assert capsys.readouterr().err == "ntil: a group of configs can't be null: leave init out\n"
