"""A number loss in Hugging Face's Trainer, right under accumulation and on several ranks.

python docs/examples/hf_trainer.py

`use_loss` counts the samples, digits and numbers of the whole step besides its tokens (`num_items_in_batch`), and
applies the output embedding at supervised positions only.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from plain_torch import encode
from tiny import model as tiny_model
from tiny import rows as tiny_rows
from tiny import tokenizer as tiny_tokenizer
from transformers import PreTrainedModel, Trainer, TrainingArguments

from ntil import NumberLoss, NumberVocab, ValueEMD, digit_by_digit
from ntil.integrations.hf_trainer import use_loss

LOG_FORM = partial(ValueEMD, form="log")


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
    trainer = Trainer(
        model=tiny_model(tokenizer),
        args=arguments,
        train_dataset=tiny_rows(800),
        eval_dataset=tiny_rows(16, seed=1),
        data_collator=partial(encode, tokenizer),
    )
    use_loss(trainer, number_loss(NumberVocab.from_tokenizer(tokenizer)))
    trainer.train()
    trainer.evaluate()
    return trainer.model, trainer.state.log_history


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        train(folder)
