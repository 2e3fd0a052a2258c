"""Plug-ins: configs and classes outside of ntil, active where the user's process declares them and nowhere else."""

import json
import sys
from importlib.metadata import EntryPoint

import pytest
import yaml

from experiments.cells import differences
from ntil.cli import main
from ntil.commands import new
from ntil.config import plugins
from ntil.config.build import build, locate
from ntil.config.compose import choices, compose, compose_dict, explain, report_errors
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.launch.plan import dry_run
from ntil.numbers.vocab import NumberVocab
from ntil.runs.code import changed_code, check_code, foreign_code
from ntil.runs.folder import RunFolder
from ntil.runs.run import Run
from ntil.train.run import run

LOSS = """\
from ntil.losses import CE
from {helper} import WEIGHT


class Mine(CE):
    weight = WEIGHT
"""
TASK = "from ntil.tasks.clock import Clock\n\n\nclass Late(Clock):\n    metric = 'minute'\n"


@pytest.fixture
def forget(monkeypatch):
    """Modules and search path as before, after the test: each writes modules of its own under the same names."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("mine_loss", "helper_of_mine", "late", "stranger", "my_project"):
            del sys.modules[name]


@pytest.fixture
def folder(tmp_path, forget):
    """A folder of configs, not active, with its Python beside it."""
    configs = tmp_path / "my_conf"
    for group in ("loss", "task", "experiment"):
        (configs / group).mkdir(parents=True)
    (tmp_path / "helper_of_mine.py").write_text("WEIGHT = 1.0\n")
    (tmp_path / "mine_loss.py").write_text(LOSS.format(helper="helper_of_mine"))
    (tmp_path / "late.py").write_text(TASK)
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'code-ran')!r}, 'w')\n")
    (configs / "loss" / "mine.yaml").write_text("name: mine\ntarget: mine_loss:Mine\n")
    (configs / "task" / "late_clock.yaml").write_text("defaults: [clock]\nname: late_clock\ntarget: late:Late\n")
    experiment = "# @package _global_\ndefaults:\n  - override /loss: mine\nname: ours\n"
    (configs / "experiment" / "ours.yaml").write_text(experiment)
    return configs


@pytest.fixture
def active(folder, monkeypatch):
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(folder))
    return folder


def test_its_configs_are_choices_like_any_other(active):
    assert "mine" in choices("loss")
    config = compose(["loss=mine", "task=late_clock"])
    assert (config.loss.target, config.task.target) == ("mine_loss:Mine", "late:Late")
    assert "RenderedClocks" in config.task.options["source"]["target"]  # what the YAML takes from ntil's
    assert build("loss", config.loss, vocab=NumberVocab(range(10))).weight == 1
    assert compose(["experiment=ours"]).name == "ours"


def test_a_link_to_the_folder_is_the_folder(folder, tmp_path_factory, monkeypatch):
    link = tmp_path_factory.mktemp("elsewhere") / "link"
    link.symlink_to(folder.parent)
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(link / "my_conf"))
    monkeypatch.syspath_prepend(str(link))
    config = compose(["loss=mine"])
    assert locate(config.loss.target, "loss").__name__ == "Mine"
    assert set(foreign_code(config)) == {"mine_loss", "helper_of_mine"}


def test_without_it_nothing_is_known_of_them(folder):
    assert "mine" not in choices("loss")
    with pytest.raises(ConfigError, match="a plug-in, active with --config-dir"):
        locate("mine_loss:Mine", "loss")
    assert "mine_loss" not in sys.modules


def test_a_typo_has_the_nearest_name(active):
    with pytest.raises(Exception) as error:  # noqa: PT011  Hydra's, which `explain` puts into words
        compose_dict(["loss=mime"])
    assert explain(error.value) == "loss=mime: no such config; did you mean 'mine'?"


def test_every_command_takes_config_dir(folder, capsys, monkeypatch):
    monkeypatch.delenv("NTIL_CONFIG_PATH", raising=False)
    assert main(["plugins", "--config-dir", str(folder)]) == 0
    listed = capsys.readouterr().out
    assert "loss=mine" in listed
    assert "may be named: late, mine_loss" in listed
    monkeypatch.chdir(folder.parent)
    assert main(["models", "nano", "--config-dir=my_conf"]) == 2
    capsys.readouterr()
    assert main(["plugins"]) == 0
    assert "no plug-in is active" in capsys.readouterr().out
    assert main(["plugins", "--config-dir"]) == 2
    assert "needs a folder" in capsys.readouterr().err


def test_help_and_dry_run_list_them(active, capsys, tmp_path):
    assert main(["train", "--help"]) == 0
    losses, *_ = [line for line in capsys.readouterr().out.splitlines() if line.startswith("loss:")]
    assert "mine" in losses.replace(",", "").split()
    planned = dry_run(["-m", "loss=ce,mine", f"runs={tmp_path / 'runs'}"])
    assert [row[2] for row in planned.table.rows[:-1]] == ["ce", "mine"]


@pytest.mark.parametrize(
    ("path", "text", "sentence"),
    [
        ("loss/ntil.yaml", "name: ntil\n", "has the same name; rename one of them"),
        ("loss/broken.yaml", "a: [\n", "broken.yaml: no YAML"),
    ],
)
def test_what_would_mean_two_things_or_nothing_is_refused(active, capsys, path, text, sentence):
    (active / path).write_text(text)
    assert report_errors(lambda: build("loss", compose(["loss=mine"]).loss, vocab=NumberVocab(range(10)))) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(("name", "sentence"), [("none", "no such folder"), ("empty", "holds no config")])
def test_a_folder_without_configs(tmp_path, monkeypatch, name, sentence):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(tmp_path / name))
    with pytest.raises(ConfigError, match=sentence):
        choices("loss")


def test_a_file_named_like_an_installed_module_is_refused(active):
    (active.parent / "queue.py").write_text("")
    (active / "loss" / "queued.yaml").write_text("name: queued\ntarget: queue:Mine\n")
    with pytest.raises(ConfigError, match="another module of this environment has the name 'queue'"):
        locate("queue:Mine", "loss")


def test_only_modules_that_a_yaml_names_may_be_named(active, tmp_path):
    """A run folder of others can't have another script beside the configs imported; nor one below them add a name."""
    inner = active / "runs" / "stranger's"
    inner.mkdir(parents=True)
    (inner / "config.yaml").write_text("loss: {name: x, target: 'stranger:call'}\n")
    with pytest.raises(ConfigError, match="only classes in"):
        locate("stranger:call", "loss")
    assert not (tmp_path / "code-ran").exists()


def test_an_installed_package_is_a_plugin_by_its_entry_point(folder, monkeypatch, tmp_path):
    package = tmp_path / "site" / "my_project"
    (package / "conf" / "loss").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text("from ntil.losses import CE\n\n\nclass Ours(CE):\n    pass\n")
    (package / "conf" / "loss" / "ours.yaml").write_text("name: ours\ntarget: my_project.losses:Ours\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    entry = EntryPoint("mine", "my_project.conf", plugins.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "_entry_points", lambda: (entry,))
    assert "ours" in choices("loss")
    assert "my_project" not in sys.modules
    config = compose(["loss=ours"])
    assert build("loss", config.loss, vocab=NumberVocab(range(10))).__class__.__name__ == "Ours"
    assert set(foreign_code(config)) == {"my_project", "my_project.losses"}
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(package / "conf"))
    assert [plugin.folder for plugin in plugins.active_plugins()] == [package / "conf"]  # not twice
    monkeypatch.delenv("NTIL_CONFIG_PATH")
    gone = EntryPoint("gone", "no_such_package_here.conf", plugins.ENTRY_POINTS)
    monkeypatch.setattr(plugins, "_entry_points", lambda: (gone,))
    with pytest.raises(ConfigError, match="isn't here; install it anew"):
        choices("loss")


def test_a_run_records_the_code_of_its_classes_and_what_they_import(active, tmp_path):
    config = compose(["loss=mine", "task=clock"])
    file = tmp_path / "code.json"
    build("loss", config.loss, vocab=NumberVocab(range(10)))
    check_code(file, config, resuming=False, accept=False)
    assert set(json.loads(file.read_text())) == {"mine_loss", "helper_of_mine"}
    check_code(file, config, resuming=True, accept=False)
    (tmp_path / "helper_of_mine.py").write_text("WEIGHT = 2.0\n")
    with pytest.raises(ConfigError, match="the code of helper_of_mine has changed since the run began"):
        check_code(file, config, resuming=True, accept=False)
    check_code(file, config, resuming=True, accept=True)
    assert changed_code(json.loads(file.read_text())) == []
    del sys.modules["helper_of_mine"]
    (tmp_path / "helper_of_mine.py").unlink()
    assert changed_code(json.loads(file.read_text())) == ["helper_of_mine (is gone)"]


def test_a_run_does_not_go_on_with_other_code(active, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.freeze(compose(["loss=mine", "task=clock", "model=llava_nano", "engine=local", "tracker=none"]))
    folder.trained.write_text('{"step": 1, "seconds": 1.0}')
    folder.code.write_text(json.dumps({"mine_loss": "0" * 64}))
    with pytest.raises(ConfigError, match="the code of mine_loss has changed since the run began"):
        run(folder, Interrupt(), Ranks())


def test_runs_of_other_code_are_not_joined(active, tmp_path):
    config = compose(["loss=mine", "task=clock"])
    runs = [Run(RunFolder(tmp_path / name), config) for name in ("one", "two", "three")]
    for one, code in zip(runs, ("a", "a", "b"), strict=True):
        one.folder.freeze(config)
        one.folder.code.write_text(json.dumps({"mine_loss": code}))
    assert differences(runs[:2]) == {}
    assert differences(runs) == {"code.mine_loss": ["a", "a", "b"]}


def test_a_run_of_ntils_classes_records_none(active, tmp_path):
    check_code(tmp_path / "code.json", compose(["loss=ntil"]), resuming=False, accept=False)
    assert not (tmp_path / "code.json").exists()


def test_where_a_class_lies_changes_no_identity(active):
    before = config_hash(compose(["loss=mine"]))
    text = yaml.safe_load((active / "loss" / "mine.yaml").read_text())
    (active / "loss" / "mine.yaml").write_text(yaml.safe_dump({**text, "target": "helper_of_mine:Mine"}))
    assert config_hash(compose(["loss=mine"])) == before


@pytest.mark.parametrize("target", ["tasks.clock:Clock", "ntil.tasks.clock:Clock"])
def test_a_room_has_two_names(target):
    assert locate(target, "task").__module__ == "tasks.clock"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["los", "x"], "no kind 'los'; did you mean 'loss'?"),
        (["loss"], "takes a kind"),
        (["loss", "Big"], "is no name of a module"),
        (["loss", "ntil"], "loss=ntil is there already"),
        (["loss", "x", "y"], "takes a kind"),
    ],
)
def test_new_refuses(words, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=sentence.replace("?", r"\?")):
        new.main(words)
    assert not list(tmp_path.iterdir())


TYPED = """\
from __future__ import annotations

from typing import TYPE_CHECKING

from ntil.losses import CE

if TYPE_CHECKING:
    from collections.abc import Sequence


def helper(values: Sequence[int]) -> int:
    return len(values)


class Typed(CE):
    pass


class Asks(CE):
    def __init__(self, vocab: object, widths: Sequence[int] = ()) -> None:
        super().__init__(vocab)
"""


@pytest.fixture
def typed(folder, monkeypatch):
    """The active folder of configs, with the module `late`, whose types are imported for type checkers alone."""
    (folder.parent / "late.py").write_text(TYPED)
    (folder / "task" / "late_clock.yaml").unlink()
    for name in ("Typed", "Asks"):
        (folder / "loss" / f"{name.lower()}.yaml").write_text(f"name: {name.lower()}\ntarget: late:{name}\n")
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(folder))


def test_types_for_type_checkers_alone_do_not_stand_in_the_way(typed):
    assert locate("late:Typed", "loss").__name__ == "Typed"
    with pytest.raises(ConfigError, match="the type 'Sequence' of an option isn't there at run time"):
        build("loss", compose(["loss=asks"]).loss, vocab=NumberVocab(range(10)))


def test_a_package_that_a_plug_in_lacks_is_named(folder, monkeypatch):
    (folder.parent / "mine_loss.py").write_text("import scikit_fancy\n")
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(folder))
    with pytest.raises(ConfigError, match="mine_loss imports scikit_fancy, which isn't installed here"):
        locate("mine_loss:Mine", "loss")


def test_a_folder_whose_path_has_the_sign_between_paths_is_refused(tmp_path, capsys):
    (tmp_path / "p:d").mkdir()
    assert main(["plugins", "--config-dir", str(tmp_path / "p:d")]) == 2
    assert "p:d: a folder of configs can't have ':' in its path" in capsys.readouterr().err
