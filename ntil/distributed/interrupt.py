"""Ctrl-C and SIGTERM as a flag that long computations poll, so that they stop where nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntil.distributed.ranks import Ranks


class Interrupt:
    """Interrupt flag: after `install` the first signal sets `requested`, and another Ctrl-C raises at once.

    Another SIGTERM does not: where all processes of a job are signalled, a rank gets it from its launcher too.

    Args:
        file: creating it is a request too, for processes on other hosts, which can't send a signal.
    """

    EXIT_CODE = 130

    def __init__(self, file: Path | None = None) -> None:
        self._signalled, self._file = False, file

    def install(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        return self

    @property
    def requested(self) -> bool:
        return self._signalled or (self._file is not None and self._file.exists())

    def agreed(self, ranks: Ranks) -> bool:
        """Whether any rank was asked to end; all ranks must call it and get the same answer."""
        return ranks.any(self._signalled or (ranks.first and self.requested))

    def check(self, ranks: Ranks | None = None) -> None:
        """Raise if an interrupt was requested; with `ranks`, all of them must call it.

        Raises:
            KeyboardInterrupt: any rank got a signal, or the file exists.
        """
        if self.agreed(ranks) if ranks else self.requested:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signalled = True


def ignore_signals_in_data_worker() -> None:
    """Let this data worker end only by its trainer's SIGTERM or death, and by no other signal (Linux).

    Slurm and container runtimes signal every process of a job. The trainer saves first, and fails if a worker ends
    before that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not getppid(): under a fork server that is the server, whose death is all that torch watches.
    trainer = multiprocessing.parent_process()
    if trainer is None or not hasattr(signal, "sigtimedwait"):
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while trainer.is_alive():
            received = signal.sigtimedwait({signal.SIGTERM}, 5)
            if received is not None and received.si_pid == trainer.pid:
                break
        os._exit(0)

    Thread(target=wait, daemon=True, name="signals").start()
