"""Guards of a training: losses that are not finite stop it, spikes are reported."""

from __future__ import annotations

import json
import statistics
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from data.common.counts import counted
from data.common.files import write_text
from ntil.distributed.ranks import Ranks


@dataclass(frozen=True)
class NonFiniteBatch:
    """The micro-batch of the first loss that was not finite.

    weights: `model` where the weights of that moment are saved beside it, else `the newest checkpoint`.
    """

    step: int
    rank: int
    ids: list[str]
    components: dict[str, float]
    weights: str


class FiniteCheck:
    """Stop a run before the optimizer uses a loss that is not finite, and keep batch and weights for a replay.

    On a GPU a micro-batch is checked at the next one, when the copy of its loss has arrived, so that no step
    synchronises; the weights may have been updated by then, so a replay starts from the last checkpoint. Call `flush`
    before weights are saved.
    """

    def __init__(self, folder: Path, save: Callable[[nn.Module, Path], None] | None = None) -> None:
        """Take `save(model, folder)`, which writes the weights; None: only the batch is kept."""
        self.folder, self._save = folder, save
        self._pending: tuple[Tensor, torch.cuda.Event, int, list[str], dict[str, Tensor]] | None = None

    def __call__(
        self, model: nn.Module, total: Tensor, components: dict[str, Tensor], step: int, ids: list[str]
    ) -> None:
        """Check the total loss of a micro-batch, on a GPU that of the one before.

        Raises:
            FloatingPointError: a loss that is not finite, naming the step and how to replay it.
        """
        if not total.is_cuda:
            if not bool(torch.isfinite(total)):
                self._stop(model, step, ids, components)
            return
        self.flush()
        copy = torch.empty((), dtype=total.dtype, pin_memory=True)
        copy.copy_(total.detach(), non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = copy, event, step, ids, components

    def flush(self) -> None:
        """Check the pending micro-batch, if there is one.

        Raises:
            FloatingPointError: see `__call__`.
        """
        if self._pending is None:
            return
        copy, event, step, ids, components = self._pending
        self._pending = None
        event.synchronize()
        if not bool(torch.isfinite(copy)):
            self._stop(None, step, ids, components)

    def _stop(self, model: nn.Module | None, step: int, ids: list[str], components: dict[str, Tensor]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = "the newest checkpoint"
        if model is not None and self._save is not None:
            self._save(model, self.folder / "model")
            weights = "model"
        values = {name: value.item() for name, value in components.items()}
        batch = NonFiniteBatch(step, Ranks.here().index, ids, values, weights)
        write_text(self.folder / "batch.json", json.dumps(asdict(batch), indent=1))
        raise FloatingPointError(
            f"the loss is not finite at step {step} ({', '.join(f'{k} {v:.4g}' for k, v in values.items())}); "
            f"look at its {counted(len(ids), 'row')} with `ntil replay run={self.folder.parent}`"
        )


class LossSpikes(TrainerCallback):
    """Report a logged loss above `times` the median of recent ones and 6 deviations (scaled MAD) above it."""

    def __init__(self, window: int = 20, times: float = 2.0) -> None:
        self.recent: deque[float] = deque(maxlen=window)
        self.times = times

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is None or logs is None:
            return
        if len(self.recent) >= 5:
            usual = statistics.median(self.recent)
            deviation = 1.4826 * statistics.median(abs(x - usual) for x in self.recent)
            if loss > self.times * usual and loss > usual + 6 * deviation:
                logs["spike"] = loss / usual
                if state.is_world_process_zero:
                    tqdm.write(
                        f"step {state.global_step}: the loss {loss:.4g} is {loss / usual:.1f} x its median {usual:.4g}"
                    )
        self.recent.append(loss)
