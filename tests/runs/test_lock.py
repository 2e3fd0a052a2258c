"""A run folder has one owner at a time, and the lock ends with the last process that holds it."""

import fcntl
import os
import subprocess
import sys
import threading
import time

import pytest

from ntil.console import duration
from ntil.runs.lock import Busy, locked, owner


def test_one_owner_at_a_time(tmp_path):
    assert owner(tmp_path) is None
    with locked(tmp_path):
        held = owner(tmp_path)
        assert held is not None
        assert held.pid == os.getpid()
        assert abs(held.since - time.time()) < 5
        with pytest.raises(Busy, match=f"process {os.getpid()} on .* since 0 s"), locked(tmp_path):
            pass
        assert owner(tmp_path) is not None
    assert owner(tmp_path) is None
    with locked(tmp_path):
        pass


def test_a_look_at_the_owner_keeps_nobody_out(tmp_path):
    descriptor = os.open(tmp_path / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_SH)  # as `owner` does for a moment
    timer = threading.Timer(0.05, lambda: os.close(descriptor))
    timer.start()
    with locked(tmp_path):
        assert not timer.is_alive()


def test_a_child_that_inherits_the_lock_holds_it_on(tmp_path):
    with locked(tmp_path) as descriptor:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[descriptor])
    assert owner(tmp_path) is not None
    child.kill()
    child.wait()
    assert owner(tmp_path) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3599, "59 min"),
        (19_200, "5 h 20 min"),
        (183_600, "2 d 3 h"),
        (-3, "0 s"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
