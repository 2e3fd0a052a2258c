"""A number loss in a training loop of your own, with gradient accumulation.

python docs/examples/plain_torch.py
"""

from __future__ import annotations

import torch
from tiny import model as tiny_model
from tiny import rows as tiny_rows
from tiny import tokenizer as tiny_tokenizer
from torch import Tensor
from transformers import PreTrainedModel

from ntil import NumberLoss, NumberVocab, ValueEMD, digit_by_digit


def encode(tokenizer, rows: list[dict[str, str]]) -> dict[str, Tensor]:
    """Right-padded rows, labels -100 on prompts and padding, unshifted as Hugging Face has them.

    Prompt and answer are tokenised apart, so that no token belongs to both.
    """
    sequences = []
    for row in rows:
        prompt = tokenizer(row["prompt"], add_special_tokens=False).input_ids
        answer = [*tokenizer(row["completion"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        sequences.append((prompt + answer, [-100] * len(prompt) + answer))
    width = max(len(ids) for ids, _ in sequences)
    return {
        "input_ids": torch.tensor([i + [tokenizer.pad_token_id] * (width - len(i)) for i, _ in sequences]),
        "attention_mask": torch.tensor([[1] * len(i) + [0] * (width - len(i)) for i, _ in sequences]),
        "labels": torch.tensor([y + [-100] * (width - len(y)) for _, y in sequences]),
    }


def step(
    model: PreTrainedModel, loss: NumberLoss, micro_batches: list[dict[str, Tensor]], number: int
) -> dict[str, float]:
    """Gradients of one optimizer step: the same however its rows are cut into micro-batches.

    Every micro-batch is divided by the counts of all of them, so their losses and gradients just add up.
    """
    info = loss.step_info((batch["labels"] for batch in micro_batches), shift=True, draw=number)
    sums: dict[str, Tensor] = {}
    for batch in micro_batches:
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        total, components = loss(model(**inputs).logits, batch["labels"], info=info, shift=True)
        total.backward()
        for name, value in {"total": total.detach(), **components}.items():
            sums[name] = sums.get(name, 0) + value
    return {name: value.item() for name, value in sums.items() if name != "factor"}


def train(steps: int = 40, batch: int = 8, accumulation: int = 2) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    tokenizer = digit_by_digit(tiny_tokenizer())  # the same tokenizer, unless it merges digits
    model = tiny_model(tokenizer)
    loss = ValueEMD(NumberVocab.from_tokenizer(tokenizer), form="log")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    rows = tiny_rows(steps * batch * accumulation)
    history = []
    for i in range(steps):
        own = rows[i * batch * accumulation :][: batch * accumulation]
        micro_batches = [encode(tokenizer, own[k : k + batch]) for k in range(0, len(own), batch)]
        history.append(step(model, loss, micro_batches, i))
        optimizer.step()
        optimizer.zero_grad()
    return model, history


if __name__ == "__main__":
    for i, logged in enumerate(train()[1]):
        if i % 5 == 4:
            print(f"step {i + 1:3}  " + "  ".join(f"{name} {value:.3f}" for name, value in logged.items()))
