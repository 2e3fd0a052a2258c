"""The processes of one run, seen from inside one of them: which am I, and what do we agree on.

Everything goes through a gloo group on the CPU, so that agreeing costs no wait for a GPU, and as JSON, so that nothing
is unpickled.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

_groups: dict[str, Any] = {}


@dataclass(frozen=True)
class Ranks:
    """`index` of `count`. With one rank nothing is sent; with more, every method must be called by all of them."""

    index: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """From RANK and WORLD_SIZE, as torchrun, DeepSpeed's launcher and `ntil train` set them."""
        return cls(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))

    @property
    def first(self) -> bool:
        return self.index == 0

    def gather(self, part: Any) -> list[Any]:
        """Every rank's `part` (anything that JSON holds), in the order of the ranks."""
        if self.count == 1:
            return [part]
        own = torch.frombuffer(bytearray(json.dumps(part).encode()), dtype=torch.uint8)
        sizes = self._gather(torch.tensor([own.numel()]))
        longest = max(int(size) for size in sizes)
        parts = self._gather(torch.nn.functional.pad(own, (0, longest - own.numel())))
        return [json.loads(bytes(p[: int(n)].tolist())) for p, n in zip(parts, sizes, strict=True)]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        if self.count == 1:
            return flag
        sent = torch.tensor([int(flag)])
        dist.all_reduce(sent, dist.ReduceOp.MAX, group=_cpu_group())
        return bool(sent.item())

    def barrier(self) -> None:
        self.any(False)

    def _gather(self, own: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own, group=_cpu_group())
        return parts


def _cpu_group() -> Any:
    if "cpu" not in _groups:
        _groups["cpu"] = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    return _groups["cpu"]
