"""Answers of a model whose numbers are read from one hidden state, see `ntil.losses.regression`."""

from __future__ import annotations

from typing import Any

import torch

from data.common.rows import Row
from ntil.collator import Collator
from ntil.models.head import SupervisedHead


@torch.no_grad()
def read_answers(model: Any, collator: Collator, rows: list[Row]) -> list[str]:
    """The answers of a batch of rows, as the task writes the numbers that are read at the ends of their prompts."""
    assert collator.reader is not None
    count = collator.task.number_count
    assert count is not None
    layout = collator.layout(collator.encode_all(rows, [None] * len(rows)))
    inputs = {name: value.to(model.device) for name, value in layout.inputs.items()}
    with SupervisedHead(model) as head:
        logits = head.logits(model, inputs, layout.prompt_ends.to(model.device))
    numbers = collator.reader(logits)[:, :count].tolist()
    return [collator.task.written(values, row) for values, row in zip(numbers, rows, strict=True)]
