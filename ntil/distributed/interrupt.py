"""Ctrl-C and SIGTERM: raised at once while nothing can be lost, else a flag that long computations poll.

Imports the standard library alone, so that a process listens from its first instruction.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread, Timer
from types import FrameType
from typing import Any, NoReturn, Protocol

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ranks(Protocol):
    """What an interrupt needs of `ntil.distributed.ranks.Ranks`, which imports torch."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that a launcher's or a user's wish reaches."""

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank; all must call it."""


class Interrupted(KeyboardInterrupt):
    """An interrupt that was heard.

    A KeyboardInterrupt itself that passes an `exec` of a text, as in `dataclass` and `namedtuple`, has CPython (3.11 to
    3.13) end the process by SIGINT in the end, whatever its exit code.
    """


class Interrupt:
    """Interrupt flag: after `install` the first signal sets `requested`, and another Ctrl-C raises at once.

    Another SIGTERM does not: where all processes of a job are signalled, a rank gets it from its launcher too.

    Args:
        file: creating it is a request too, for processes on other hosts, which can't send a signal.
    """

    EXIT_CODE = 130

    def __init__(self, file: Path | None = None) -> None:
        self._signalled, self._file = False, file
        self._at_once = False
        self._last_words: str | None = None
        self._before: dict[int, Any] = {}

    def install(self, at_once: bool = False, deadline: float | None = None, last_words: str | None = None) -> Interrupt:
        """Listen, also where the process that started this one has blocked the signals.

        Args:
            at_once: the first signal raises, too, until `defer`.
            deadline: seconds after which the process ends by force if it must end at once and is still there: blocked
                in a library that never comes back to Python, or in one that swallows the exception.
            last_words: until `raise_at_once` or `defer` the first signal writes them to stderr and ends the process. An
                exception that passes through C++, as torch's does while it is imported, would abort it.

        Raises:
            KeyboardInterrupt: a signal was waiting, and `at_once` is set.
        """
        self._at_once, self._last_words = at_once, last_words
        if deadline is not None:
            self._watch(deadline)
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return self

    def uninstall(self) -> None:
        """Restore the handlers that `install` has replaced."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def defer(self) -> None:
        """From here on the first signal sets the flag alone, since work can be lost."""
        self._at_once, self._last_words = False, None

    def raise_at_once(self) -> None:
        """From here on the first signal raises, since nothing can be lost.

        Raises:
            KeyboardInterrupt: an interrupt was requested before.
        """
        self._at_once, self._last_words = True, None
        self.check()

    @property
    def at_once(self) -> bool:
        """Whether the first signal raises, since nothing can be lost."""
        return self._at_once

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
            raise Interrupted

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._last_words is not None:
            os.write(2, self._last_words.encode())
            os._exit(self.EXIT_CODE)
        again, self._signalled = self._signalled, True
        if number == signal.SIGINT if again else self._at_once:
            raise Interrupted

    def _watch(self, deadline: float) -> None:
        """Start a thread that sees signals also while the main thread, where Python handles them, is in a C call."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def wait() -> None:
            while os.read(reader, 1)[0] not in SIGNALS:
                pass
            ends = time.monotonic() + deadline
            while time.monotonic() < ends:
                time.sleep(0.1)
            # Another handler, as that of a launcher that waits for its workers, has a deadline of its own.
            if self._at_once and signal.getsignal(signal.SIGTERM) == self._on_signal:
                os._exit(self.EXIT_CODE)

        Thread(target=wait, daemon=True, name="interrupts").start()


def end_process(code: int, seconds: float = 120.0) -> NoReturn:
    """End this process with `code`, whatever signals come: what it was to do is done.

    Python's own end is left out after its exit functions: it restores the default handlers, so that a SIGTERM turns
    success into a death by a signal; and a thread of a library that asks for the interpreter then, as gloo's, aborts.

    Args:
        seconds: what libraries get at the end, as a tracker that can't reach its server, before it is forced.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _exit_codes.append(code)
    limit = Timer(seconds, os._exit, [code])
    limit.daemon = True
    limit.start()
    sys.exit(code)


_exit_codes: list[int] = []


def _leave() -> None:
    if _exit_codes:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # nobody reads it any more, or it is closed
                stream.flush()
        os._exit(_exit_codes[-1])


# Exit functions run in reverse order: this one, registered before any library's, is the last.
atexit.register(_leave)


def ignore_signals_in_data_worker() -> None:
    """Let this data worker end only by its trainer's SIGTERM or death, and by no other signal (Linux).

    Slurm and container runtimes signal every process of a job. The trainer saves first, and fails if a worker ends
    before that.
    """
    import multiprocessing

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
