"""A number loss in a training loop of your own with accelerate.

    from ntil import NTIL
    from ntil.integrations.accelerate_loop import NumberSteps

    steps = NumberSteps(accelerator, model, NTIL(vocab))  # the prepared model
    for micro_batches in steps.batches(loader, accumulation=2):
        losses = steps(micro_batches)                     # forward and backward; the optimizer's step stays yours

Logits are computed at supervised positions only; means are over the whole step, over micro-batches and ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from ntil.integrations.labels import make_loss
from ntil.integrations.stepping import Stepper
from ntil.losses.base import NumberLoss


class NumberSteps:
    """Optimizer steps with a number loss.

    Args:
        accelerator: accelerate.Accelerator.
        model: as `accelerator.prepare` gives it.
        loss: a `NumberLoss`.

    Attributes:
        number: how many steps there were, which noise depends on; set it when a training is resumed.
    """

    def __init__(self, accelerator: Any, model: Any, loss: NumberLoss) -> None:
        self.accelerator, self.model, self.number = accelerator, model, 0
        self._stepper = Stepper(accelerator.unwrap_model(model), model, make_loss(loss))

    def __call__(self, micro_batches: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """Gradients of one step; `total` and the components of the loss over the whole step."""
        divisor = self.accelerator.gradient_accumulation_steps

        def backward(loss: Tensor) -> None:
            # accelerate divides by it, and the loss is divided by the counts of the whole step already.
            self.accelerator.backward(loss * divisor)

        losses = self._stepper.step(
            micro_batches,
            self.number,
            backward,
            autocast=self.accelerator.autocast,
            unsynchronised=lambda: self.accelerator.no_sync(self.model),
        )
        self.number += 1
        return losses

    def batches(self, loader: Iterable[dict[str, Any]], accumulation: int = 1) -> Iterator[list[dict[str, Any]]]:
        """The micro-batches of each step; the last step of an epoch may have fewer."""
        iterator = iter(loader)
        while micro_batches := list(islice(iterator, accumulation)):
            yield micro_batches
