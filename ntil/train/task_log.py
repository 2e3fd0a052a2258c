"""What a training on a mixture logs of each task: the rows really drawn, and the components of the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import ExportableState

from ntil.losses.base import NumberLoss, StepInfo
from ntil.numbers.spans import NumberSpans

COUNTS = ("tokens", "samples", "digits", "numbers", "boxes")


class TaskLog(TrainerCallback, ExportableState):
    """Rows and components of the loss by task; a resumed run counts on from its checkpoint.

    The components are those of the step that is logged, divided by the task's own tokens, samples, digits, numbers and
    boxes of that step, over ranks and micro-batches. They cost one more call of the loss, without gradients.

    Args:
        names: of the tasks, in one order on all ranks.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self.rows = torch.zeros(len(self.names), dtype=torch.float64)
        self._step_counts = torch.zeros(len(self.names), len(COUNTS))
        self._components: tuple[str, ...] = ()
        self._sums: Tensor | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        stored: Any = state.stateful_callbacks or {}
        if type(self).__name__ in stored:
            self.rows = torch.tensor(stored[type(self).__name__]["attributes"]["rows"], dtype=torch.float64)

    def state(self) -> dict[str, Any]:
        return {"args": {"names": list(self.names)}, "attributes": {"rows": self.rows.tolist()}}

    def totals(self) -> dict[str, int]:
        """Rows of every task that the training has drawn so far, over all ranks."""
        return {name: int(count) for name, count in zip(self.names, self.rows.tolist(), strict=True)}

    def counts(self, batches: Sequence[Mapping[str, Any]]) -> list[list[int]]:
        """Counts of every task in micro-batches, flat, a list for each micro-batch."""
        none = [0] * len(COUNTS)
        return [[n for name in self.names for n in batch["task_counts"].get(name, none)] for batch in batches]

    def begin_step(self, counts: Tensor) -> None:
        """Take the counts of a step over all ranks and micro-batches, flat as those of `counts`."""
        self._step_counts = counts.reshape(len(self.names), len(COUNTS))
        self.rows = self.rows.to(counts.device) + self._step_counts[:, 1]
        self._sums = None

    @torch.no_grad()
    def add(
        self,
        loss: NumberLoss,
        logits: Tensor,
        targets: Tensor,
        spans: NumberSpans,
        info: StepInfo,
        tasks: Sequence[str],
    ) -> None:
        """Add a micro-batch of a step that is logged.

        Args:
            logits, targets, spans, info: as of `NumberLoss.parts`. tasks: of its samples.
        """
        for number, name in enumerate(self.names):
            mine = torch.tensor([task == name for task in tasks], device=logits.device)
            present = mine[spans.sample]
            if not present.any():
                continue
            tokens, samples, digits, numbers, boxes = self._step_counts[number].clamp(min=1)
            of_task = StepInfo(
                tokens, samples, digits, numbers, info.draw, output_embeddings=info.output_embeddings, shapes=boxes
            )
            parts = loss.parts(logits[present], targets[present], spans.of_samples(mine), of_task)
            values = {"ce": parts.ce, **{term: mean for term, (mean, _) in parts.terms.items()}}
            values |= loss.aux_terms(parts)
            if self._sums is None:
                self._components = tuple(values)
                self._sums = torch.zeros(len(self.names), len(values), device=logits.device)
            self._sums[number] += torch.stack([value.float() for value in values.values()])

    def take(self, over_ranks: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The log of the step: `<task>/rows` so far and `<task>/loss/<component>`."""
        logs: dict[str, float] = {f"{name}/rows": count for name, count in self.totals().items()}
        if self._sums is None:
            return logs
        sums = over_ranks(self._sums).tolist()
        for name, values, counts in zip(self.names, sums, self._step_counts.tolist(), strict=True):
            if counts[0]:  # else the step had no row of this task
                logs |= {f"{name}/loss/{c}": value for c, value in zip(self._components, values, strict=True)}
        return logs
