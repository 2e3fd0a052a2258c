"""Runs and trainers in the test's own process: a nano model and a few rows, in a second or two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ntil.components import Components
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.models.tuning import tune
from ntil.preflight import compose_checked
from ntil.runs.folder import RunFolder, folder_of
from ntil.train import run as run_module
from ntil.train.trainer import build_trainer
from tests.support.runs import TINY_RUN

WORDS = [
    *TINY_RUN,
    "task=arithmetic",
    "model=qwen25_nano",
    "task.source.rows={train:64,validation:8,test:8}",
    "loss=ntil",
    "engine=local",
    "engine.device=cpu",
    "engine.workers=0",
    "evaluation.batch_size=8",
]


def trainer_of(place: Path, *words: str) -> Any:
    """A trainer of `WORDS` and these, whose checkpoints lie in `place`."""
    config = compose_checked([*WORDS, *words])
    components = Components.build(config)
    torch.manual_seed(0)
    model = tune(components.family.load(), components.family, config.tuning)
    return build_trainer(config, components, model, components.task.rows("train"), place)


def frozen(place: Path, *words: str) -> RunFolder:
    """The folder of a run of `WORDS` and these below `place`, its config frozen."""
    config = compose_checked([*WORDS, f"runs={place}", *words])
    folder = folder_of(config)
    folder.freeze(config)
    return folder


class StopAt(Interrupt):
    """An interrupt that is requested at a step, or a process that dies there.

    Args:
        step: how many steps this process trains. dies: as a kill would have it, nothing is saved.
    """

    def __init__(self, step: int, dies: bool = False) -> None:
        super().__init__()
        self.left, self.dies = step, dies

    def agreed(self, ranks: Any) -> bool:
        self.left -= 1
        if self.left == 0 and self.dies:
            raise MemoryError("killed")
        return self.left == 0


def stop_at_third_step() -> None:
    """Have a run of this process be interrupted at its third step, on every rank; for `tests.support.forked.start`."""
    steps = iter(range(1, 1000))
    Interrupt.agreed = lambda self, ranks: next(steps) == 3  # type: ignore[method-assign]


def perform(folder: RunFolder, interrupt: Interrupt | None = None) -> None:
    """Train and test the run in this process."""
    run_module.run(folder, interrupt or Interrupt(), Ranks())
