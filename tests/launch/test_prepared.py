"""Workers forked from a prepared process: exit codes, output, lock, ends of either side, and runs like all others."""

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from ntil.cli import main
from ntil.launch import prepared
from ntil.launch.prepared import Prepared
from ntil.runs.folder import find_runs
from ntil.runs.lock import Busy, locked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
ROOT = Path(prepared.__file__).parents[2]
# A prepared process that imports nothing, and whose worker runs the script of its folder.
STUB = """
import socket, sys
import ntil.train.prepared as prepared, ntil.train.worker as worker
prepared.MODULES = ()
worker.main = lambda folder: exec((folder / "script.py").read_text(), {"folder": folder}) or 0
prepared.main(socket.socket(fileno=int(sys.argv[1])))
"""


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Starts a worker of the given script; the fixture's `prepared` is the process it is forked from."""
    (tmp_path / "stub.py").write_text(STUB)
    monkeypatch.setattr(prepared, "MODULE", "stub")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    origin = Prepared()

    def start(script, lock=None, **variables):
        (tmp_path / "script.py").write_text("import os, signal, sys, time\n" + textwrap.dedent(script))
        return origin.start(tmp_path, {**environment, **variables}, lock)

    start.prepared = origin  # type: ignore[attr-defined]
    yield start
    origin.close()


def test_what_a_worker_starts_anew_is_a_worker_of_its_folder(play, tmp_path, capfd):
    assert play("print(sys.orig_argv)").wait() == 0
    assert capfd.readouterr().out.strip() == str([sys.executable, "-m", "ntil.train.worker", str(tmp_path)])


def test_nothing_is_forked_where_a_fork_cannot_compute(tmp_path, monkeypatch):
    refusing = "import torch\ntorch.accelerator.is_available = lambda: 1 / 0\nprepared.main("
    (tmp_path / "stub.py").write_text(STUB.replace("prepared.main(", refusing))
    monkeypatch.setattr(prepared, "MODULE", "stub")
    origin = Prepared()
    assert origin.start(tmp_path, {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}, None) is None
    origin.close()


def test_workers_end_as_processes_of_their_own_do(play, tmp_path, capfd):
    assert play("print('heard', os.environ['WORD'])", WORD="one").wait() == 0
    assert play("sys.exit(3)").wait() == 3
    assert play("os.kill(os.getpid(), signal.SIGKILL)").wait() == -signal.SIGKILL
    assert play("raise ValueError('row 7 is broken')").wait() == 1
    assert play("print('heard', os.environ.get('WORD'))").wait() == 0
    out, err = capfd.readouterr()
    assert out.splitlines() == ["heard one", "heard None"]
    assert "ValueError: row 7 is broken" in err


def test_they_are_of_one_process_and_in_sessions_of_their_own(play, tmp_path):
    report = "(folder / 'ids').open('a').write(f'{os.getpid()} {os.getppid()} {os.getsid(0)}\\n')"
    pids = []
    for _ in range(2):
        worker = play(report)
        assert worker.wait() == 0
        pids.append(worker.pid)
    ids = [[int(word) for word in line.split()] for line in (tmp_path / "ids").read_text().splitlines()]
    assert [pid for pid, _, _ in ids] == [session for _, _, session in ids] == pids
    assert ids[0][1] == ids[1][1] != os.getpid()


def test_a_signal_reaches_a_worker_and_a_lock_is_held_as_long_as_it_lives(play, tmp_path):
    with locked(tmp_path) as lock:
        worker = play("time.sleep(600)", lock)
        assert worker.poll() is None
    with pytest.raises(Busy), locked(tmp_path):
        pass
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM
    assert worker.poll() == -signal.SIGTERM
    with locked(tmp_path):
        pass


@pytest.mark.slow
def test_code_that_was_edited_since_is_imported_anew(play, tmp_path, monkeypatch):
    report = "(folder / 'parents').open('a').write(f'{os.getppid()}\\n')"
    assert play(report).wait() == 0
    assert play(report).wait() == 0
    monkeypatch.setattr(prepared, "_last_written", lambda: time.time() + 1)
    assert play(report).wait() == 0
    one, same, other = (tmp_path / "parents").read_text().split()
    assert one == same != other


def test_a_lost_process_fails_its_worker_alone(play):
    worker = play("time.sleep(600)")
    parent = int(Path(f"/proc/{worker.pid}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(parent, signal.SIGKILL)
    assert worker.wait() == 1
    assert play("sys.exit(4)").wait() == 4


@pytest.mark.slow
def test_where_it_does_not_begin_workers_start_as_before(play, monkeypatch):
    monkeypatch.setattr(prepared, "MODULE", "no_such_module")
    assert play("sys.exit(0)") is None
    monkeypatch.setattr(prepared, "MODULE", "stub")
    assert play("sys.exit(0)") is None  # it isn't tried at each run


def test_a_sweep_may_be_sent_to_another_process(play):
    assert play("pass").wait() == 0
    assert isinstance(pickle.loads(pickle.dumps(play.prepared)), Prepared)


@pytest.mark.slow
def test_a_worker_is_asked_to_end_when_the_sweep_is_killed(tmp_path):
    (tmp_path / "stub.py").write_text(STUB)
    (tmp_path / "script.py").write_text(
        "import signal, time\n"
        "def end(*_):\n"
        "    (folder / 'saved').touch()\n"
        "    raise SystemExit(130)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "from ntil.distributed.launcher import LAUNCHER\n"
        "from ntil.distributed.parent import end_with_parent\n"
        "import os\n"
        "end_with_parent(int(os.environ[LAUNCHER]))\n"
        "(folder / 'begun').touch()\n"
        "time.sleep(600)\n"
    )
    sweep = (
        "import os, sys; from pathlib import Path; from ntil.launch import prepared; prepared.MODULE = 'stub'; "
        "prepared.Prepared().start(Path(sys.argv[1]), dict(os.environ), None).wait()"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    process = subprocess.Popen([sys.executable, "-c", sweep, str(tmp_path)], env=environment)
    _wait_for(tmp_path / "begun")
    process.kill()
    process.wait()
    _wait_for(tmp_path / "saved")


def _wait_for(file, seconds=60):
    end = time.monotonic() + seconds
    while not file.exists():
        assert time.monotonic() < end, f"{file} isn't there after {seconds} s"
        time.sleep(0.02)


@pytest.mark.slow
def test_forked_runs_are_those_of_processes_of_their_own(tmp_path, capfd, monkeypatch):
    """The second run of a sweep is forked; alone it is not."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    words = [
        *("model=qwen25_nano", "task=arithmetic", "loss=ntil", "engine=local", "engine.threads=1", "tracker=none"),
        *("engine.workers=0", "evaluation.every_steps=0", "optim.steps=5", "optim.warmup=0", "optim.batch_size=8"),
        "task.source.rows={train:64,validation:6,test:16}",
    ]
    assert main(["train", "-m", *words, "seed=0,1", f"runs={tmp_path}/sweep"]) == 0
    assert main(["train", *words, "seed=1", f"runs={tmp_path}/alone"]) == 0
    of_seed = {run.path.name.partition("-")[0]: run for run in find_runs(f"{tmp_path}/sweep")}
    (alone,) = find_runs(f"{tmp_path}/alone")
    forked = of_seed["seed1"]
    assert forked.read_metrics().items() - {("train_seconds", forked.read_metrics()["train_seconds"])} == (
        alone.read_metrics().items() - {("train_seconds", alone.read_metrics()["train_seconds"])}
    )
    assert forked.predictions.read_text() == alone.predictions.read_text()
    assert (forked.model / "model.safetensors").read_bytes() == (alone.model / "model.safetensors").read_bytes()
    environments = [json.loads(run.environment.read_text()) for run in (forked, alone)]
    assert environments[0] == environments[1]


RENEWING = """
import socket, sys
import ntil.train.prepared as prepared, ntil.train.run as run
run._test_needs_fresh_process = lambda ranks: print("anew", flush=True) or True
prepared.main(socket.socket(fileno=int(sys.argv[1])))
"""


@pytest.mark.slow
def test_a_forked_run_that_starts_anew_to_evaluate_goes_on(tmp_path, capfd, monkeypatch):
    """As on a GPU, where the memory of a training goes back in no other way."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "renewing.py").write_text(RENEWING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    monkeypatch.setattr(prepared, "MODULE", "renewing")
    words = [
        *("model=qwen25_nano", "task=arithmetic", "loss=ce", "engine=local", "engine.threads=1", "tracker=none"),
        *("engine.workers=0", "evaluation.every_steps=0", "optim.steps=2", "optim.warmup=0", "optim.batch_size=8"),
        "task.source.rows={train:64,validation:6,test:16}",
    ]
    assert main(["train", "-m", *words, "seed=0,1", f"runs={tmp_path}/sweep"]) == 0
    runs = find_runs(f"{tmp_path}/sweep")
    assert len(runs) == 2
    assert all(run.done for run in runs)
    assert capfd.readouterr().out.count("anew") == 1  # the sweep's first run isn't forked
