"""Exponential moving average of the trained weights: updated at every step, used where the model is scored or saved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ntil.config.errors import ConfigError
from ntil.distributed.ranks import Ranks

FILE = "average.safetensors"


class WeightAverage(TrainerCallback):
    """Average of the weights that are trained, in float32, as `torch.optim.swa_utils.AveragedModel` computes it.

    Frozen weights have no copy, so that adapters cost no second base. The average begins as the weights after the
    first step. Every rank has all of it, and the first writes it into the checkpoints.

    Args:
        model: its trained parameters are those with gradients when the training begins.
        decay: share of the average that stays at a step.
    """

    def __init__(self, model: nn.Module, decay: float, ranks: Ranks) -> None:
        self.model, self.decay, self.ranks = model, decay, ranks
        self.averages: dict[str, Tensor] = {}
        self._update = get_ema_multi_avg_fn(decay)

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.global_step:
            assert args.output_dir is not None
            self._read(Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        with torch.no_grad():
            weights = {name: parameter.detach().float() for name, parameter in self._trained()}
            if not self.averages:
                self.averages = {name: weight.clone() for name, weight in weights.items()}
            else:
                self._update(list(self.averages.values()), list(weights.values()), state.global_step - 1)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.ranks.first:
            assert args.output_dir is not None
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE
            save_file({name: average.contiguous() for name, average in self.averages.items()}, place)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the model's weights be the average within the block, and bit for bit what they were after it."""
        before = {name: parameter.detach().clone() for name, parameter in self._trained()} if self.averages else {}
        self.apply()
        try:
            yield
        finally:
            self._copy(before)

    def apply(self) -> None:
        """Make the model's weights the average; before the first step they are left as they are."""
        self._copy(self.averages)

    def _copy(self, weights: dict[str, Tensor]) -> None:
        # Into the tensors that are there: DeepSpeed's and the optimizer's are views of them.
        with torch.no_grad():
            for name, parameter in self._trained() if weights else ():
                parameter.copy_(weights[name])

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad)

    def _read(self, file: Path) -> None:
        """Read the average of a checkpoint.

        Raises:
            ConfigError: it isn't there, or is of other weights.
        """
        stored = load_file(file) if file.exists() else {}
        trained = dict(self._trained())
        if {name: tuple(a.shape) for name, a in stored.items()} != {n: tuple(p.shape) for n, p in trained.items()}:
            raise ConfigError(
                f"{file}: the checkpoint has no average of these weights, so the run can't go on with optim.ema="
                f"{self.decay:g}; remove {file.parent} to go on from an older one, or from the beginning"
            )
        self.averages = {name: stored[name].to(parameter.device) for name, parameter in trained.items()}
