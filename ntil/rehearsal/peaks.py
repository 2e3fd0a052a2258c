"""Peak memory of this process between two moments: of CUDA's allocator, and resident on the host.

On Linux the kernel's own peak (VmHWM) is reset by writing 5 to /proc/self/clear_refs (proc(5)); elsewhere the peak is
that of the whole process so far.
"""

from __future__ import annotations

import resource
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from ntil.train.throughput import MAXRSS_UNIT


@dataclass(frozen=True)
class Peak:
    """Peak memory in bytes. gpu, reserved: of tensors, and held by CUDA's allocator; None without a GPU."""

    host: int
    gpu: int | None = None
    reserved: int | None = None


def reset_peak() -> None:
    """Begin a new measurement."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> Peak:
    """The peak since `reset_peak`."""
    host = _resident_peak()
    if not torch.cuda.is_available():
        return Peak(host)
    return Peak(host, torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())


def _resident_peak() -> int:
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS_UNIT
