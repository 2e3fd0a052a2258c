"""What a forked rank is told before it starts: to be interrupted in its first step, and to note how ZeRO-3 cut a model.

`functools.partial(probe, ...)` is given to `tests.support.forked.start`. A step's parts are looked at where they are
for certain: in the callbacks of the Trainer.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any


def probe(note: Path | None = None, interrupt: bool = False, partition_all: bool = False) -> None:
    """Change this process.

    Args:
        note: rank 0 writes there, after every step, {"partitioned": elements, "whole": elements} of all parameters.
        interrupt: send this process a SIGTERM in its first step.
        partition_all: ZeRO-3 cuts every parameter, however small.
    """
    from transformers import TrainerCallback

    from ntil.train.trainer import NumberTrainer

    class Probe(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._interrupt(state)

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self._interrupt(state)

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
            if note is not None and state.is_world_process_zero:
                note.write_text(json.dumps(partitions(model)))

        def _interrupt(self, state: Any) -> None:
            if interrupt and state.global_step == 0 and state.is_world_process_zero:
                os.kill(os.getpid(), signal.SIGTERM)

    original = NumberTrainer.__init__

    def build(self: NumberTrainer, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.add_callback(Probe())

    NumberTrainer.__init__ = build  # type: ignore[method-assign]
    if partition_all:
        _partition_all()


def partitions(model: Any) -> dict[str, int]:
    """Elements of the parameters of which this rank holds a part, and of those that it holds whole."""
    sizes = {"partitioned": 0, "whole": 0}
    for parameter in model.parameters():
        cut = hasattr(parameter, "ds_id") and parameter.ds_tensor.numel() < parameter.ds_numel
        kept = getattr(parameter, "ds_persist", True)
        sizes["partitioned" if cut and not kept else "whole"] += getattr(parameter, "ds_numel", parameter.numel())
    return sizes


def _partition_all() -> None:
    import deepspeed

    initialize = deepspeed.initialize

    def with_threshold(*args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("config_params") or kwargs["config"]
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return initialize(*args, **kwargs)

    deepspeed.initialize = with_threshold
