"""The command line itself: help of every command, its options in it, and what importing the losses needs."""

import importlib
import re
import subprocess
import sys
from dataclasses import fields, is_dataclass

import pytest

from ntil.cli import COMMANDS, HELP, help_of, main
from ntil.config.compose import choices


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_answers_help(command, capsys):
    assert f"ntil {command}" in HELP
    assert main([command, "--help"]) == 0
    assert f"ntil {command}" in capsys.readouterr().out


def test_help_of_training_lists_what_can_be_chosen(capsys):
    assert main(["train", "--help", "loss=emd"]) == 0
    listed = dict(re.findall(r"^(\w+): (.+)$", capsys.readouterr().out.partition("== Configuration")[0], re.M))
    assert {"model", "task", "loss", "packing", "augment", "init", "scale"} <= listed.keys()
    assert not {"benchmark", "hydra"} & listed.keys()
    assert listed["loss"].split(", ") == choices("loss")
    assert main(["train", "--help", "loss=emdd"]) == 2


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_help_names_every_option(command):
    module = importlib.import_module(COMMANDS[command])
    options = [kind for name, kind in vars(module).items() if name.endswith("Options") and is_dataclass(kind)]
    text = help_of(command)
    missing = [field.name for kind in options for field in fields(kind) if not re.search(rf"\b{field.name}[=:,]", text)]
    assert missing == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["tarin"], "ntil: no command 'tarin'; did you mean 'train'?"),
        (["report", "exprmnt=demo"], "did you mean 'experiment'?"),
        (["export", "run=x", "too=y"], "did you mean 'to'?"),
        (["train", "optim.stepz=3"], "optim.steps"),
    ],
)
def test_a_typo_is_one_sentence_with_the_nearest_name(command, message, capsys):
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_losses_import_torch_alone():
    code = (
        "import sys; import ntil; assert 'torch' not in sys.modules; ntil.NTIL; ntil.NumberVocab;"
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'torch', 'transformers', 'hydra', 'omegaconf', 'datasets', 'accelerate', 'PIL', 'scipy', 'pydantic'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "['torch']\n"
