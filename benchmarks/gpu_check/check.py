"""What a check is given, and what it gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ntil.console import Table
from ntil.rehearsal.peaks import peak, reset_peak


@dataclass(frozen=True)
class Context:
    """Device, model and folder of a check.

    Args:
        device: `cuda`, or `cpu` (in the tests).
        words: overrides of `ntil train` that choose model, task and batch, of 2B parameters on a GPU.
        folder: for what a check writes.
        gpus: how many there are; ranks of the checks of several.
        steps: timed steps, after two that warm up.
    """

    device: str
    words: tuple[str, ...]
    folder: Path
    gpus: int = 1
    steps: int = 10

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, act: Callable[[], Any]) -> float:
        """Seconds that `act` takes until the device is done."""
        self.synchronize()
        began = time.perf_counter()
        act()
        self.synchronize()
        return time.perf_counter() - began

    def peak_bytes(self, act: Callable[[], Any]) -> int:
        """Peak memory while `act` runs: on the GPU, else of this process."""
        reset_peak()
        act()
        self.synchronize()
        after = peak()
        return after.host if after.gpu is None else after.gpu


@dataclass(frozen=True)
class Result:
    """What a check found. passed: None where there is nothing to pass, as of a speed; lines: for the report."""

    title: str
    passed: bool | None
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)


Check = Callable[[Context], Result]
