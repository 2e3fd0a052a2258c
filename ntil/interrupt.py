"""Ctrl-C and SIGTERM as a wish that long work asks for, so that it can end where nothing is lost."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ntil.ranks import Ranks


class Interrupt:
    """After `install`, the first signal sets `requested`, the second raises at once.

    Args:
        file: whoever can't send a signal (from another host) may create this file instead.
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
        """Whether any rank was asked to end; all ranks get the same answer at the same place."""
        return ranks.any(self._signalled or (ranks.first and self.requested))

    def check(self, ranks: Ranks | None = None) -> None:
        """
        Raises:
            KeyboardInterrupt: a signal has come, to any of the ranks.
        """
        if self.agreed(ranks) if ranks else self.requested:
            raise KeyboardInterrupt

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True
