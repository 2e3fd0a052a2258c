"""Starting ranks, ending them, and telling why one of them failed: with workers that only play the part."""

import os
import signal
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import yaml

from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import run_path
from ntil.distributed.interrupt import Interrupt
from ntil.launch import processes
from ntil.launch.sweep import Sweep, edited
from ntil.runs.folder import RunFolder

HEAD = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from ntil.runs.folder import RunFolder
rank, run = int(os.environ["RANK"]), RunFolder({folder!r})
(run.path / f"pid{{rank}}").write_text(str(os.getpid()))
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Runs two ranks of the given script; returns the run and what `spawn` returned."""

    def act(script: str):
        config = compose([f"runs={tmp_path}", "engine.processes=2", "engine.device=cpu"])
        run = RunFolder(run_path(config))
        run.freeze(config)
        root = str(Path(processes.__file__).parents[2])
        text = HEAD.format(root=root, folder=str(run.path)) + textwrap.dedent(script)
        monkeypatch.setattr(processes, "_worker", lambda folder, module: [sys.executable, "-c", text])
        return run, processes.spawn(run, config)

    return act


def alive(run: RunFolder, rank: int) -> bool:
    try:
        os.kill(int((run.path / f"pid{rank}").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_a_rank_that_fails_takes_the_others_with_it_and_its_words_are_kept(play):
    run, code = play("""
        if rank == 1:
            while not (run.path / "pid0").exists(): time.sleep(0.01)
            run.fail("Traceback\\nValueError: row 7 is broken")
            sys.exit(3)
        time.sleep(600)
    """)
    assert code == 3
    assert run.last_error() == "ValueError: row 7 is broken"
    assert not alive(run, 0)


def interrupted(run: RunFolder, number: int = signal.SIGTERM) -> None:
    """Send this process a signal once both ranks play."""

    def send() -> None:
        while not all((run.path / f"pid{rank}").exists() for rank in (0, 1)):
            time.sleep(0.01)
        time.sleep(0.3)
        os.kill(os.getpid(), number)

    threading.Thread(target=send).start()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_failure_to_save_is_said_when_a_run_is_interrupted(play, tmp_path, number):
    run = RunFolder(run_path(compose([f"runs={tmp_path}", "engine.processes=2", "engine.device=cpu"])))
    interrupted(run, number)
    run, code = play("""
        def end(*_):
            if rank == 0:
                run.fail("OSError: No space left on device")
                sys.exit(1)
            sys.exit(130)
        signal.signal(signal.SIGTERM, end)
        time.sleep(600)
    """)
    assert code == Interrupt.EXIT_CODE
    assert run.last_error() == "OSError: No space left on device"
    run.error.unlink()
    for rank in (0, 1):
        (run.path / f"pid{rank}").unlink()
    interrupted(run)
    run, code = play("""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
        time.sleep(600)
    """)
    assert (code, run.error.exists()) == (Interrupt.EXIT_CODE, False)


def test_a_killed_rank_is_the_cause_and_not_what_the_others_said_of_it(play):
    run, code = play("""
        if rank == 1:
            while not (run.path / "pid0").exists(): time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        while not (run.path / "pid1").exists(): time.sleep(0.01)
        while os.path.exists(f"/proc/{(run.path / 'pid1').read_text()}/fd/0"): time.sleep(0.001)
        run.fail("RuntimeError: connection closed by peer")
        sys.exit(1)
    """)
    assert code == -signal.SIGKILL
    assert "rank 1 of 2: killed by signal SIGKILL" in run.last_error()


def test_a_worker_that_ends_without_a_word_is_a_failure(play):
    run, code = play("sys.exit(5 * rank)")
    assert code == 5
    assert "exit code 5" in run.last_error()
    run, code = play("sys.exit(0)")
    assert "said nothing" in run.last_error()


WAITS = """
    def end(number, frame):
        (run.path / f"got{rank}").write_text(str(number))
        sys.exit(130)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    (run.path / f"ready{rank}").touch()
    time.sleep(600)
"""


def send_when_ready(place, number):
    def wait():
        while len(list(place.glob("**/ready*"))) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    threading.Thread(target=wait, daemon=True).start()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_reaches_every_rank_once(play, tmp_path, number):
    send_when_ready(tmp_path, number)
    run, code = play(WAITS)
    assert code == Interrupt.EXIT_CODE
    assert [(run.path / f"got{rank}").read_text() for rank in (0, 1)] == [str(int(number))] * 2
    assert not run.error.exists()


def test_a_cluster_that_warns_gets_its_own_handler_called_once_all_is_saved(play, tmp_path):
    called = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: called.append(list(tmp_path.glob("**/got*"))))
    try:
        send_when_ready(tmp_path, signal.SIGUSR2)
        run, code = play(WAITS)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert code == Interrupt.EXIT_CODE
    assert [len(got) for got in called] == [2]
    assert (run.path / "got0").read_text() == str(int(signal.SIGTERM))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_rank_that_a_signal_ends_before_it_listens_is_no_failure(play, number):
    reset = f"signal.signal({int(number)}, signal.SIG_DFL)"  # nohup has it ignored
    run, code = play(f"{reset}; os.kill(os.getpid(), {int(number)}); time.sleep(600)")
    assert code == Interrupt.EXIT_CODE
    assert not run.error.exists()


def test_what_a_rank_says_of_a_peer_that_was_interrupted_is_no_failure(play):
    run, code = play("""
        if rank == 0:
            sys.exit(130)
        time.sleep(1)
        run.fail("RuntimeError: connection closed by peer")
        sys.exit(1)
    """)
    assert code == Interrupt.EXIT_CODE
    assert not run.error.exists()


def test_a_signal_before_the_ranks_are_there_reaches_them(play, monkeypatch):
    start = processes._start

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return start(*arguments)

    monkeypatch.setattr(processes, "_start", signalled)
    run, code = play("time.sleep(600)")
    assert code == Interrupt.EXIT_CODE
    assert not run.error.exists()


def test_ranks_that_do_not_heed_a_signal_are_ended(play, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "_SAVING", 0.3)
    send_when_ready(tmp_path, signal.SIGTERM)
    run, code = play("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (run.path / f"ready{rank}").touch()
        time.sleep(600)
    """)
    assert code == Interrupt.EXIT_CODE
    assert not alive(run, 0)
    assert "did not end within 0.3 s" in capsys.readouterr().err


def test_ranks_import_nothing_from_the_working_folder(play, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.py").write_text("raise RuntimeError('shadows a package')")
    run, _ = play("import data; (run.path / 'imported').write_text(str(data.__path__))")
    assert (run.path / "imported").exists()


def test_ranks_get_the_environment_of_torchrun(play, tmp_path):
    run, _ = play("""
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        (run.path / f"env{rank}").write_text(" ".join(os.environ[n] for n in names))
    """)
    zero, one = ((run.path / f"env{rank}").read_text().split() for rank in (0, 1))
    assert zero[:4] == ["0", "0", "2", "127.0.0.1"]
    assert one == ["1", "1", *zero[2:]]


def test_the_command_for_several_hosts(tmp_path):
    file = tmp_path / "hosts"
    file.write_text("node1 slots=8\nnode2 slots=8\n")
    command = processes.hosts_command(tmp_path / "run", file)
    assert command[1:3] == ["-m", "deepspeed.launcher.runner"]
    assert command[-2:] == ["ntil.train.worker", str(tmp_path / "run")]
    assert {"--no_local_rank", "--module"} < set(command)
    assert command[command.index("--hostfile") + 1] == str(file)


def test_jobs_of_other_processes_report_to_the_sweep_they_came_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = Sweep()
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)
    sweep._note(tmp_path / "a")
    sweep._note(tmp_path / "b", "ValueError: no")
    assert (sweep.done, sweep.failed) == ([], [])
    monkeypatch.setattr(os, "getpid", lambda: pid)
    sweep.collect()
    assert sweep.done == [tmp_path / "a"]
    assert sweep.failed == [(tmp_path / "b", "ValueError: no")]
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_done_names_the_data_that_was_written_since(tmp_path, capsys):
    train, test = tmp_path / "train.jsonl", tmp_path / "part-0.jsonl"
    for file in (train, test):
        file.write_text("{}")
        os.utime(file, (1, 1))
    words = [
        "task=jsonl",
        f"task.source.train={train}",
        f"task.source.test={tmp_path}/part-*.jsonl",
        "model=llama3_nano",
    ]
    config = compose([f"runs={tmp_path}/runs", *words])
    run = RunFolder(run_path(config))
    run.freeze(config)
    run.metrics.write_text("{}")
    sweep = Sweep()
    sweep.run(config)
    assert capsys.readouterr().out == f"{run.path}: done before, skipped\n"
    later = run.metrics.stat().st_mtime + 1
    os.utime(test, (later, later))
    sweep.run(config)
    said = f"{run.path}: done before, skipped; {test} changed since: remove the folder to run it again\n"
    assert capsys.readouterr().out == said
    assert sweep.done == [run.path, run.path]


@pytest.mark.parametrize("mark", ["metrics", "trained"])
@pytest.mark.parametrize("key", ["loss", "task.source"])
def test_another_class_under_the_same_name_is_another_run(tmp_path, monkeypatch, mark, key):
    config = compose([f"runs={tmp_path}/runs", "model=llama3_nano", "task=arithmetic"])
    run = RunFolder(run_path(config))
    run.freeze(config)
    frozen = yaml.safe_load(run.config_file.read_text())
    component = frozen["loss"] if key == "loss" else frozen["task"]["source"]
    module, _, name = component["target"].partition(":")
    component["target"] = f"{module}:Another"
    run.config_file.write_text(yaml.safe_dump(frozen))
    getattr(run, mark).write_text("{}")
    spawn = Mock(return_value=0)
    monkeypatch.setattr("ntil.launch.sweep.spawn", spawn)
    with pytest.raises(ConfigError, match=f"{key}.target was the class Another and is {name}"):
        Sweep().run(config)
    assert "Another" in run.config_file.read_text()
    Sweep().run(replace(config, accept_changes=True))
    component["target"] = f"elsewhere.{module}:{name}"  # a class that has moved
    run.config_file.write_text(yaml.safe_dump(frozen))
    Sweep().run(config)
    assert spawn.call_count == 2 * (mark == "trained")


@pytest.mark.parametrize("keeping", ["", "run", "command"])
def test_what_a_kill_in_the_clean_up_left_is_removed_by_the_next_call(tmp_path, keeping):
    config = compose([f"runs={tmp_path}/runs", "model=llama3_nano", "task=arithmetic"])
    keeps = replace(config, keep_checkpoints_when_done=True)
    run = RunFolder(run_path(config))
    run.freeze(keeps if keeping == "run" else config)
    run.metrics.write_text("{}")
    for left in (run.best, run.checkpoints / "checkpoint-4"):
        left.mkdir(parents=True)
    Sweep().run(keeps if keeping == "command" else config)
    assert not run.best.exists()
    assert run.checkpoints.exists() == bool(keeping)


def test_what_failed_before_anything_was_trained_may_take_another_class(tmp_path, monkeypatch):
    config = compose([f"runs={tmp_path}/runs", "model=llama3_nano", "task=arithmetic"])
    run = RunFolder(run_path(config))
    run.freeze(replace(config, loss=replace(config.loss, target="ntil.losses.base:Another")))
    monkeypatch.setattr("ntil.launch.sweep.spawn", lambda *arguments, **options: 0)
    Sweep().run(config)
    assert "Another" not in run.config_file.read_text()


@pytest.mark.parametrize("value", ["", "/", "~nobody-of-that-name/x", "x" * 5000, "a\0b", None, 3, ["*", "**"]])
def test_values_that_are_no_path_are_passed_over(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("of no concern")
    assert edited({"key": value}, 0.0) == []
