"""Guards of a training: losses, gradients and weights that are not finite stop it, spikes are reported."""

from __future__ import annotations

import json
import math
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

# A scale of 2 ** 16, the scaler's first, is below what float16 can hold after 16 + 24 halvings.
SKIPPED_LIMIT = 40


@dataclass(frozen=True)
class NonFiniteBatch:
    """The micro-batch of the first loss that was not finite, or the rows of the step whose gradient was not.

    components: of the loss, or the norm of the gradient as `gradient`.
    weights: `model` where the weights of that moment are saved beside it, else `the newest checkpoint`.
    """

    step: int
    rank: int
    ids: list[str]
    components: dict[str, float]
    weights: str


class FiniteCheck:
    """Stop a run before the optimizer uses a loss or a gradient that is not finite, and keep what a replay needs.

    Batch and weights are kept. On a GPU a micro-batch is checked at the next one, when the copy of its loss has
    arrived, so that no step synchronises; the weights may have been updated by then, so a replay starts from the last
    checkpoint. Call `flush` before weights are saved or validated.
    """

    def __init__(self, folder: Path, save: Callable[[nn.Module, Path], None] | None = None) -> None:
        """Take `save(model, folder)`, which writes the weights; None: only the batch is kept."""
        self.folder, self._save = folder, save
        self._pending: tuple[Tensor, torch.cuda.Event, int, list[str], dict[str, Tensor]] | None = None
        self._pending_norm: tuple[Tensor, torch.cuda.Event, int] | None = None
        self._rows: tuple[int, list[str]] = 0, []  # of all micro-batches of a step
        self._skipped = 0

    def __call__(
        self, model: nn.Module, total: Tensor, components: dict[str, Tensor], step: int, ids: list[str]
    ) -> None:
        """Check the total loss of a micro-batch, on a GPU that of the one before.

        Raises:
            FloatingPointError: a loss that is not finite, naming the step and how to replay it.
        """
        if total.is_cuda:
            self.flush()
        elif not bool(torch.isfinite(total)):
            self._stop(model, step, ids, components)
        self._rows = step, [*(self._rows[1] if self._rows[0] == step else ()), *ids]
        if total.is_cuda:
            self._pending = *_copied(total), step, ids, components

    def gradient(self, model: nn.Module, norm: Tensor | float | None, step: int) -> None:
        """Check the norm of a step's gradient, the same on all ranks, before the optimizer uses it.

        Args:
            norm: one on a GPU is checked with the next micro-batch; None: the engine doesn't tell it.

        Raises:
            FloatingPointError: a norm that is not finite under losses that are, naming the step and how to replay it.
        """
        if isinstance(norm, Tensor) and norm.is_cuda:
            self._pending_norm = *_copied(norm), step
        elif norm is not None and not math.isfinite(norm):
            self.flush()  # a loss that is not finite is the better reason
            self._stop_at_gradient(model, step, float(norm))

    def scaled_gradient(self, model: nn.Module, norm: Tensor | float | None, step: int) -> None:
        """Check the norm of a step's gradient under a loss scale, whose scaler skips a step with an overflow.

        The scaler waits for its own check of every gradient, so this one costs no further wait.

        Raises:
            FloatingPointError: `SKIPPED_LIMIT` steps in a row were skipped, so that no smaller scale will help.
        """
        if norm is None or math.isfinite(norm):
            self._skipped = 0
            return
        self._skipped += 1
        if self._skipped >= SKIPPED_LIMIT:
            self.flush()
            self._stop_at_gradient(model, step, float(norm))

    def weights(self, model: nn.Module, step: int) -> None:
        """Check the trained weights before they replace good ones; all ranks must call.

        Raises:
            FloatingPointError: weights that are not finite though loss and gradient were, naming the step.
        """
        # Of a weight that ZeRO-3 partitions a rank has its share in `ds_tensor`.
        trained = (getattr(p, "ds_tensor", p).detach() for p in model.parameters() if p.requires_grad)
        if Ranks.here().any(not all(bool(torch.isfinite(weight).all()) for weight in trained)):
            raise FloatingPointError(
                f"the trained weights are not finite after step {step}, so they are not saved; "
                "retry=true goes on from the newest checkpoint, and a lower optim.lr may help"
            )

    def flush(self) -> None:
        """Check the pending micro-batch, and then the pending norm of its step's gradient, if there are any.

        Raises:
            FloatingPointError: see `__call__` and `gradient`.
        """
        if self._pending is not None:
            copy, event, step, ids, components = self._pending
            self._pending = None
            event.synchronize()
            if not bool(torch.isfinite(copy)):
                self._stop(None, step, ids, components)
        if self._pending_norm is not None:
            copy, event, step = self._pending_norm
            self._pending_norm = None
            event.synchronize()
            if not bool(torch.isfinite(copy)):
                self._stop_at_gradient(None, step, copy.item())

    def _stop(self, model: nn.Module | None, step: int, ids: list[str], components: dict[str, Tensor]) -> None:
        values = {name: value.item() for name, value in components.items()}
        self._keep(model, step, ids, values)
        raise FloatingPointError(
            f"the loss is not finite at step {step} ({', '.join(f'{k} {v:.4g}' for k, v in values.items())}); "
            f"look at its {counted(len(ids), 'row')} with `ntil replay run={self.folder.parent}`"
        )

    def _stop_at_gradient(self, model: nn.Module | None, step: int, norm: float) -> None:
        # Which rank's rows have spoilt the sum is not known. A rank whose loss isn't finite has raised before this.
        ids = [name for of_rank in Ranks.here().gather(self._rows[1]) for name in of_rank]
        if Ranks.here().first:
            self._keep(model, step, ids, {"gradient": norm})
        raise FloatingPointError(
            f"the gradient is not finite at step {step} (norm {norm:.4g}), though the loss is; "
            f"look at its {counted(len(ids), 'row')} with `ntil replay run={self.folder.parent}`"
        )

    def _keep(self, model: nn.Module | None, step: int, ids: list[str], values: dict[str, float]) -> None:
        """Write what a replay needs: the rows' ids, the values, and the weights of the model, where there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        weights = "the newest checkpoint"
        if model is not None and self._save is not None:
            self._save(model, self.folder / "model")
            weights = "model"
        batch = NonFiniteBatch(step, Ranks.here().index, ids, values, weights)
        write_text(self.folder / "batch.json", json.dumps(asdict(batch), indent=1))


def _copied(value: Tensor) -> tuple[Tensor, torch.cuda.Event]:
    """A copy of a scalar on its way to the CPU, and the event at which it has arrived."""
    copy = torch.empty((), dtype=value.dtype, pin_memory=True)
    copy.copy_(value.detach(), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return copy, event


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
