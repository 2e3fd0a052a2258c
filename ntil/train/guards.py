"""What stops or reports a run that goes wrong: losses that are not finite, and spikes."""

from __future__ import annotations

import json
import statistics
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState

from ntil.runs import write


@dataclass(frozen=True)
class Culprit:
    """The micro-batch of the first loss that was not finite.

    weights: where the weights of that moment lie, or the checkpoint that comes nearest before it.
    """

    step: int
    rank: int
    ids: list[str]
    components: dict[str, float]
    weights: str


class FiniteCheck:
    """Stops a run before the optimizer takes a loss that is not finite, and keeps the batch and weights for a replay.

    On a GPU the check of a micro-batch waits for the next one, when its copy has arrived anyway, so that no step waits;
    the weights may have been stepped by then, and a replay starts from the last checkpoint instead. `flush` before
    weights are kept.
    """

    def __init__(self, folder: Path, save: Any = None) -> None:
        """`save(model, folder)` writes the weights; None: only the batch is kept."""
        self.folder, self._save = folder, save
        self._pending: tuple[Tensor, torch.cuda.Event, int, list[str], dict[str, Tensor]] | None = None

    def __call__(
        self, model: nn.Module, total: Tensor, components: dict[str, Tensor], step: int, ids: list[str]
    ) -> None:
        """
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
        """Check what still waits.

        Raises:
            FloatingPointError: as for a call.
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
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        found = {name: value.item() for name, value in components.items()}
        write(self.folder / "batch.json", json.dumps(asdict(Culprit(step, rank, ids, found, weights)), indent=1))
        raise FloatingPointError(
            f"the loss is not finite at step {step} ({', '.join(f'{k} {v:.4g}' for k, v in found.items())}); "
            f"look at its {len(ids)} rows with `ntil replay run={self.folder.parent}`"
        )


class Spikes(TrainerCallback):
    """Reports a logged loss far above its recent ones: more than `times` their median and 6 of their deviations."""

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
            spread = 1.4826 * statistics.median(abs(x - usual) for x in self.recent)
            if loss > self.times * usual and loss > usual + 6 * spread:
                logs["spike"] = loss / usual
                if state.is_world_process_zero:
                    tqdm.write(
                        f"step {state.global_step}: the loss {loss:.4g} is {loss / usual:.1f} x its median {usual:.4g}"
                    )
        self.recent.append(loss)
