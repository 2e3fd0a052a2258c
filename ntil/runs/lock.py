"""Lock of a run folder, which the kernel frees when its last holder ends, in whatever way.

`flock` on <run>/.lock, whose text names the owner and since when. The worker inherits the open file, so the lock lives
as long as either of the two does. Holds on one host, and between hosts on file systems that carry flock (NFS since
Linux 2.6.12, Lustre with -o flock).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ntil.console import duration

ATTEMPTS = 10


@dataclass(frozen=True)
class Owner:
    """Process that holds a lock."""

    host: str
    pid: int
    since: float  # seconds since the epoch

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {duration(time.time() - self.since)}"


class Busy(RuntimeError):
    """Another process holds the folder's lock."""

    def __init__(self, owner: Owner | None) -> None:
        super().__init__(str(owner) if owner else "somebody")
        self.owner = owner


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; yields the file descriptor that a child has to inherit to hold it too.

    Raises:
        Busy: another process holds it.
    """
    descriptor = os.open(_file(folder), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _acquired(descriptor):
            raise Busy(_read(folder))
        text = json.dumps(asdict(Owner(socket.gethostname(), os.getpid(), time.time())))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _acquired(descriptor: int) -> bool:
    """Whether the lock was free; `owner` holds it for a moment, so some are waited for."""
    for attempt in range(ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        if attempt < ATTEMPTS - 1:
            time.sleep(0.02)
    return False


def owner(folder: Path) -> Owner | None:
    """Current holder of the folder's lock, None if it is free."""
    if not _file(folder).exists():
        return None
    descriptor = os.open(_file(folder), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(folder) or Owner("?", 0, time.time())
    finally:
        os.close(descriptor)
    return None


def _file(folder: Path) -> Path:
    return folder / ".lock"


def _read(folder: Path) -> Owner | None:
    try:
        return Owner(**json.loads(_file(folder).read_text()))
    except (OSError, ValueError, TypeError):
        return None
