"""A number loss in Lightning (`lightning` or `pytorch_lightning`).

    from ntil import NTIL
    from ntil.integrations.lightning import NumberModule

    module = NumberModule(model, NTIL(vocab), optimizer=lambda p: torch.optim.AdamW(p, lr=1e-4), accumulation=2)
    Trainer(max_steps=1000).fit(module, loader)  # batches with input_ids, attention_mask, labels

The optimization is manual: `accumulation` micro-batches are collected before the first backward, since means are over
all of them (leave Lightning's `accumulate_grad_batches` at 1, and give `max_grad_norm` here). Logits are computed at
supervised positions only. The last step of an epoch may have fewer micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ntil.integrations.labels import make_loss
from ntil.integrations.stepping import Stepper
from ntil.losses.base import NumberLoss

try:
    from lightning.pytorch import LightningModule
except ImportError:
    try:
        from pytorch_lightning import LightningModule
    except ImportError as error:
        raise ImportError("ntil.integrations.lightning needs Lightning: pip install lightning") from error

MakeOptimizer = Callable[[Iterable[torch.nn.Parameter]], Any]


class NumberModule(LightningModule):
    """A Hugging Face model that is trained with a number loss.

    Args:
        model: with `get_output_embeddings`. loss: a `NumberLoss`.
        optimizer: makes it from the parameters; None for a subclass with `configure_optimizers` of its own.
        accumulation: micro-batches of a step, on each rank.
        max_grad_norm: clips gradients, None doesn't.
    """

    def __init__(
        self,
        model: Any,
        loss: NumberLoss,
        optimizer: MakeOptimizer | None = None,
        accumulation: int = 1,
        max_grad_norm: float | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.loss = model, make_loss(loss)
        self.make_optimizer, self.accumulation, self.max_grad_norm = optimizer, accumulation, max_grad_norm
        self._stepper = Stepper(model, model, self.loss)
        self._collected: list[dict[str, Any]] = []

    def configure_optimizers(self) -> Any:
        if self.make_optimizer is None:
            raise ValueError("NumberModule needs optimizer=..., or a subclass with configure_optimizers")
        return self.make_optimizer(p for p in self.parameters() if p.requires_grad)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Collect a micro-batch, and make a step when it is the step's last."""
        self._collected.append(batch)
        if len(self._collected) == self.accumulation or self.trainer.is_last_batch:
            collected, self._collected = self._collected, []
            self.log_dict({f"loss/{name}": value for name, value in self._step(collected).items()}, prog_bar=False)

    def _step(self, micro_batches: list[dict[str, Any]]) -> dict[str, Tensor]:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        losses = self._stepper.step(micro_batches, self.global_step, self.manual_backward)
        if self.max_grad_norm is not None:
            self.clip_gradients(optimizer, self.max_grad_norm, "norm")
        optimizer.step()
        if (scheduler := self.lr_schedulers()) is not None:
            scheduler.step()
        return losses

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of a batch as a step of its own, logged as `val_loss`."""
        loss = self._stepper.loss_of(batch)
        self.log("val_loss", loss, batch_size=len(batch["labels"]), sync_dist=True)
        return loss
