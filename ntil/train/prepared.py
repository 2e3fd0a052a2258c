"""A process that imports what a run needs, then forks one worker after the other: `python -m ntil.train.prepared <fd>`.

`ntil.launch.prepared` starts it and sends requests over the socket: the length of a JSON object with `folder` and
`environment`, file descriptors (stdout, stderr, and the folder's lock if there is one), and the object in pieces.
Replies are `begun <process id>` by the worker, then `ended <exit code>`. It ends with the socket.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from ntil.distributed.interrupt import SIGNALS, end_process
from ntil.distributed.launcher import LAUNCHER, look_here_last
from ntil.distributed.parent import end_with_parent
from ntil.runs.variables import remove_foreign_variables

MODULES = ("ntil.train.run", "ntil.train.evaluation", "ntil.train.worker")


def main(connection: socket.socket) -> None:
    """Serve requests until the other side closes the socket."""
    end_with_parent(int(os.environ[LAUNCHER]))
    if os.environ.get("NTIL_PACKAGES"):
        look_here_last()
    remove_foreign_variables()
    _import_all()
    if not _forks_can_compute():
        return  # each worker starts as a process of its own
    gc.collect()
    gc.freeze()  # so that no collection of a worker copies what it shares with this process
    connection.send(b"ready")
    while request := _receive(connection):
        _serve(connection, *request)


def _import_all() -> None:
    """Import what a run needs, without a look at a GPU that would keep forked processes from it."""
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    for name in MODULES:
        import_module(name)


def _forks_can_compute() -> bool:
    """Whether a fork of this process can use the device, tried by one."""
    import torch

    pid = os.fork()
    if not pid:
        code = 1
        try:
            if torch.accelerator.is_available():
                torch.ones(1, device=torch.accelerator.current_accelerator()).item()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A request and its file descriptors; None at the end."""
    length = connection.recv(64)
    if not length:
        return None
    _, descriptors, _, _ = socket.recv_fds(connection, 64, 3)
    request = bytearray()
    while len(request) < int(length):
        request += connection.recv(1 << 16)
    return json.loads(request), descriptors


def _serve(connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
    """Fork a worker, and tell when it has ended."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    parent = os.getpid()
    pid = os.fork()
    if not pid:
        os.setsid()
        connection.send(f"begun {os.getpid()}".encode())
        connection.close()
        _work(Path(request["folder"]), request["environment"], descriptors, parent)
    for descriptor in descriptors:
        os.close(descriptor)
    _, status = os.waitpid(pid, 0)
    connection.send(f"ended {os.waitstatus_to_exitcode(status)}".encode())


def _work(folder: Path, environment: dict[str, str], descriptors: list[int], parent: int) -> NoReturn:
    """Be the worker of `folder`, as `python -m ntil.train.worker` is."""
    from ntil.train.worker import main as run_worker

    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.environ[LAUNCHER] = str(parent)
    # What starts anew to evaluate, as a training on a GPU does, is a worker of its own then.
    sys.orig_argv = [sys.executable, "-m", "ntil.train.worker", str(folder)]
    for stream, descriptor in zip((1, 2), descriptors[:2], strict=True):
        os.dup2(descriptor, stream)
        os.close(descriptor)
    for lock in descriptors[2:]:
        os.set_inheritable(lock, True)
    end_process(run_worker(folder))


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
