"""A fresh start of this process in its own place: same process id, rank, lock and output, nothing else in memory.

Python alone can't give back what a training leaves behind. A launcher, whichever it is, sees one process throughout.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from ntil.distributed.interrupt import SIGNALS, Interrupt

if TYPE_CHECKING:
    from ntil.distributed.ranks import Ranks

DESCRIPTORS = Path("/dev/fd")


@dataclass(frozen=True)
class Beginning:
    """What this process began with: file descriptors, as that of a lock, and environment."""

    descriptors: frozenset[int]
    environment: Mapping[str, str]

    @classmethod
    def now(cls) -> Beginning:
        return cls(_open_descriptors(), dict(os.environ))

    def start_anew(self, interrupt: Interrupt, ranks: Ranks) -> NoReturn:
        """Run this process's command once more; all ranks must call it.

        The ranks meet at another port, since one of them may still listen at the old one when the first comes back.

        Raises:
            KeyboardInterrupt: an interrupt was requested on any rank.
        """
        from ntil.distributed.ports import free_port

        # A signal now ends the process, or waits until the new beginning listens; a flag would be lost with the memory.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        interrupt.check(ranks)
        environment = dict(self.environment)
        if ranks.count > 1:
            import torch.distributed as dist

            environment["MASTER_PORT"] = str(ranks.gather(free_port())[0])
            dist.destroy_process_group()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Libraries' sockets and a GPU's devices would stay open, and with them what they hold.
        for descriptor in _open_descriptors() - self.descriptors:
            os.set_inheritable(descriptor, False)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _open_descriptors() -> frozenset[int]:
    """File descriptors that this process has open; none where the system doesn't list them."""
    listed = [int(path.name) for path in DESCRIPTORS.iterdir()] if DESCRIPTORS.exists() else []
    return frozenset(number for number in listed if _is_open(number))  # that of the listing is closed by now


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True
