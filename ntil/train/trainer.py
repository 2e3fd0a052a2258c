"""Hugging Face's Trainer with a number loss: logits only where an answer token is predicted, global denominators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import PreTrainedModel, Trainer

from ntil.losses.base import NumberLoss


class SupervisedHead:
    """Feeds the output embedding only the hidden states at `positions`, so that logits are [N, V].

    A forward pre-hook on the head itself: it needs to know nothing about the model around it, and works under any
    wrapper (DeepSpeed, peft) because it is the module that is hooked, not the model's forward that is rewritten.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(f"{type(model).__name__} has no output embedding to predict tokens with")
        self.positions: Tensor | None = None
        self._handle = head.register_forward_pre_hook(self._select)

    def _select(self, module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.positions is None:
            return None
        hidden = args[0]
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, self.positions), *args[1:])

    def logits(self, model: torch.nn.Module, inputs: dict[str, Any], positions: Tensor) -> Tensor:
        """[N, V] logits at `positions` of the flattened batch, from any wrapper around the hooked model."""
        self.positions = positions
        try:
            return model(**inputs, use_cache=False).logits
        finally:
            self.positions = None


class NumberTrainer(Trainer):
    """Trains with a `NumberLoss`; takes the batches of `ntil.collate.Collator`.

    Args:
        number_loss: called on the supervised logits; its components are logged as means over the logging window.
        sampler: the rows' order.
        validate: called by `evaluate`, returns metrics.
    """

    def __init__(
        self,
        *args: Any,
        number_loss: NumberLoss,
        sampler: Sampler[int],
        validate: Callable[[], dict[str, float]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # Our loss is divided by the global counts already; the Trainer must not divide by the accumulation again.
        self.model_accepts_loss_kwargs = True
        self.number_loss = number_loss.to(self.args.device)
        self.head = SupervisedHead(self.accelerator.unwrap_model(self.model))
        self._sampler, self._validate = sampler, validate
        self._sums: dict[str, Tensor] = {}
        self._summed = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._sampler

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """[tokens, samples] of the whole optimizer step, over accumulation and ranks."""
        counts = [[float(b["targets"].numel()), float(b["samples"])] for b in batch_samples]
        total = torch.tensor(counts, dtype=torch.float32, device=device).reshape(-1, 2).sum(0)
        if self.args.world_size > 1:
            total = self.accelerator.gather(total[None]).sum(0)
        return total

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        assert isinstance(num_items_in_batch, Tensor)
        inputs = dict(inputs)
        positions, targets, spans = (inputs.pop(k) for k in ("positions", "targets", "spans"))
        inputs.pop("samples")
        logits = self.head.logits(model, inputs, positions)
        spans = spans.to(logits.device) if spans is not None else None
        tokens, samples = num_items_in_batch[0], num_items_in_batch[1]
        output = self.number_loss(logits, targets, spans, num_tokens=tokens, num_samples=samples)
        self._add(output.components)
        # Ranks' gradients are averaged; ours must be summed, because every term is divided by the global count.
        loss = output.total * self.accelerator.num_processes
        return (loss, logits) if return_outputs else loss

    def _add(self, components: dict[str, Tensor]) -> None:
        for name, value in components.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._summed += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._summed:
            # Components of the micro-batches of one step add up, as their gradients do.
            steps = self._summed / self.args.gradient_accumulation_steps
            logs = {**logs, **{f"loss/{name}": (value / steps).item() for name, value in self._sums.items()}}
            self._sums, self._summed = {}, 0
        super().log(logs, start_time)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = {f"eval_{k}": v for k, v in self._validate().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics
