"""A number loss in TRL's SFTTrainer.

python docs/examples/trl_sft.py

SFTTrainer's own losses (`loss_type="nll"`, `"dft"`) come from a fused head that gives log-probabilities of the labels
but no logits, and its `compute_loss_func` is deprecated and costs a second forward. So `compute_loss` is overridden, as
TRL advises. The output embedding is applied at supervised positions only, which is what made the fused head cheap.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from hf_trainer import LOG_FORM, StepCounts
from tiny import model as tiny_model
from tiny import rows as tiny_rows
from tiny import tokenizer as tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel
from trl import SFTConfig, SFTTrainer

from ntil import NumberLoss, NumberSpans, NumberVocab, digit_by_digit
from ntil.models.head import SupervisedHead


class NumberSFTTrainer(StepCounts, SFTTrainer):
    def __init__(self, *args: Any, number_loss: NumberLoss, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Says that the loss is divided by the counts of the whole step already.
        self.model_accepts_loss_kwargs = True
        self.number_loss = number_loss.to(self.args.device)
        self.head = SupervisedHead(self.accelerator.unwrap_model(self.model))

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        labels = inputs["labels"]
        inputs = {name: value for name, value in inputs.items() if name not in ("labels", "use_cache")}
        targets = labels[:, 1:]
        supervised = targets != -100
        rows, columns = supervised.nonzero(as_tuple=True)
        logits = self.head.logits(model, inputs, rows * labels.shape[1] + columns)  # the state before predicts a token
        spans = NumberSpans.find(targets, self.number_loss.vocab, self.number_loss.number_style)
        spans = spans.select(supervised.flatten())
        loss = self.number_loss(logits, targets[supervised], spans, self.step_info()).total
        if self.model.training and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # the gradients of the ranks are averaged
        return (loss, model(**inputs)) if return_outputs else loss


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
    trainer = NumberSFTTrainer(
        model=tiny_model(tokenizer),
        args=arguments,
        train_dataset=Dataset.from_list(tiny_rows(800)),
        eval_dataset=Dataset.from_list(tiny_rows(16, seed=1)),
        processing_class=tokenizer,
        number_loss=number_loss(NumberVocab.from_tokenizer(tokenizer)),
    )
    trainer.train()
    trainer.evaluate()
    return trainer.model, trainer.state.log_history


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        train(folder)
