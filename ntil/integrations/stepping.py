"""One optimizer step over micro-batches with a number loss, for loops that call the backward themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ntil.integrations.labels import (
    Supervised,
    loss_parts,
    rank_count,
    step_infos,
    sum_over_ranks,
)
from ntil.losses.base import NumberLoss
from ntil.losses.step import WHOLE_STEP, LossParts, StepInfo, is_factor
from ntil.models.head import SupervisedHead

NOT_INPUTS = ("labels", "shift_labels")
Backward = Callable[[Tensor], object]
Context = Callable[[], AbstractContextManager[Any]]


class Stepper:
    """A number loss on the micro-batches of a step, with logits at supervised positions only.

    Args:
        model: without wrappers, with `get_output_embeddings`.
        forward: what is called with the batch's inputs: the model, or what wraps it.
    """

    def __init__(self, model: Any, forward: nn.Module, loss: NumberLoss) -> None:
        self.model, self.forward, self.loss = model, forward, loss
        self.head = SupervisedHead(model)

    def step(
        self,
        micro_batches: Sequence[dict[str, Any]],
        draw: int,
        backward: Backward,
        *,
        autocast: Context = nullcontext,
        unsynchronised: Context = nullcontext,
    ) -> dict[str, Tensor]:
        """Gradients of one optimizer step: the same however its rows are cut into micro-batches and ranks.

        Args:
            micro_batches: of this rank, on the model's device; every rank has as many.
            draw: number of the step, which noise depends on.
            backward: called with each micro-batch's loss, which is multiplied by the number of ranks, whose gradients
                are averaged.
            autocast: of the forward. unsynchronised: of all backward passes but the last.

        Returns:
            `total` and the components of the whole step, detached.

        Raises:
            ValueError: no micro-batch, or one without labels.
        """
        if not micro_batches:
            raise ValueError("a step needs at least one micro-batch")
        parts = [Supervised.of(batch, self.loss) for batch in micro_batches]
        device = next(self.model.parameters()).device
        infos = step_infos(parts, self.loss, draw, device)
        reference = None
        if self.loss.needs_reference and len(parts) > 1:
            reference = self._reference(micro_batches, parts, infos, autocast)
        sums: dict[str, Tensor] = {}
        for number, (batch, part, info) in enumerate(zip(micro_batches, parts, infos, strict=True)):
            with unsynchronised() if number + 1 < len(parts) else nullcontext():
                with autocast():
                    of_batch, of_part = self._parts(batch, part, info)
                if of_part is not None and len(parts) == 1:
                    reference = sum_over_ranks(of_part)
                total, components = self.loss.join(of_batch, reference)
                backward(total * rank_count())
            for name, value in {"total": total.detach(), **components}.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        # The factor is common to all; the others add up.
        whole_step = sum_over_ranks(torch.stack([value.float() for value in sums.values()]))
        values = dict(zip(sums, whole_step, strict=True))
        for name in filter(is_factor, values):
            values[name] = values[name] / (len(parts) * rank_count())
        return values

    @torch.no_grad()
    def loss_of(self, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch as a step of its own, for validation."""
        parts, reference = self._parts(batch, Supervised.of(batch, self.loss), WHOLE_STEP)
        return self.loss.join(parts, reference).total

    def _parts(self, batch: dict[str, Any], part: Supervised, info: StepInfo) -> tuple[LossParts, Tensor | None]:
        inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
        part = part.to(next(self.model.parameters()).device)
        with self.head.selecting(part.positions, part.shape):
            logits = self.forward(**inputs, use_cache=False).logits
        return loss_parts(self.loss, self.model, logits, part, info)

    @torch.no_grad()
    def _reference(
        self,
        micro_batches: Sequence[dict[str, Any]],
        parts: Sequence[Supervised],
        infos: Sequence[StepInfo],
        autocast: Context,
    ) -> Tensor:
        """What the factors of the step come from, which a rescaled loss needs before its first backward."""
        device = next(self.model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), autocast():
            of_parts = [self._parts(b, p, i)[1] for b, p, i in zip(micro_batches, parts, infos, strict=True)]
        return sum_over_ranks(torch.stack([one for one in of_parts if one is not None]).sum(0))
