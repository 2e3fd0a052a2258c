"""Rank of this process among those of its run, and the collective operations between them.

These use a gloo group on the CPU, so that none synchronises with a GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.distributed as dist

from ntil.config.schema import EngineConfig


def ranks_on_this_host(engine: EngineConfig) -> int:
    """Ranks that a run has on this host: `engine.processes`, or one per GPU where that is null."""
    if engine.processes is not None:
        return engine.processes
    return 1 if engine.device == "cpu" else max(1, torch.cuda.device_count())


@dataclass(frozen=True)
class Ranks:
    """Rank `index` of `count`. With one rank nothing is sent; with more, all of them must call every method."""

    index: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """Read RANK and WORLD_SIZE, which torchrun, DeepSpeed's launcher and `ntil train` set."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def first(self) -> bool:
        return self.index == 0

    def gather(self, part: Any) -> list[Any]:
        """Every rank's `part`, in the order of the ranks."""
        if self.count == 1:
            return [part]
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, part, group=_cpu_group())
        return parts

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.count == 1:
            return flag
        buffer = torch.tensor([int(flag)])
        dist.all_reduce(buffer, dist.ReduceOp.MAX, group=_cpu_group())
        return bool(buffer.item())

    def barrier(self) -> None:
        self.any(False)


@cache
def _cpu_group() -> Any:
    return dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
