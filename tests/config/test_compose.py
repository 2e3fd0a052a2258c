"""Composing, typing and identity of configs; mistakes end in one line with the nearest valid name."""

import shlex
import subprocess
import sys
from contextlib import nullcontext

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ntil.cli import main
from ntil.commands.train import check_storage
from ntil.config.compose import choices, compose, explain
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash, identity, run_path
from ntil.preflight import check, compose_checked, remarks


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
        ("seed=-1", "seed must lie in 0..4294967295, got -1"),
        ("seed=4294967296", "seed must lie in 0..4294967295"),
        ("name=/abs", "name='' is no folder's name"),
        (f"name={'n' * 65}", "has 65 characters; folders and trackers take 64 at most"),
        (f"loss.name={'n' * 65}", "loss.name='nnnn"),
        ("tracker.project=a/b", "tracker.project='a/b' is no name that W&B takes"),
        ("runs=~/x", """'runs="~/x"'"""),
        ("runs=x(1)", """'runs="x(1)"'"""),
        ("runs=données", """'runs="données"'"""),
        ("runs=it's", """runs="it'"'"'s\""""),
        ("runs=[1].x", """'runs="[1].x"'"""),
        ("runs", "'runs' is no key=value"),
        ("runs=", "runs= names no folder"),
        ("runs=null", "runs=null: must have a value"),
        ("optim.lr=nan", "optim.lr=nan: must be a finite number"),
        ("optim.lr=inf", "optim.lr=inf: must be a finite number"),
        ("optim.weight_decay=inf", "optim.weight_decay=inf"),
        ("engine.compile=maybe", "engine.compile=maybe: must be true or false"),
        ("seed=1e99", "seed=1e+99: must be of type integer"),
        ("task.rows=3", "no key 'task.rows'; did you mean 'task.source.rows'?"),
        ("curriculum.stages=[{until:0.5,max:0},{until:0.2,max:1}]", "must rise"),
    ],
)
def test_mistakes(word, message):
    text = explained(word)
    assert message in text
    assert "\n" not in text


def test_a_key_that_only_some_jobs_of_a_sweep_have():
    with pytest.raises(HydraException) as error:
        compose_checked(["loss=ce", "loss.lam=1"])
    assert "no key 'loss.lam' in every job of this sweep" in explain(error.value, ["loss=ce,ntil", "loss.lam=1"])


@pytest.mark.parametrize("words", [["runs={file}"], ["runs={file}/below"], ["-m", "seed=0,1", "runs={file}"]])
def test_a_folder_of_runs_that_can_not_be_made(tmp_path, monkeypatch, capsys, words):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "file"
    file.touch()
    assert main(["train", "loss=ce", *(word.format(file=file) for word in words)]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"ntil: {file}/")
    assert "not a directory; name another path" in message
    assert len(message.splitlines()) == 1


def test_quotes_that_an_error_proposes_are_read():
    proposed = shlex.split(explained("runs=~/x(1) é'\"").partition("shell: ")[2])
    assert compose_checked(proposed).runs == "~/x(1) é'\""


def test_a_line_break_is_typed_as_in_yaml():
    words = ["task=arithmetic", "model=qwen25_nano", r'model.template="Q: {prompt}\nA:"']
    config = compose_checked([*words, r"""evaluation.generation.stop=["\n", "a\\nb", 'c\nd']"""])
    assert config.model.options["template"] == "Q: {prompt}\nA:"
    assert config.evaluation.generation.stop == ["\n", r"a\\nb", r"c\nd"]


def test_a_warm_up_longer_than_the_training_is_said():
    assert remarks(compose_checked(["optim.steps=200"])) == []
    assert "only rises, to 3% of optim.lr; set optim.warmup=0" in remarks(compose_checked(["optim.steps=3"]))[0]


def test_a_name_with_a_slash_is_a_folder_below_another():
    assert run_path(compose_checked(["name=lab/exp1", "runs=r"])).parts[:3] == ("r", "lab", "exp1")


@pytest.mark.parametrize(
    ("sqlalchemy", "storage", "refused"),
    [("2.1", "sqlite:///x.db", True), ("2.1", "null", False), ("1.4", "sqlite:///x.db", False)],
)
def test_a_search_that_optuna_cannot_store(monkeypatch, sqlalchemy, storage, refused):
    monkeypatch.setattr("ntil.commands.train.version", {"optuna": "2.10.1", "sqlalchemy": sqlalchemy}.__getitem__)
    with pytest.raises(ConfigError, match=r"install 'sqlalchemy<2'") if refused else nullcontext():
        check_storage(["-m", f"hydra.sweeper.storage={storage}"])


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


def test_what_ends_a_training_is_part_of_its_identity():
    hashes = {config_hash(compose_checked(words)) for words in ([], ["optim.target=0.5"], ["optim.target=0.9"])}
    assert len(hashes) == 3
    plain = identity(compose_checked(["task.source.rows.test=8"]))
    assert not {"target", "allow_pickle"} & {*plain["model"], *plain["task"], *plain["task"]["source"], *plain["loss"]}


def test_how_many_rows_are_tested_at_once_starts_no_other_run():
    """As the hint on memory that ran out in the test says; the trained model is kept."""
    base = config_hash(compose_checked([]))
    for size in (7, 120, "null"):
        assert config_hash(compose_checked([f"evaluation.batch_size={size}"])) == base


@pytest.mark.parametrize("on_this_machine", [True, False])
def test_a_server_tests_no_training(on_this_machine):
    words = ["evaluation.backend=openai", "evaluation.server.url=http://localhost:1/v1", "evaluation.server.model=m"]
    with pytest.raises(ConfigError, match=r"evaluation\.backend=openai is for finished runs"):
        compose_checked(words, on_this_machine)
    with pytest.raises(ConfigError, match=r"evaluation\.backend=openai is for finished runs"):
        check(compose(words))


@pytest.mark.slow
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
    assert capsys.readouterr().err == "ntil: init=null: a config is chosen by its name; leave init out\n"


def test_a_sweep_has_no_config_to_print(capsys):
    assert main(["train", "-m", "loss=ce,ntil", "--cfg", "job"]) == 2
    assert capsys.readouterr().err.startswith("ntil: --cfg and --info are about one run: leave -m out")
