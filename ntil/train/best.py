"""The best validation of a run by its task's metric: the weights that had it, and the end that a long wait brings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.common.files import write_text
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.distributed.ranks import Ranks
from ntil.models.saving import is_saved, whole_model
from ntil.runs.checkpoints import complete_checkpoints, flush_to_disk
from ntil.runs.folder import RunFolder, read_json

FILE = "best.json"
Save = Callable[[nn.Module, Path], None]


@dataclass(frozen=True)
class BestSoFar:
    """The best validation up to a step. value: of the metric; None before the first. waited: validations since it."""

    step: int = 0
    value: float | None = None
    waited: int = 0


class BestWeights(TrainerCallback):
    """Store the weights of every validation that is better than all before, and end a run that waits too long for one.

    Weights lie in <run>/best/step-<n>: written elsewhere, brought to the disk, then renamed. What the newest complete
    checkpoint calls the best is still there after a kill; all others go before new ones are written, so that two are
    there at most. Checkpoints hold the count as `FILE`. All ranks must call every method.

    Args:
        save: writes a model to a folder.
        stores: whether weights are stored; else the validations are only counted, for the end.
        patience, min_delta, target: as in `OptimConfig`.
    """

    def __init__(self, folder: RunFolder, ranks: Ranks, save: Save, config: RunConfig, metric: str, greater: bool):
        self.folder, self.ranks, self._save = folder, ranks, save
        self.stores = config.evaluation.test == "best"
        self.patience, self.min_delta = config.optim.patience, config.optim.min_delta or 0.0
        self.target = config.optim.target
        self.metric, self._sign = metric, 1 if greater else -1
        self.so_far, self.stopped_early = BestSoFar(), False
        self._dtypes: dict[str, torch.dtype] = {}

    @classmethod
    def of(
        cls, folder: RunFolder, ranks: Ranks, save: Save, config: RunConfig, metric: str, greater: bool
    ) -> BestWeights | None:
        """The callback of a run that tests its best weights or may end early; None of others."""
        ends = config.optim.patience is not None or config.optim.target is not None
        needed = config.evaluation.test == "best" or ends
        return cls(folder, ranks, save, config, metric, greater) if needed else None

    def remember_dtypes(self, model: nn.Module) -> None:
        """Note the types that weights are loaded and saved in, before a training makes trained ones float32."""
        self._dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}

    @property
    def weights(self) -> Path | None:
        """Folder of the best weights; None where none are stored."""
        return self._place(self.so_far.step) if self.stores and self.so_far.value is not None else None

    def record(self) -> dict[str, Any]:
        """What `trained.json` says of it."""
        tested = "last" if self.weights is None else "best"
        return {
            "tested": tested,
            "metric": self.metric,
            "best": asdict(self.so_far),
            "stopped_early": self.stopped_early,
        }

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up the count of the checkpoint that the run goes on from.

        Raises:
            ConfigError: the checkpoint has none, or the weights that it calls the best are gone.
        """
        if state.global_step:
            assert args.output_dir is not None
            file = Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE
            count = read_json(file)
            if not count:
                raise ConfigError(f"{file} is missing; remove {file.parent} to go on from an older one")
            self.so_far = BestSoFar(**count)
        if self.weights is not None and not is_saved(self.weights):
            raise ConfigError(
                f"{self.weights} is missing: the best weights so far; put it back, or remove {args.output_dir} to "
                "start anew"
            )
        if self.ranks.first:
            self._clear(self.so_far.step)
        self.ranks.barrier()

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        model: Any = None,
        **_: Any,
    ) -> TrainerControl:
        value = (metrics or {}).get(f"eval_{self.metric}")
        gain = self._gain(value)
        if self.ranks.any(gain > 0 and self.ranks.first):
            waited = 0 if self.ranks.any(gain > self.min_delta and self.ranks.first) else self.so_far.waited + 1
            self.so_far = BestSoFar(state.global_step, value, waited)
            if self.stores:
                self._store(model)
        else:
            self.so_far = BestSoFar(self.so_far.step, self.so_far.value, self.so_far.waited + 1)
        if self.ranks.any(self._reached(value) and self.ranks.first):
            self._stop(state, control, f"{self.metric} has reached {self.target:g}")
        elif self.patience is not None and self.so_far.waited >= self.patience:
            best = "none" if self.so_far.value is None else f"{self.so_far.value:.4g} at step {self.so_far.step}"
            self._stop(
                state, control, f"no better {self.metric} in {self.so_far.waited} validations (the best: {best})"
            )
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.ranks.first:
            assert args.output_dir is not None
            place = Path(args.output_dir) / f"checkpoint-{state.global_step}" / FILE
            write_text(place, json.dumps(asdict(self.so_far)))

    def _gain(self, value: float | None) -> float:
        """How much better the value is than the best before; 0 where it can't be told."""
        if value is None or value != value:
            return 0.0
        return float("inf") if self.so_far.value is None else self._sign * (value - self.so_far.value)

    def _reached(self, value: float | None) -> bool:
        """Whether a validation is as good as the target; False without either."""
        return self.target is not None and value is not None and self._sign * (value - self.target) >= 0

    def _stop(self, state: TrainerState, control: TrainerControl, reason: str) -> None:
        self.stopped_early = True
        control.should_training_stop = True
        control.should_save = False  # as at the last step: a run that goes on from here would train one step more
        if state.is_world_process_zero:
            tqdm.write(f"step {state.global_step}: {reason}; the training ends")

    def _place(self, step: int) -> Path:
        return self.folder.best / f"step-{step}"

    def _store(self, model: nn.Module) -> None:
        place, partial = self._place(self.so_far.step), self.folder.best / "unfinished"
        with whole_model(model) as writes:
            if writes:
                newest = complete_checkpoints(self.folder.checkpoints)[:1]
                self._clear(*(read_json(checkpoint / FILE).get("step", 0) for checkpoint in newest))
                with _in_types(model, self._dtypes):
                    self._save(model, partial)
                flush_to_disk(partial)
                partial.rename(place)
        self.ranks.barrier()

    def _clear(self, *steps: int) -> None:
        """Remove stored weights, but not those of these steps."""
        retained = {self._place(step) for step in steps}
        for path in self.folder.best.glob("*"):
            if path not in retained:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _in_types(model: nn.Module, dtypes: dict[str, torch.dtype]) -> Iterator[None]:
    """Have the weights the types that they are saved in within the block, and after it be what they were."""
    named = ((parameter, dtypes.get(name, parameter.dtype)) for name, parameter in model.named_parameters())
    cast = [(parameter, parameter.data, dtype) for parameter, dtype in named if parameter.dtype != dtype]
    for parameter, data, dtype in cast:
        parameter.data = data.to(dtype)
    try:
        yield
    finally:
        for parameter, data, _ in cast:
            parameter.data = data
