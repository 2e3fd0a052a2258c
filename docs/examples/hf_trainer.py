"""A number loss in Hugging Face's Trainer through `compute_loss_func`, right under accumulation and on several ranks.

python docs/examples/hf_trainer.py

The Trainer gives `compute_loss_func` the number of supervised tokens in the whole step (`num_items_in_batch`) and does
not divide by the accumulation itself. Cross-entropy needs no more, but means over samples, digits or numbers need those
counts too. `get_batch_samples` is where all micro-batches of a step are at hand.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from plain_torch import encode
from tiny import model as tiny_model
from tiny import rows as tiny_rows
from tiny import tokenizer as tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from ntil import NumberLoss, NumberVocab, StepInfo, ValueEMD, digit_by_digit

LOG_FORM = partial(ValueEMD, form="log")


class StepCounts:
    """Mix into a Trainer: `self.step` is the whole optimizer step, counted over micro-batches and ranks."""

    number_loss: NumberLoss
    step: StepInfo

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            labels = (batch["labels"].to(device) for batch in batches)
            self.step = self.number_loss.step_info(labels, shift=True, draw=self.state.global_step)
            # As `num_items_in_batch`: over all ranks, since the Trainer then multiplies the loss by their number.
            if self.args.world_size > 1 and self.args.average_tokens_across_devices:
                names = ("tokens", "samples", "digits", "numbers")
                sums = {name: self.accelerator.reduce(getattr(self.step, name), "sum") for name in names}
                self.step = replace(self.step, **sums)
        return batches, tokens

    def step_info(self) -> StepInfo:
        """What the loss is to know of the step; in evaluation every batch is a whole of its own."""
        info = self.step if self.model.training else StepInfo()
        if not self.number_loss.uses_embeddings:
            return info
        model = self.accelerator.unwrap_model(self.model)
        return replace(info, output_embeddings=model.get_output_embeddings().weight)


class NumberTrainer(StepCounts, Trainer):
    def __init__(self, *args: Any, number_loss: NumberLoss, **kwargs: Any) -> None:
        super().__init__(*args, compute_loss_func=self._number_loss, **kwargs)
        self.number_loss = number_loss.to(self.args.device)

    def _number_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        return self.number_loss(outputs.logits, labels, info=self.step_info(), shift=True).total


def train(
    folder: str | Path,
    number_loss: type[NumberLoss] | partial = LOG_FORM,
    steps: int = 40,
    batch: int = 8,
    accumulation: int = 2,
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    tokenizer = digit_by_digit(tiny_tokenizer())
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    trainer = NumberTrainer(
        model=tiny_model(tokenizer),
        args=arguments,
        train_dataset=tiny_rows(800),
        eval_dataset=tiny_rows(16, seed=1),
        data_collator=partial(encode, tokenizer),
        number_loss=number_loss(NumberVocab.from_tokenizer(tokenizer)),
    )
    trainer.train()
    trainer.evaluate()
    return trainer.model, trainer.state.log_history


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        train(folder)
