"""Hugging Face's Trainer with a number loss: logits only where an answer token is predicted, global denominators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, Trainer

from ntil.interrupt import heed_parent_only
from ntil.losses.base import LossOutput, NumberLoss
from ntil.ranks import Ranks
from ntil.train.ahead import Ahead
from ntil.train.guards import FiniteCheck
from ntil.train.throughput import Throughput


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
        finite: looks at every micro-batch's loss before the optimizer takes it.
    """

    def __init__(
        self,
        *args: Any,
        number_loss: NumberLoss,
        sampler: Sampler[int],
        validate: Callable[[], dict[str, float]],
        finite: FiniteCheck | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        # Our loss is divided by the global counts already; the Trainer must not divide by the accumulation again.
        self.model_accepts_loss_kwargs = True
        self.number_loss = number_loss.to(self.args.device)
        self.number_loss.bind(self.accelerator.unwrap_model(self.model))
        self.head = SupervisedHead(self.accelerator.unwrap_model(self.model))
        self._sampler, self._validate = sampler, validate
        self._finite = finite
        self.throughput = Throughput()
        self._norms: dict[str, Tensor] = {}
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._micro = 0
        self._ranks = Ranks.here()
        self._draws = type(number_loss).at_draw is not NumberLoss.at_draw
        self._places: list[tuple[int, int]] = []
        self._ahead: Ahead | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._sampler

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = super().get_train_dataloader()
        base = getattr(loader, "base_dataloader", loader)  # accelerate's has its workers from the one that it wraps
        base.worker_init_fn = partial(_start_worker, base.worker_init_fn)
        return loader

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        if self.args.dataloader_num_workers:
            epoch_iterator = self._one_ahead(epoch_iterator)
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.throughput.add(sum(b["samples"] for b in batches), sum(b["tokens"] for b in batches))
        self._micro = 0
        if self._draws:
            self._places = self._places_in_step([b["targets"].numel() for b in batches])
        several = self.args.world_size > 1
        self.number_loss.gather = self._over_ranks if several else None
        if self.number_loss.rescale and len(batches) > 1:
            assert isinstance(counts, Tensor)
            whole = self._whole_step(batches, counts)
            self.number_loss.gather = lambda own: whole
        return batches, counts

    def _one_ahead(self, epoch_iterator: Iterator[Any]) -> Ahead:
        if self._ahead is None or self._ahead.batches is not epoch_iterator:
            self._ahead = Ahead(epoch_iterator)
        return self._ahead

    def _places_in_step(self, tokens: list[int]) -> list[tuple[int, int]]:
        """(first, all): where each micro-batch's supervised tokens lie among those of the whole step.

        The rows of a step are dealt micro-batch by micro-batch, rank by rank, so what lies before a micro-batch is
        what all ranks had in earlier ones, and the lower ranks in its own.
        """
        dealt = list(zip(*self._ranks.gather(tokens), strict=True))
        whole = sum(map(sum, dealt))
        return [
            (sum(map(sum, dealt[:micro])) + sum(sizes[: self._ranks.index]), whole) for micro, sizes in enumerate(dealt)
        ]

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """[tokens, samples, digits, numbers] of the whole optimizer step, over accumulation and ranks."""
        return self._over_ranks(torch.tensor([_counts(b) for b in batch_samples], device=device).reshape(-1, 4).sum(0))

    def _over_ranks(self, own: Tensor) -> Tensor:
        return self.accelerator.reduce(own, "sum") if self.args.world_size > 1 else own

    @torch.no_grad()
    def _whole_step(self, batches: list[Any], counts: Tensor) -> Tensor:
        """[CE, aux] of all micro-batches and ranks of this step.

        A rescaled loss multiplies its terms with CE / aux of the whole step, which no micro-batch knows when its own
        backward runs. So the forward runs twice under accumulation, and only there.
        """
        whole = torch.zeros(2, device=self.args.device)
        self.number_loss.gather = None
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            for batch in batches:
                output = self._loss(self.model_wrapped, self._prepare_inputs(batch), counts)[0]
                whole += torch.stack([output.components[name].float() for name in ("ce", "aux")])
        self._micro = 0
        return self._over_ranks(whole)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        assert isinstance(num_items_in_batch, Tensor)
        output, logits = self._loss(model, inputs, num_items_in_batch, self._logs_next())
        self._add(output.components)
        if self._finite is not None:
            whole = self.accelerator.unwrap_model(model)
            self._finite(whole, output.total, output.components, self.state.global_step + 1, inputs["ids"])
        # Ranks' gradients are averaged; ours must be summed, because every term is divided by the global count.
        loss = output.total * self.accelerator.num_processes
        return (loss, logits) if return_outputs else loss

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """
        Raises:
            FloatingPointError: a loss that is not finite, the last one's included.
        """
        output = super().train(*args, **kwargs)
        self._checked()
        return output

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # On a GPU the last loss is still unchecked here, and the weights that it spoilt would replace good ones.
        self._checked()
        super()._save_checkpoint(*args, **kwargs)

    def _checked(self) -> None:
        if self._finite is not None:
            self._finite.flush()

    def _logs_next(self) -> bool:
        return (self.state.global_step + 1) % self.args.logging_steps == 0 and self._micro == 0

    def _loss(
        self, model: torch.nn.Module, inputs: dict[str, Any], counts: Tensor, norms: bool = False
    ) -> tuple[LossOutput, Tensor]:
        inputs = {k: v for k, v in inputs.items() if k not in ("samples", "tokens", "ids")}
        positions, targets, spans = (inputs.pop(k) for k in ("positions", "targets", "spans"))
        logits = self.head.logits(model, inputs, positions)
        spans = spans.to(logits.device) if spans is not None else None
        if self._draws:
            self.number_loss.at_draw(self.state.global_step, *self._places[self._micro])
        self._micro += 1
        tokens, samples, digits, numbers = counts
        of_step = {
            "num_tokens": tokens,
            "num_samples": samples,
            "num_digits": digits.clamp(min=1),
            "num_numbers": numbers.clamp(min=1),
        }
        output = self.number_loss(logits, targets, spans, **of_step)
        if norms:
            self._norms = self.number_loss.gradient_norms(logits, targets, spans, **of_step)
        return output, logits

    def _add(self, components: dict[str, Tensor]) -> None:
        for name, value in components.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._summed += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._summed:
            logs = {**logs, **self._components(), **self._shares(), **self.throughput.take(self.args.world_size)}
            self._sums, self._summed = {}, 0
        super().log(logs, start_time)

    def _components(self) -> dict[str, float]:
        """Means over the steps of the logging window."""
        # Components of the micro-batches and ranks of one step add up, as their gradients do; the factor is one.
        sums = self._over_ranks(torch.stack(list(self._sums.values())))
        micro = self._summed * self.args.world_size
        steps = self._summed / self.args.gradient_accumulation_steps
        divided = {name: micro if name == "factor" else steps for name in self._sums}
        return {f"loss/{n}": value / divided[n] for n, value in zip(divided, sums.tolist(), strict=True)}

    def _shares(self) -> dict[str, float]:
        """How hard each part of the loss pulls on the logits of the step's first micro-batch; they sum to one."""
        if not self._norms:
            return {}
        whole = torch.stack(list(self._norms.values()))
        shares = (whole / whole.sum().clamp(min=1e-30)).tolist()
        return {f"gradient_share/{name}": share for name, share in zip(self._norms, shares, strict=True)}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        # Adapters generate through the model that they wrap, which accelerate's own autocast is not around.
        with self.throughput.pause(), self.accelerator.autocast():
            metrics = {f"eval_{k}": v for k, v in self._validate().items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _counts(batch: dict[str, Any]) -> list[float]:
    """Tokens, samples, digits and numbers of a micro-batch."""
    spans = batch["spans"]
    numbers = (0, 0) if spans is None else (int(spans.is_digit.sum()), int(spans.is_number.sum()))
    return [float(n) for n in (batch["targets"].numel(), batch["samples"], *numbers)]


def _start_worker(seed: Any, index: int) -> None:
    seed(index)
    heed_parent_only()
