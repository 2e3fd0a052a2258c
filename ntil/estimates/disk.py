"""Disk that a run takes while it trains and when it is done."""

from __future__ import annotations

from dataclasses import dataclass

from ntil.config.schema import RunConfig
from ntil.estimates.memory import AVERAGE
from ntil.estimates.shape import shape_of
from ntil.models.optimizers import state_bytes

# Float32 weights and the 16-bit ones, beside the optimizer's state: with Adam's two moments 2 x 22.38 MB + 7.46 MB were
# measured for 3.729 M parameters of a ZeRO-3 run of two ranks.
CHECKPOINT_BYTES = 6


@dataclass(frozen=True)
class DiskNeed:
    """Bytes of a run's folder at most, and of what stays of it."""

    peak: int
    remaining: int


def disk_need(config: RunConfig) -> DiskNeed | None:
    """Disk of a run, without predictions; None for a model whose sizes aren't known here.

    A checkpoint holds trained parameters with their states, the frozen ones in 16 bits (not those of adapters, whose
    base is elsewhere). While one is written, `keep_checkpoints` older ones and the best are still there. A run that
    tests its best weights has them twice beside the checkpoints while better ones are written.
    """
    shape = shape_of(config)
    if shape is None:
        return None
    adapters = config.tuning.mode == "lora"
    model = 2 * shape.trained if adapters else shape.weight_bytes * shape.parameters
    # Below stage 3 DeepSpeed writes the 16-bit weights, which the Trainer's own file has already.
    copies = 2 if config.engine.zero_stage in (0, 1, 2) else 1
    frozen = 0 if adapters else 2 * copies * (shape.parameters - shape.trained)
    average = AVERAGE * shape.trained if config.optim.ema is not None else 0
    state = state_bytes(config.optim, shape.trained, shape.factored)
    checkpoint = (CHECKPOINT_BYTES + 2 * (copies - 1)) * shape.trained + state + average + frozen
    tested = 2 * model if config.evaluation.test == "best" else 0
    saves = bool(config.save_every or config.save_minutes)
    best = 1 if config.evaluation.every_steps else 0
    checkpoints = saves * (config.keep_checkpoints + best + 1) * checkpoint
    after = saves * (config.keep_checkpoints + best) * checkpoint if config.keep_checkpoints_when_done else 0
    return DiskNeed(checkpoints + model + tested, model + after)
