"""`ntil status` reads a run's state from its folder alone."""

import json
import subprocess
import sys
import time

import pytest

from ntil.cli import main
from ntil.commands.status import main as status_main
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.runs.folder import RunFolder
from ntil.runs.lock import locked
from ntil.runs.run import Run
from ntil.runs.status import pace, status


@pytest.fixture(scope="module")
def run_at():
    config = compose(["optim.steps=100"])

    def make(path, history=(), error=None, metrics=None):
        run = RunFolder(path)
        run.freeze(config)
        if history:
            run.history.write_text("".join(json.dumps(record) + "\n" for record in history))
        if error:
            run.error.write_text(error)
        if metrics:
            run.metrics.write_text(json.dumps(metrics))
        return Run.read(run)

    return make


def test_a_damaged_run_hides_no_other(tmp_path, capsys, run_at):
    run_at(tmp_path / "a", metrics={"exact": 1.0})
    run_at(tmp_path / "b").folder.config_file.write_text("optim: {steps: three}")
    assert main(["status", str(tmp_path)]) == 2
    assert "1 done, 1 damaged" in capsys.readouterr().out
    assert main(["status", str(tmp_path / "b")]) == 2
    assert "config.yaml" in capsys.readouterr().err


def test_every_state(tmp_path, capsys, run_at):
    now = time.time()
    pace = [{"step": 10 * k, "time": now - 60 + 10 * k} for k in range(1, 7)]
    run_at(tmp_path / "a", pace, metrics={"exact": 1.0})
    run_at(tmp_path / "b", pace)
    run_at(tmp_path / "c", pace, error="Traceback ...\nValueError: no such thing\n")
    run_at(tmp_path / "d")
    running = run_at(tmp_path / "e", pace, error="an older failure")
    with locked(running.folder.path):
        assert main(["status", str(tmp_path)]) == 0
        # One second a step, forty steps left.
        assert "ETA 40 s, process" in status(running).note or "ETA 39 s, process" in status(running).note
    shown = capsys.readouterr().out
    for state in ("done", "running", "failed", "interrupted", "waiting"):
        assert f"1 {state}" in shown
    assert "ValueError: no such thing" in shown
    assert "100/100" in shown
    assert "60/100" in shown


def test_a_run_that_ended_early_has_the_steps_that_it_trained(tmp_path, capsys, run_at):
    run = run_at(tmp_path / "a", [{"step": 40, "time": 1.0}], metrics={"exact": 1.0})
    run.folder.trained.write_text(json.dumps({"step": 40, "seconds": 1.0, "stopped_early": True}))
    assert main(["status", str(tmp_path)]) == 0
    assert "40/100" in capsys.readouterr().out


def test_a_night_between_two_processes_is_no_part_of_the_pace(tmp_path):
    first = [{"step": 10 * k, "time": 1000.0 + 10 * k} for k in range(7)]
    night = 60_000.0
    second = [{"step": 60, "time": night, "began": True}, {"step": 70, "time": night + 10}]
    assert pace([*first, *second]) == 1.0
    assert pace(first[:1]) is None
    assert pace([]) is None


def test_an_error_is_shown_as_it_is(tmp_path, capsys, run_at):
    run_at(tmp_path / "[a]", error="Traceback\nFileNotFoundError: no picture at [/data/1.png] of [rank1]\n")
    assert main(["status", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "no picture at [/data/1.png] of [rank1]" in shown
    assert "[a]" in shown


def test_nothing_there_is_an_error(tmp_path):
    for words in ([str(tmp_path)], [str(tmp_path / "none")], [], ["a", "b"]):
        with pytest.raises(ConfigError):
            status_main(words)


def test_modules_in_the_working_folder_shadow_no_package(tmp_path):
    for name in ("data", "tasks", "conf", "experiments"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('shadows a package')")
    command = [sys.executable, "-m", "ntil.cli", "statu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, "ntil: no command 'statu'; did you mean 'status'?\n")
