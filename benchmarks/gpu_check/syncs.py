"""No step waits for the device: torch's sync debug mode names every place where the host asks it for a value."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.gpu_check.check import Context, Result
from benchmarks.gpu_check.training import train
from ntil.console import Table

WARM_UP = 2
Mode = Callable[[str], None]


class SyncWatch(TrainerCallback):
    """Counts warnings of synchronisation within steps after the first two, by file and line.

    Args:
        set_mode: takes `warn` or `default`.
    """

    def __init__(self, set_mode: Mode) -> None:
        self.set_mode, self.places, self.steps = set_mode, Counter[str](), 0
        self._catching: Any = None
        self._caught: list[warnings.WarningMessage] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step < WARM_UP:
            return
        self._catching = warnings.catch_warnings(record=True)
        self._caught = self._catching.__enter__()
        warnings.simplefilter("always")
        self.set_mode("warn")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self._catching is None:
            return
        self.set_mode("default")
        self._catching.__exit__(None, None, None)
        self._catching = None
        self.steps += 1
        self.places.update(f"{w.filename}:{w.lineno}" for w in self._caught if "synchroniz" in str(w.message))


def run(context: Context, set_mode: Mode = torch.cuda.set_sync_debug_mode) -> Result:
    """Train some steps and list where they synchronised."""
    watch = SyncWatch(set_mode)
    train(context, [watch])
    rows = [[line_of_code, f"{count / watch.steps:.3g}"] for line_of_code, count in watch.places.most_common()]
    table = Table("syncs", ["place", "times a step"], ["l", "r"], rows)
    line = f"{sum(watch.places.values()) / watch.steps:.3g} synchronisations a step, over {watch.steps} steps"
    return Result("Host synchronisations in a step", not rows, [line], [table] if rows else [])
