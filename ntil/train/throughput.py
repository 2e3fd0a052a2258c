"""Throughput per logging window, without validation, and peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes elsewhere


class Throughput:
    """Counts of samples and tokens that were loaded between two calls of `take`."""

    def __init__(self) -> None:
        self._samples = self._tokens = 0
        self._since = time.perf_counter()

    def add(self, samples: int, tokens: int) -> None:
        self._samples += samples
        self._tokens += tokens

    @contextmanager
    def pause(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - begun

    def take(self, ranks: int) -> dict[str, float]:
        """Rates over all ranks (assumed as fast as this one), and this rank's peak memory; starts a new window."""
        now = time.perf_counter()
        seconds = max(now - self._since, 1e-9)
        rates = {
            "samples_per_s": ranks * self._samples / seconds,
            "tokens_per_s": ranks * self._tokens / seconds,
            "memory_gib": peak_memory() / 2**30,
        }
        self._samples = self._tokens = 0
        self._since = now
        return rates


def peak_memory() -> int:
    """Peak memory in bytes since the start: of CUDA's allocator where there is a GPU, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
