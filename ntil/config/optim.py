"""Settings of the optimizer: its length, learning rates, schedule, and what is done with the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ntil.config.errors import ConfigError
from ntil.config.ranges import at_least

# Names that mean the same here, and those of the default, whose key is null.
OPTIMIZERS = {"adamw": None, "adamw_torch_fused": None, "adamw_bnb_8bit": "adamw_8bit", "lion": "lion_32bit"}
SCHEDULES = {"cosine": None, "cosine_with_min_lr": None, "wsd": "warmup_stable_decay"}
DECAY = 0.2  # share of the steps that `schedule=wsd` decays in, ours


@dataclass
class OptimConfig:
    """Optimizer and schedule; by default AdamW, linear warm-up, cosine decay to `min_lr_ratio` of each learning rate.

    name: of transformers' optimizers (`adafactor`, `sgd`, `adamw_8bit`, ...), see ntil/models/optimizers.py; null:
        AdamW, fused. options: of it, by transformers' names, as in `{momentum: 0.9}`.
    schedule: of transformers' (`linear`, `constant`, `wsd`, ...), see there; null: cosine. schedule_options: of it.
    decay: steps of the last stage of `schedule=wsd`; below 1 a share of all steps; null: `DECAY`.
    steps, epochs: length of the training, in optimizer steps or in passes over the training rows; one of them is null.
    max_epochs: `steps` end after that many passes; null: they don't.
    patience: end after so many validations in a row that are not better, by `min_delta` (null: 0), than the best
        before, by the task's metric; null: never.
    target: end at the first validation at which the task's metric is this good; null: never.
    ema: evaluate, save and export the exponential moving average of the weights with this decay; null: the weights.
    batch_size: rows of one optimizer step, over all ranks and micro-batches. max_grad_norm: gradients are clipped to
        this norm, 0 for none.
    lr, lr_of: of all parts, and of the parts named, as in `{projector: 2e-5}`; null where no part has its own.
    accept_lr: train the language part of a full-size checkpoint in full at a learning rate for models from scratch.
    warmup: steps; below 1 a share of them.
    """

    name: str | None = None
    options: dict[str, Any] | None = field(default_factory=dict)
    schedule: str | None = None
    schedule_options: dict[str, Any] | None = field(default_factory=dict)
    decay: float | None = None
    steps: int | None = 2600
    epochs: float | None = None
    max_epochs: float | None = None
    patience: int | None = None
    min_delta: float | None = None
    target: float | None = None
    ema: float | None = None
    batch_size: int = 64
    lr: float = 1e-3
    lr_of: dict[str, float | None] | None = field(default_factory=dict)
    accept_lr: bool = False
    min_lr_ratio: float = 0.05
    warmup: float = 100
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    max_grad_norm: float = 1.0

    def steps_for(self, rows: int | None) -> int | None:
        """Optimizer steps of a training on so many rows; None where they depend on the rows and those aren't known."""
        passes = self.max_epochs if self.epochs is None else self.epochs
        if passes is None:
            return self.steps
        if rows is None:
            return None
        # Exactly, of the decimal as it is written: 1.1 passes over 6400 rows are 7040, and as floats a little more.
        steps = max(1, math.ceil(Fraction(str(passes)) * rows / self.batch_size))
        return steps if self.steps is None else min(self.steps, steps)


def normalize(optim: OptimConfig) -> None:
    """Give what means the same one form, in place, so that it has one hash."""
    for key in ("warmup", "decay"):
        steps = getattr(optim, key)
        if steps is not None and steps >= 1 and steps == round(steps):
            setattr(optim, key, round(steps))
    optim.lr_of = {part: lr for part, lr in (optim.lr_of or {}).items() if lr is not None} or None
    if optim.name is not None:
        optim.name = OPTIMIZERS.get(optim.name, optim.name)
    if optim.schedule is not None:
        optim.schedule = SCHEDULES.get(optim.schedule, optim.schedule)
    for key in ("options", "schedule_options"):
        setattr(optim, key, {k: v for k, v in (getattr(optim, key) or {}).items() if v is not None} or None)


def check_optim(optim: OptimConfig) -> None:
    """Check ranges, and keys that contradict each other.

    Raises:
        ConfigError: names the key and what it takes.
    """
    for name in ("steps", "batch_size", "patience"):
        at_least(1, f"optim.{name}", getattr(optim, name))
    _check_length(optim)
    for name in ("warmup", "weight_decay", "min_delta"):
        at_least(0, f"optim.{name}", getattr(optim, name))
    at_least(0, "optim.max_grad_norm", optim.max_grad_norm, "0: no clipping")
    for name in ("warmup", "decay"):
        steps = getattr(optim, name)
        if steps is not None and steps > 1 and steps != round(steps):
            raise ConfigError(f"optim.{name}={steps}: must be whole steps, or below 1 a share of them")
    for key, lr in (("lr", optim.lr), *((f"lr_of.{part}", lr) for part, lr in (optim.lr_of or {}).items())):
        if lr is not None and lr <= 0:
            raise ConfigError(f"optim.{key} must be above 0, got {lr}")
    if not 0 <= optim.min_lr_ratio <= 1:
        raise ConfigError(f"optim.min_lr_ratio must lie in [0, 1], got {optim.min_lr_ratio}")
    if len(optim.betas) != 2 or any(not 0 <= beta < 1 for beta in optim.betas):
        raise ConfigError(f"optim.betas must be two numbers in [0, 1), as in [0.9,0.999], got {optim.betas}")
    if optim.ema is not None and not 0 < optim.ema < 1:
        raise ConfigError(f"optim.ema={optim.ema}: a decay must lie in (0, 1), as in 0.999; null: no average")
    if optim.min_delta is not None and optim.patience is None:
        raise ConfigError(f"optim.min_delta={optim.min_delta:g} is for early stopping; set optim.patience, as in 3")
    _check_decay(optim)


def _check_decay(optim: OptimConfig) -> None:
    if optim.decay is None:
        return
    if optim.decay <= 0:
        raise ConfigError(f"optim.decay must be above 0, got {optim.decay:g}")
    if optim.schedule != "warmup_stable_decay":
        raise ConfigError(
            f"optim.decay={optim.decay:g} is the last stage of optim.schedule=wsd, and the schedule is "
            f"{optim.schedule or 'cosine'}; take optim.schedule=wsd, or leave it out"
        )
    if optim.decay < 1 and optim.warmup < 1 and optim.decay + optim.warmup > 1:
        raise ConfigError(
            f"optim.warmup={optim.warmup:g} and optim.decay={optim.decay:g} are more than all steps; take less"
        )


def _check_length(optim: OptimConfig) -> None:
    for name in ("epochs", "max_epochs"):
        value = getattr(optim, name)
        if value is not None and value <= 0:
            raise ConfigError(f"optim.{name} must be above 0, got {value}")
    if optim.steps is None and optim.epochs is None:
        raise ConfigError("optim.steps and optim.epochs are both null; set one of them")
    if optim.epochs is None:
        return
    for name, remedy in (("steps", "optim.steps=null"), ("max_epochs", "optim.max_epochs=null")):
        if getattr(optim, name) is not None:
            raise ConfigError(
                f"optim.epochs={optim.epochs:g} and optim.{name}={getattr(optim, name):g} both say how long the "
                f"training is; take one of them away, as with {remedy}"
            )
