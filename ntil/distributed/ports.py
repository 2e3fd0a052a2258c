"""A free port for the ranks of a run to meet at."""

from __future__ import annotations

import contextlib
import random
import socket

from ntil.config.errors import ConfigError


def free_port() -> int:
    """A port that nobody listens on, below those that systems hand out by themselves (Linux: from 32768).

    Seconds pass until rank 0 listens on it, and one of those would be taken by then where many processes are busy.

    Raises:
        ConfigError: none of a hundred is free.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_768), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ConfigError("of 100 ports between 20000 and 32767 on 127.0.0.1 none is free; end what holds them")
