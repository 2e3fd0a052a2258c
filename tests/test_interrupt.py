"""Which signals only ask, which end at once, and who may send them to a process that prepares batches."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from ntil.interrupt import Interrupt, heed_parent_only


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


def _prepare(here: Connection) -> None:
    heed_parent_only()
    here.send("ready")
    while True:
        here.send(here.recv())


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the sender of a signal is known on Linux only")
def test_only_the_parents_sigterm_ends_a_data_worker() -> None:
    there, here = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_prepare, args=(here,), daemon=True)
    worker.start()
    assert worker.pid is not None and there.poll(30) and there.recv() == "ready"
    for name in ("TERM", "INT", "TERM"):
        subprocess.run(["sh", "-c", f"kill -{name} {worker.pid}"], check=True)
        time.sleep(0.1)
        there.send(name)
        assert there.poll(30) and there.recv() == name
    worker.terminate()
    worker.join(30)
    assert worker.exitcode == 0
