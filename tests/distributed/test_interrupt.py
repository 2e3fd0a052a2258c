"""Which signals only ask, which end at once, and who may send them to a process that prepares batches."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
import pytest

from ntil.distributed.interrupt import SIGNALS, Interrupt, ignore_signals_in_data_worker


@pytest.fixture
def interrupt(tmp_path: Path) -> Iterator[Interrupt]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield Interrupt(tmp_path / "stop").install()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_sigterm_only_asks_however_often(interrupt: Interrupt) -> None:
    assert not interrupt.requested
    for _ in range(3):
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
    with pytest.raises(KeyboardInterrupt):
        interrupt.check()


def test_ctrl_c_asks_and_a_second_one_ends_at_once(interrupt: Interrupt) -> None:
    signal.raise_signal(signal.SIGINT)
    assert interrupt.requested
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_file_asks_too(interrupt: Interrupt, tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    assert interrupt.requested


def test_where_nothing_can_be_lost_the_first_signal_raises(interrupt: Interrupt) -> None:
    interrupt.raise_at_once()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)  # of the launcher, too; what ends meanwhile is not disturbed
    with pytest.raises(KeyboardInterrupt):
        interrupt.raise_at_once()


def test_from_the_first_step_on_it_only_asks(interrupt: Interrupt) -> None:
    interrupt.raise_at_once()
    interrupt.defer()
    signal.raise_signal(signal.SIGTERM)
    assert interrupt.requested


@pytest.mark.parametrize(("ends", "code"), [("raise_at_once", 130), ("defer", 0)])
def test_a_process_that_swallows_the_interrupt_is_ended_where_nothing_can_be_lost(ends: str, code: int) -> None:
    swallows = f"""
import os, signal, time
from ntil.distributed.interrupt import Interrupt
interrupt = Interrupt().install(at_once=True, deadline=0.2)
interrupt.{ends}()
try:
    os.kill(os.getpid(), signal.SIGTERM)
except KeyboardInterrupt:
    pass
time.sleep(1.5)
"""
    assert subprocess.run([sys.executable, "-c", swallows], timeout=60).returncode == code


def test_an_interrupt_within_code_that_is_made_as_text_has_the_exit_code_of_any(tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text("""
import signal, sys
from ntil.distributed.interrupt import Interrupt
interrupt = Interrupt().install(at_once=True)
try:
    exec("signal.raise_signal(signal.SIGTERM)")
except KeyboardInterrupt:
    sys.exit(130)
""")
    assert subprocess.run([sys.executable, "-m", "command"], cwd=tmp_path, timeout=60).returncode == 130


def test_commands_and_workers_listen_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys, ntil.cli, ntil.train.worker;"
        "print({'torch', 'hydra', 'transformers', 'yaml', 'omegaconf', 'numpy'} & {*sys.modules})"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def _prepare(here: Connection) -> None:
    ignore_signals_in_data_worker()
    here.send("ready")
    while True:
        here.send(here.recv())


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="the sender of a signal is known on Linux only")
@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.slow
def test_only_the_parents_sigterm_ends_a_data_worker(method: str) -> None:
    there, here = multiprocessing.Pipe()
    fork, forkserver = multiprocessing.get_context("fork"), multiprocessing.get_context("forkserver")
    worker = (fork if method == "fork" else forkserver).Process(target=_prepare, args=(here,), daemon=True)
    worker.start()
    assert worker.pid is not None
    assert there.poll(30)
    assert there.recv() == "ready"
    for name in ("TERM", "INT", "TERM"):
        subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
        time.sleep(0.1)
        there.send(name)
        assert there.poll(30)
        assert there.recv() == name
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0


def _have_one(here: Connection) -> None:
    worker = multiprocessing.get_context("forkserver").Process(target=_prepare, args=(here,), daemon=True)
    worker.start()
    here.send(worker.pid)
    time.sleep(600)


@pytest.mark.skipif(not hasattr(signal, "sigtimedwait"), reason="waiting for a signal with a timeout is Linux's")
@pytest.mark.slow
def test_a_data_worker_of_a_fork_server_ends_with_its_trainer() -> None:
    there, here = multiprocessing.Pipe()
    trainer = multiprocessing.get_context("spawn").Process(target=_have_one, args=(here,))
    trainer.start()
    assert there.poll(60)
    pid = next(found for found in (there.recv(), there.recv()) if found != "ready")
    trainer.kill()
    trainer.join()
    deadline = time.monotonic() + 30
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


# A library whose thread or static object aborts when the process ends: here as a C exit function.
ABORTS = """
import atexit, ctypes, signal, sys, threading, time
from ntil.distributed.interrupt import end_process

libc = ctypes.CDLL(None)
libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
atexit.register(print, "exit functions")
late = threading.Thread(target=lambda: (time.sleep(0.2), print("threads")))
late.start()
print("unflushed", end=" ")
"""


@pytest.mark.parametrize(("last", "code"), [("end_process(0)", 0), ("end_process(130)", 130)])
def test_an_end_is_not_spoiled_by_what_libraries_do_then(last: str, code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", f"{ABORTS}{last}"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (code, "unflushed threads\nexit functions\n"), ended.stderr
    # So would it without: the check can fail.
    spoiled = subprocess.run([sys.executable, "-c", f"{ABORTS}sys.exit(0)"], capture_output=True, text=True)
    assert spoiled.returncode == -signal.SIGABRT


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_after_the_work_changes_nothing(number: signal.Signals) -> None:
    """Also one that reaches another thread than the main one, while exit functions run."""
    script = (
        "import atexit, os, signal, threading, time\n"
        "from ntil.distributed.interrupt import Interrupt, end_process\n"
        "Interrupt().install(at_once=True)\n"
        "threading.Thread(target=time.sleep, args=[60], daemon=True).start()\n"
        f"atexit.register(lambda: (os.kill(os.getpid(), {int(number)}), time.sleep(0.3)))\n"
        "end_process(0)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
