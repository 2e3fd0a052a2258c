"""A number loss in TRL's SFTTrainer.

python docs/examples/trl_sft.py

SFTTrainer's own losses (`loss_type="nll"`, `"dft"`) come from a fused head that gives log-probabilities of the labels
but no logits, and its `compute_loss_func` is deprecated and costs a second forward. So `use_loss` takes the place of
`compute_loss`. The output embedding is applied at supervised positions only, which is what made the fused head cheap.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from datasets import Dataset
from hf_trainer import LOG_FORM
from tiny import model as tiny_model
from tiny import rows as tiny_rows
from tiny import tokenizer as tiny_tokenizer
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from ntil import NumberLoss, NumberVocab, digit_by_digit
from ntil.integrations.trl import use_loss


def train(
    folder: str | Path,
    number_loss: type[NumberLoss] | partial = LOG_FORM,
    steps: int = 40,
    batch: int = 8,
    accumulation: int = 2,
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    tokenizer = digit_by_digit(tiny_tokenizer())
    arguments = SFTConfig(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        save_strategy="no",
        bf16=False,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=tiny_model(tokenizer),
        args=arguments,
        train_dataset=Dataset.from_list(tiny_rows(800)),
        eval_dataset=Dataset.from_list(tiny_rows(16, seed=1)),
        processing_class=tokenizer,
    )
    use_loss(trainer, number_loss(NumberVocab.from_tokenizer(tokenizer)))
    trainer.train()
    trainer.evaluate()
    return trainer.model, trainer.state.log_history


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        train(folder)
