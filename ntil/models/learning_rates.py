"""Learning rates of the parts of a model, and what is refused of them before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from ntil.config.errors import ConfigError, nearest
from ntil.config.schema import OptimConfig, RunConfig
from ntil.models.base import Family
from ntil.models.pretrained import is_path
from ntil.models.tuning import Parts, is_frozen

FROM_SCRATCH = 1e-4  # from here on a learning rate is one for random weights: a tenth of nano's, ten times finetune's
FULL_SIZE = 200_000_000  # bytes of weights; a nano model's are under 5 MB


def check_learning_rates(config: RunConfig, family: type[Family]) -> None:
    """Check `optim.lr_of` against the family and what is trained.

    Raises:
        ConfigError: a part that the family doesn't have, or that isn't trained.
    """
    for part in config.optim.lr_of or ():
        key = f"optim.lr_of.{part}"
        if part not in family.parts:
            raise ConfigError(
                f"{key}: {family.__name__} has no part {part!r}{nearest(part, family.parts)} "
                f"(parts: {', '.join(family.parts)})"
            )
        tuning = config.tuning
        if is_frozen(tuning, family, part):
            raise ConfigError(
                f"{key}: {part} isn't trained (tuning.mode={tuning.mode}, tuning.freeze={tuning.freeze}); leave it "
                f"out, as with {key}=null, or train it"
            )


def refuse_to_overwrite(config: RunConfig) -> None:
    """Refuse to train the language part of a full-size checkpoint in full at a learning rate for random weights.

    Raises:
        ConfigError: names the rate, and how to have it all the same.
    """
    checkpoint, tuning, optim = config.model.options.get("checkpoint"), config.tuning, config.optim
    lr = (optim.lr_of or {}).get("language") or optim.lr
    if optim.accept_lr or not checkpoint or tuning.mode != "full" or "language" in tuning.freeze or lr < FROM_SCRATCH:
        return
    if _is_full_size(checkpoint):
        raise ConfigError(
            f"a learning rate of {lr:g} is one for random weights and would overwrite what {checkpoint} has learnt; "
            "leave it to the model's recipe (1e-5), set optim.lr=1e-5, or accept it with optim.accept_lr=true"
        )


def _is_full_size(checkpoint: str) -> bool:
    """Whether the checkpoint is a hub's, whose size isn't known here, or a folder with much in it."""
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        return not is_path(checkpoint)
    weights = (file for suffix in ("safetensors", "bin") for file in folder.rglob(f"*.{suffix}"))
    return sum(file.stat().st_size for file in weights) > FULL_SIZE


class LearningRates:
    """Learning rates by part, where a part has its own.

    Attributes:
        of_parts: part -> its own rate.
    """

    def __init__(self, family: Family, optim: OptimConfig) -> None:
        self.optim, self._parts = optim, Parts(family)
        self.of_parts = {part: lr for part, lr in (optim.lr_of or {}).items() if lr is not None}

    def groups(self, model: nn.Module, decayed: Iterable[str]) -> list[dict[str, Any]]:
        """AdamW's groups of the trained parameters, by rate and by whether weights decay; those at `optim.lr` first.

        Args:
            decayed: names of the parameters whose weights decay.
        """
        names, rates = {*decayed}, dict.fromkeys([self.optim.lr, *self.of_parts.values()])
        keys = [(lr, decays) for lr in rates for decays in (True, False)]
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {key: [] for key in keys}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                lr = self.of_parts.get(self._parts.of(name), self.optim.lr)
                groups[lr, name in names].append(parameter)
        # DeepSpeed's ZeRO-3 counts groups without the empty ones.
        return [
            {"params": parameters, "lr": lr, "weight_decay": self.optim.weight_decay if decays else 0.0}
            for (lr, decays), parameters in groups.items()
            if parameters
        ]

    def now(self, groups: Iterable[dict[str, Any]]) -> dict[str, float]:
        """Part with its own rate -> that rate as the schedule has it now, from the optimizer's groups."""
        # Some optimizers hold their rates as float32 tensors, in which most are no longer quite those of the config.
        scheduled = [(float(group.get("initial_lr", group["lr"])), float(group["lr"])) for group in groups]
        rates = {
            part: [rate for initial, rate in scheduled if math.isclose(initial, lr, rel_tol=1e-6)]
            for part, lr in self.of_parts.items()
        }
        return {part: of_part[0] for part, of_part in rates.items() if of_part}
