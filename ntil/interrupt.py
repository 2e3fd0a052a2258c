"""Ctrl-C and SIGTERM as a wish that long work asks for, so that it can end where nothing is lost."""

from __future__ import annotations

import signal
from types import FrameType


class Interrupt:
    """After `install`, the first signal sets `requested`, the second raises at once."""

    EXIT_CODE = 130

    def __init__(self) -> None:
        self.requested = False

    def install(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        return self

    def check(self) -> None:
        """
        Raises:
            KeyboardInterrupt: a signal has come.
        """
        if self.requested:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
