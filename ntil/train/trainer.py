"""Hugging Face's Trainer with a number loss: logits only where an answer token is predicted, global denominators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import seed_worker

from ntil.compat import end_where_batches_cannot_be_sent, leave_out_tied_frozen
from ntil.components import Components
from ntil.config.schema import RunConfig
from ntil.distributed.interrupt import ignore_signals_in_data_worker
from ntil.distributed.ranks import Ranks
from ntil.distributed.zero3 import any_partitioned, gathered
from ntil.losses.base import NumberLoss
from ntil.losses.step import LossOutput, LossParts, StepInfo, is_factor, places_in_step
from ntil.models.head import SupervisedHead
from ntil.models.learning_rates import LearningRates
from ntil.models.optimizers import schedule_arguments, typed_options
from ntil.numbers.spans import NumberSpans
from ntil.packing.masks import attention_mask
from ntil.packing.tower import SharedTower
from ntil.train.arguments import training_arguments
from ntil.train.averaging import WeightAverage
from ntil.train.callbacks import IntervalsOfArguments
from ntil.train.drawn_rows import DrawnRows
from ntil.train.guards import FiniteCheck
from ntil.train.task_log import TaskLog
from ntil.train.throughput import Throughput

# Keys of a batch that are no inputs of the model: the collator's, and those that the trainer adds.
NOT_INPUTS = (
    "positions",
    "targets",
    "spans",
    "samples",
    "tokens",
    "digits",
    "numbers",
    "boxes",
    "ids",
    "info",
    "first",
    "unmeasured",
    "segments",
    "tower",
    "tasks",
    "task_counts",
)
DATA_LIMIT = 600  # seconds that a batch may take: a data worker may be stuck, as on a file system that is gone
Validate = Callable[["NumberTrainer"], dict[str, float]]


def build_trainer(
    config: RunConfig,
    components: Components,
    model: Any,
    rows: Dataset,
    folder: Path,
    *,
    arguments: TrainingArguments | None = None,
    validation: Dataset | None = None,
    validate: Validate | None = None,
    callbacks: list[TrainerCallback] | None = None,
    finite: FiniteCheck | None = None,
) -> NumberTrainer:
    """The trainer of a run's configuration.

    Args:
        rows: to train on. folder: of its checkpoints.
        arguments: made from the config where they aren't given; their steps become those of the rows.
        validation, validate: the rows to validate on, and how.

    Raises:
        ConfigError: a batch that doesn't divide over the ranks, or a curriculum that doesn't fit the rows.
    """
    optim, members = config.optim, components.task.members
    steps = optim.steps_for(len(rows))
    assert steps is not None
    arguments = arguments or training_arguments(config, folder, components.family.dtype)
    arguments.max_steps, arguments.lr_scheduler_kwargs = steps, schedule_arguments(optim, steps)
    average = None if optim.ema is None else WeightAverage(model, optim.ema, Ranks.here())
    drawn = DrawnRows.of(config, components, rows, steps, arguments.world_size * arguments.gradient_accumulation_steps)
    packed = drawn.packed
    return NumberTrainer(
        model=model,
        args=arguments,
        train_dataset=drawn.rows,
        eval_dataset=validation,
        data_collator=packed.collator if packed else components.collator,
        callbacks=[*([average] if average else []), *(callbacks or [])],
        number_loss=components.loss,
        sampler=drawn.sampler,
        batches=drawn.batches,
        tower=packed.tower(model) if packed else None,
        validate=validate or (lambda _trainer: {}),
        learning_rates=LearningRates(components.family, optim),
        finite=finite,
        average=average,
        task_log=TaskLog(members) if members else None,
    )


class NumberTrainer(Trainer):
    """Trainer with a `NumberLoss`, for batches of `ntil.collator.Collator`.

    Args:
        number_loss: called on the supervised logits; its components are logged as means over the logging window.
        sampler: the rows' order.
        batches: the rows of every micro-batch, over ranks and accumulation; None: equally many, in the rows' order.
        tower: follows the batches' plans of which rows show one picture.
        validate: called by `evaluate` with this trainer, returns metrics.
        learning_rates: of the parts; None: all have that of the arguments.
        finite: checks every micro-batch's loss and every step's gradient before the optimizer uses it.
        average: of the weights, that is validated in their place; None: the weights are.
        task_log: of a mixture.
    """

    def __init__(
        self,
        *args: Any,
        number_loss: NumberLoss,
        sampler: Sampler[int],
        batches: Sampler[list[int]] | None = None,
        tower: SharedTower | None = None,
        validate: Validate,
        learning_rates: LearningRates | None = None,
        finite: FiniteCheck | None = None,
        average: WeightAverage | None = None,
        task_log: TaskLog | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.task_log = task_log
        if task_log is not None:
            self.add_callback(task_log)
        self.remove_callback(PrinterCallback)
        self.add_callback(IntervalsOfArguments())
        # Our loss is divided by the global counts already; the Trainer must not divide by the accumulation again.
        self.model_accepts_loss_kwargs = True
        self.number_loss = number_loss.to(self.args.device)
        self.inner_model: PreTrainedModel = self.accelerator.unwrap_model(self.model)
        self.head = SupervisedHead(self.inner_model)
        self.throughput = Throughput()
        self._sampler, self._batches, self._validate, self._finite = sampler, batches, validate, finite
        self.average = average
        self._tower = tower
        self._learning_rates = learning_rates if learning_rates and learning_rates.of_parts else None
        self._rates: dict[str, float] = {}
        self._norms: dict[str, Tensor] = {}
        self._reference: Tensor | None = None  # of the step, where it has several micro-batches
        self._without_reference: list[Any] = []
        self._sums: dict[str, Tensor] = {}
        self._summed = 0
        self._ranks = Ranks.here()

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return self._sampler

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: Any = None) -> tuple[Any, dict[str, Any]]:
        """As transformers has it, with the options of `optim.options` as they were given, not as texts."""
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        typed = {key: value for key, value in typed_options(args.optim_args).items() if key in options}
        return kind, {**options, **typed}

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        if self._learning_rates is None or self.optimizer is not None:
            return super().create_optimizer(model)
        model = self.model if model is None else model
        kind, options = self.get_optimizer_cls_and_kwargs(self.args, model)
        groups = self._learning_rates.groups(model, self.get_decay_parameter_names(model))
        # Taken in place of transformers' own groups (5.23), so that what else it does to an optimizer is done.
        self.optimizer_cls_and_kwargs = kind, {**options, "optimizer_dict": groups}
        return super().create_optimizer(model)

    def _get_learning_rate(self) -> float:
        if self._learning_rates is not None and self.optimizer is not None:
            self._rates = self._learning_rates.now(self.optimizer.param_groups)
        return super()._get_learning_rate()

    def get_train_dataloader(self) -> DataLoader[Any]:
        loader = super().get_train_dataloader() if self._batches is None else self._loader_of(self._batches)
        base = getattr(loader, "base_dataloader", loader)  # accelerate's wraps the one with the workers
        base.worker_init_fn = partial(_start_worker, base.worker_init_fn)
        base.timeout = DATA_LIMIT if base.num_workers else 0
        return loader

    def _loader_of(self, batches: Sampler[list[int]]) -> DataLoader[Any]:
        arguments = self.args
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=arguments.dataloader_num_workers,
            pin_memory=arguments.dataloader_pin_memory,
            worker_init_fn=partial(
                seed_worker, num_workers=arguments.dataloader_num_workers, rank=arguments.process_index
            ),
        )
        return self.accelerator.prepare(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """The micro-batches of a step, each with the `StepInfo` of the step."""
        batches, counts = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.throughput.add(sum(b["samples"] for b in batches), sum(b["tokens"] for b in batches))
        for number, (batch, info) in enumerate(zip(batches, self._step_infos(batches, counts), strict=True)):
            batch |= {"info": info, "first": number == 0}
        # Not computed here: of a resumed run the random state is restored after this call.
        self._reference = None
        self._without_reference = batches if self.number_loss.needs_reference and len(batches) > 1 else []
        return batches, counts

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor:
        """Counts [tokens, samples, digits, numbers, boxes] of the whole optimizer step, over accumulation and ranks."""
        names = ("samples", "digits", "numbers", "boxes")
        counts = [[b["targets"].numel(), *(b[name] for name in names)] for b in batch_samples]
        if self.task_log is not None:
            of_tasks = self.task_log.counts(batch_samples)
            counts = [[*all_rows, *by_task] for all_rows, by_task in zip(counts, of_tasks, strict=True)]
        width = len(counts[0]) if counts else 5
        summed = torch.tensor(counts, dtype=torch.float32).reshape(-1, width).sum(0)
        # A copy that blocks would wait for all that the GPU has still to do.
        summed = self._over_ranks(summed.to(device, non_blocking=True))
        if self.task_log is not None and counts:
            self.task_log.begin_step(summed[5:])
        return summed[:5]

    def _step_infos(self, batches: list[Any], counts: Any) -> list[StepInfo]:
        assert isinstance(counts, Tensor)
        tokens, samples, digits, numbers, boxes = counts
        draw = self.state.global_step
        step = StepInfo(tokens, samples, digits.clamp(min=1), numbers.clamp(min=1), draw, shapes=boxes.clamp(min=1))
        if not self.number_loss.uses_noise:
            return [step] * len(batches)
        dealt = self._ranks.gather([b["targets"].numel() for b in batches])
        places = places_in_step(dealt, self._ranks.index)
        return [replace(step, first_token=first, step_tokens=tokens) for first, tokens in places]

    def _over_ranks(self, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor, "sum") if self.args.world_size > 1 else tensor

    @torch.no_grad()
    def _reference_of_step(self, batches: list[Any]) -> Tensor:
        """`NumberLoss.reference`, summed over all micro-batches and ranks of this step.

        A rescaled loss multiplies its terms with CE / aux of the whole step, which is not known when the backward of a
        micro-batch runs. So the forward runs twice under accumulation, and only there.
        """
        references: list[Tensor] = []
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            for batch in batches:
                _, _, reference = self._parts(self.model_wrapped, self._prepare_inputs(batch))
                assert reference is not None
                references.append(reference)
        return self._over_ranks(torch.stack(references).sum(0))

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        if self._without_reference:
            self._reference = self._reference_of_step(self._without_reference)
            self._without_reference = []
        if self._reference is not None:
            inputs["info"] = replace(inputs["info"], reference=self._reference)
        parts, logits, reference = self._parts(model, inputs)
        if reference is not None and inputs["info"].reference is None:
            reference = self._over_ranks(reference)
        output: LossOutput = self.number_loss.join(parts, reference)
        if inputs["first"] and self._logs_next():
            with self._seen_by_loss(inputs, logits) as loss_inputs:
                self._norms = self.number_loss.gradient_norms(logits, *loss_inputs, reference)
        if self.task_log is not None and self._logs_next():
            with self._seen_by_loss(inputs, logits) as (targets, spans, info):
                assert spans is not None
                self.task_log.add(self.number_loss, logits.detach(), targets, spans, info, inputs["tasks"])
        self._add(output.components)
        if self._finite is not None:
            step = self.state.global_step + 1
            self._finite(self.inner_model, output.total, output.components, step, inputs["ids"])
        # Ranks' gradients are averaged; ours must be summed, because every term is divided by the global count.
        loss = output.total * self.accelerator.num_processes
        return (loss, logits) if return_outputs else loss

    def _parts(self, model: torch.nn.Module, inputs: dict[str, Any]) -> tuple[LossParts, Tensor, Tensor | None]:
        """The parts of a micro-batch's loss, its logits, and the step's reference or else the micro-batch's."""
        model_inputs = {k: v for k, v in inputs.items() if k not in NOT_INPUTS}
        if "segments" in inputs:
            attention = self.inner_model.config._attn_implementation
            model_inputs["attention_mask"] = attention_mask(inputs["segments"], attention, self._query_dtype)
        with self._tower.following(inputs.get("tower")) if self._tower else nullcontext():
            logits = self.head.logits(model, model_inputs, inputs["positions"])
        reference: Tensor | None = inputs["info"].reference
        with self._seen_by_loss(inputs, logits) as loss_inputs:
            parts = self.number_loss.parts(logits, *loss_inputs)
            if reference is None and self.number_loss.needs_reference:
                reference = self.number_loss.reference(parts, logits, *loss_inputs)
        return parts, logits, reference

    @property
    def _query_dtype(self) -> torch.dtype:
        """Dtype in which the model's attention computes."""
        if self.args.bf16 or self.args.fp16:
            return torch.bfloat16 if self.args.bf16 else torch.float16
        return self.inner_model.dtype

    @contextmanager
    def _seen_by_loss(
        self, inputs: dict[str, Any], logits: Tensor
    ) -> Iterator[tuple[Tensor, NumberSpans | None, StepInfo]]:
        """Targets, spans and step of a micro-batch, with the whole output embeddings for a loss that uses them."""
        spans = inputs["spans"].to(logits.device) if inputs["spans"] is not None else None
        if not self.number_loss.uses_embeddings:
            yield inputs["targets"], spans, inputs["info"]
            return
        embeddings = self.inner_model.get_output_embeddings().weight
        with gathered([embeddings]):
            yield inputs["targets"], spans, replace(inputs["info"], output_embeddings=embeddings)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, and check the last loss, which on a GPU is still pending, and the trained weights.

        Raises:
            FloatingPointError: a loss, a gradient or weights that are not finite, the last ones included.
        """
        output = super().train(*args, **kwargs)
        self._check_weights()
        return output

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # On a GPU the last loss is still unchecked here, and weights updated with it might replace good ones.
        self._check_weights()
        if self.is_deepspeed_enabled:
            leave_out_tied_frozen(self.deepspeed)
        super()._save_checkpoint(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        # Each rank has all weights under ZeRO-2. The Trainer copies them, the base among them, to save adapters alone.
        copies = self.is_deepspeed_enabled and not any_partitioned(self.inner_model)
        if copies and hasattr(self.inner_model, "peft_config"):
            self._save(output_dir)
            return
        super().save_model(output_dir, _internal_call)

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        # Private in transformers (5.23), and the one place between the clipping and the optimizer that knows the norm.
        norm = super()._get_grad_norm(*args, **kwargs)
        if self._finite is not None:
            check = self._finite.scaled_gradient if self.args.fp16 else self._finite.gradient
            check(self.inner_model, norm, self.state.global_step + 1)
        return norm

    def _check_weights(self) -> None:
        if self._finite is not None:
            self._finite.flush()
            self._finite.weights(self.inner_model, self.state.global_step)

    def _logs_next(self) -> bool:
        return (self.state.global_step + 1) % self.args.logging_steps == 0

    def _add(self, components: dict[str, Tensor]) -> None:
        for name, value in components.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._summed += 1

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self._summed:
            logs = {
                **logs,
                **self._components(),
                **self._shares(),
                **self._part_rates(),
                **(self.task_log.take(self._over_ranks) if self.task_log else {}),
                **self.throughput.take(self.args.world_size),
            }
            self._sums, self._summed = {}, 0
        super().log(logs, start_time)

    def _part_rates(self) -> dict[str, float]:
        return {f"learning_rate/{part}": rate for part, rate in self._rates.items()}

    def _components(self) -> dict[str, float]:
        """Means over the steps of the logging window."""
        # Components of a step's micro-batches and ranks add up, as their gradients do; the factor is common to all.
        sums = self._over_ranks(torch.stack(list(self._sums.values())))
        micro = self._summed * self.args.world_size
        steps = self._summed / self.args.gradient_accumulation_steps
        divisors = {name: micro if is_factor(name) else steps for name in self._sums}
        return {f"loss/{n}": value / divisors[n] for n, value in zip(divisors, sums.tolist(), strict=True)}

    def _shares(self) -> dict[str, float]:
        """The share of each part of the loss in the gradient on the logits of the step's first micro-batch."""
        if not self._norms:
            return {}
        norms = torch.stack(list(self._norms.values()))
        shares = (norms / norms.sum().clamp(min=1e-30)).tolist()
        return {f"gradient_share/{name}": share for name, share in zip(self._norms, shares, strict=True)}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        if self._finite is not None:
            self._finite.flush()  # the best weights are stored where they are validated
        # Callbacks may store what was validated, so they see the same weights.
        with self.average.applied() if self.average else nullcontext():
            # Adapters generate through the model that they wrap, outside of accelerate's own autocast.
            with self.throughput.pause(), self.accelerator.autocast():
                metrics = {f"eval_{k}": v for k, v in self._validate(self).items()}
            if any_partitioned(self.inner_model):
                # What ZeRO-3 has fetched ahead of a forward that doesn't come can't be gathered for a save: it stays in
                # flight, as with adapters (DeepSpeed 0.19.8).
                engine: Any = self.deepspeed
                engine.empty_partition_cache()
            self.log(dict(metrics))
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


def _start_worker(seed: Any, index: int) -> None:
    seed(index)
    ignore_signals_in_data_worker()
    end_where_batches_cannot_be_sent()
