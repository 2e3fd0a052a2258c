"""`ntil new`: what it writes stands up to the linter, and passes the test that it writes beside it."""

import subprocess
import sys
from pathlib import Path

import pytest

from ntil.cli import main
from ntil.commands.new import KINDS, Scaffold
from ntil.commands.new import main as main_of_new
from ntil.config.build import check_component
from ntil.config.compose import compose
from ntil.config.errors import ConfigError

ROOT = Path(__file__).parents[2]
RUFF = [sys.executable, "-m", "ruff"]
STRICT = ["--isolated", "--line-length=120", "--config", "lint.pydocstyle.convention='google'"]
RULES = "--select=E,F,I,UP,B,SIM,PIE,NPY,C4,PT,ARG,PTH,D1"


def written(folder: Path, kind: str) -> None:
    assert main(["new", kind, f"new_{kind}", "--into", str(folder)]) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_config_names_the_class_and_its_options(tmp_path, monkeypatch, capsys, kind):
    written(tmp_path, kind)
    shown = capsys.readouterr().out.splitlines()
    assert [Path(line).is_file() for line in shown[:3]] == [True] * 3
    assert f"--config-dir {tmp_path / 'conf'}" in shown[-1]
    monkeypatch.setenv("NTIL_CONFIG_PATH", str(tmp_path / "conf"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    group = KINDS[kind][0]
    component = getattr(compose([f"{group}=new_{kind}"]), group)
    assert component.name == f"new_{kind}"
    check_component(group, component)
    del sys.modules[f"new_{kind}_{kind}"]


def test_the_linter_has_nothing_to_say(tmp_path):
    for kind in KINDS:
        written(tmp_path, kind)
    tests = "--per-file-ignores=tests/*:D1"
    initializers = "--ignore=D102,D107,ARG002"  # as in this project
    checked = [*RUFF, "check", *STRICT, RULES, tests, initializers, "."]
    for command in (checked, [*RUFF, "check", "--isolated", "."], [*RUFF, "format", *STRICT[:2], "--check", "."]):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_in_a_checkout_the_files_are_part_of_it(tmp_path):
    for kind in KINDS:
        Scaffold(kind, f"first_{kind}", tmp_path, in_checkout=True).write()
    places = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert places == {
        *("conf/loss/first_loss.yaml", "ntil/losses/first_loss.py", "tests/losses/test_first_loss.py"),
        *("conf/task/first_task.yaml", "tasks/first_task.py", "tests/tasks/test_first_task.py"),
        *("conf/model/first_model.yaml", "ntil/models/first_model.py", "tests/models/test_first_model.py"),
        *("conf/task/first_source.yaml", "data/first_source.py", "tests/data/test_first_source.py"),
    }
    assert "target: data.first_source:FirstSource" in (tmp_path / "conf/task/first_source.yaml").read_text()
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*RUFF, *command, "--config", str(ROOT / "pyproject.toml"), "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "first_try_loss.py").write_text("mine\n")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        Scaffold("loss", "first_try", tmp_path, in_checkout=False).write()
    assert [path.name for path in tmp_path.rglob("*")] == ["first_try_loss.py"]


@pytest.mark.slow
def test_the_tests_that_it_writes_pass(tmp_path):
    for kind in KINDS:
        written(tmp_path, kind)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "16 passed" in done.stdout


@pytest.mark.slow
def test_they_fail_where_the_code_is_wrong(tmp_path):
    """A generated test that can't fail would be worth nothing."""
    wrong = {
        "loss": ("expected - inputs.spans.digit)", "expected + inputs.spans.digit)"),
        "task": ("<= 100 else", "<= 10 else"),
        "model": ("{prompt} ->", "{prompt} =>"),
        "source": ('"expression": entry["phrase"]', '"expression": ""'),
    }
    for kind, (right, changed) in wrong.items():
        written(tmp_path, kind)
        file = tmp_path / f"new_{kind}_{kind}.py"
        assert right in file.read_text()
        file.write_text(file.read_text().replace(right, changed))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    for kind in wrong:
        assert f"FAILED tests/test_new_{kind}_{kind}.py" in done.stdout


@pytest.mark.parametrize("name", ["none", "true", "null", "term"])
def test_names_that_mean_something_else_are_refused(tmp_path, name):
    with pytest.raises(ConfigError, match=f"{name!r} means something else"):
        main_of_new(["loss", name, "--into", str(tmp_path)])
    assert not list(tmp_path.iterdir())


def test_the_test_that_is_printed_is_the_test(tmp_path, capsys):
    assert main(["new", "loss", "test", "--into", str(tmp_path)]) == 0
    assert f"python -m pytest {tmp_path / 'tests' / 'test_test_loss.py'}" in capsys.readouterr().out
