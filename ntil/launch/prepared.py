"""Workers forked from a process that has imported what a run needs: a sweep's runs start without seconds of imports.

For runs of one rank; imports are a fifth of a run of nano size. A CUDA context doesn't outlive a fork, so the process
that workers are forked from never makes one. `ntil.train.prepared` is the other side.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import ntil
from ntil.distributed.launcher import LAUNCHER

MODULE = "ntil.train.prepared"
_PACKAGES = Path(ntil.__file__).parent.parent
_LOST = 1  # exit code of a worker whose end nobody has seen


class PreparedWorker:
    """A forked worker, with as much of `subprocess.Popen` as who waits for one needs."""

    def __init__(self, pid: int, connection: socket.socket) -> None:
        self.pid = pid
        self._connection = connection
        self._code: int | None = None

    def poll(self) -> int | None:
        """The exit code, negative of a signal; None while it runs."""
        if self._code is None:
            with contextlib.suppress(BlockingIOError):
                self._code = _code(self._connection.recv(64, socket.MSG_DONTWAIT))
        return self._code

    def wait(self) -> int:
        """The exit code, once it has ended."""
        if self._code is None:
            self._code = _code(self._connection.recv(64))
        return self._code

    def send_signal(self, number: int) -> None:
        """Signal it, if it is still there."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Prepared:
    """The process that workers are forked from; begun with the first of them, and anew when source files changed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._written = 0.0
        self._usable = hasattr(os, "fork") and sys.platform.startswith("linux")

    def start(self, folder: Path, environment: Mapping[str, str], lock: int | None) -> PreparedWorker | None:
        """A worker of `folder`, in a session of its own, which holds the lock; None where it can't be forked."""
        if not self._usable:
            return None
        written = _last_written()
        if self._connection is not None and (written != self._written or not self._alive()):
            self.close()
        pid = self._fork(folder, environment, lock)
        if pid is None:  # none was begun, or it has ended since, which may show in the fork alone
            self.close()
            self._begin(environment, written)
            pid = self._fork(folder, environment, lock)
        if pid is None or self._connection is None:
            self.close()
            self._usable = False
            return None
        return PreparedWorker(pid, self._connection)

    # A sweep that a launcher sends to another process begins its own there.
    def __reduce__(self) -> tuple[type[Prepared], tuple[()]]:
        return Prepared, ()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a worker of it that still runs is asked to save and end."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.wait()
        self._connection = self._process = None

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _begin(self, environment: Mapping[str, str], written: float) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", MODULE, str(theirs.fileno())],
                env={**environment, LAUNCHER: str(os.getpid())},
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )
        self._connection, self._written = ours, written
        if ours.recv(64) != b"ready":  # a fork of it can't use the GPU, or it ended
            self.close()

    def _fork(self, folder: Path, environment: Mapping[str, str], lock: int | None) -> int | None:
        """The worker's process; None where there is nothing to fork it from."""
        if self._connection is None:
            return None
        request = json.dumps({"folder": str(folder), "environment": dict(environment)}).encode()
        streams = [1, 2]  # of this moment, since they may have been redirected since the process began
        try:
            self._connection.send(str(len(request)).encode())
            socket.send_fds(self._connection, [b"files"], [*streams, *([lock] if lock else [])])
            for begin in range(0, len(request), _PIECE):
                self._connection.send(request[begin : begin + _PIECE])
            kind, _, number = self._connection.recv(64).decode().partition(" ")
        except OSError:
            return None
        return int(number) if kind == "begun" else None


_PIECE = 32_768  # bytes that one packet takes in any case


def _code(reply: bytes) -> int:
    kind, _, number = reply.decode().partition(" ")
    return int(number) if kind == "ended" else _LOST


def _last_written() -> float:
    """When a source file of this project was last written."""
    files = (file for name in ("ntil", "tasks", "data") for file in (_PACKAGES / name).rglob("*.py"))
    return max((file.stat().st_mtime for file in files), default=0.0)
