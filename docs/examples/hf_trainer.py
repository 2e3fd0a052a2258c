"""A number loss in Hugging Face's Trainer through `compute_loss_func`, right under accumulation and on several ranks.

python docs/examples/hf_trainer.py

The Trainer gives `compute_loss_func` the number of supervised tokens in the whole step (`num_items_in_batch`) and does
not divide by the accumulation itself. Cross-entropy needs no more, but means over samples, digits or numbers need those
counts too. `get_batch_samples` is where all micro-batches of a step are at hand.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from plain_torch import encode
from tiny import model as tiny_model
from tiny import rows as tiny_rows
from tiny import tokenizer as tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainingArguments

from ntil import NumberLoss, NumberVocab, ValueEMD, digit_by_digit

LOG_FORM = partial(ValueEMD, form="log")


class StepCounts:
    """Mix into a Trainer: `self.counts` are those of the whole optimizer step, over micro-batches and ranks."""

    number_loss: NumberLoss
    counts: dict[str, Tensor]

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        batches, tokens = super().get_batch_samples(epoch_iterator, num_batches, device)
        if batches:
            counts = self.number_loss.counts((batch["labels"].to(device) for batch in batches), shift=True)
            # As `num_items_in_batch`: over all ranks, since the Trainer then multiplies the loss by their number.
            several = self.args.world_size > 1 and self.args.average_tokens_across_devices
            self.counts = {k: self.accelerator.reduce(v, "sum") if several else v for k, v in counts.items()}
        return batches, tokens


class NumberTrainer(StepCounts, Trainer):
    def __init__(self, *args: Any, number_loss: NumberLoss, **kwargs: Any) -> None:
        super().__init__(*args, compute_loss_func=self._number_loss, **kwargs)
        self.number_loss = number_loss.to(self.args.device)
        self.number_loss.bind(self.model)

    def _number_loss(self, outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
        # In evaluation every batch is a whole of its own.
        counts = self.counts if self.model.training else {}
        return self.number_loss(outputs.logits, labels, shift=True, **counts).total


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
