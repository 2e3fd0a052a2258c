"""Generate answers, let the task read and score them, write one line each and a summary."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from ntil.collate import Collator
from ntil.losses import NumberLoss
from ntil.runs import read_jsonl
from tasks.base import Row


@torch.no_grad()
def generate(model: Any, collator: Collator, rows: list[Row]) -> list[str]:
    """Greedy answers of a batch of rows, cut at the end token."""
    family = collator.family
    inputs = {k: v.to(model.device) for k, v in collator.prompts(rows).items()}
    output = model.generate(
        **inputs,
        max_new_tokens=collator.task.max_new_tokens,
        do_sample=False,
        pad_token_id=family.tokenizer.pad_token_id,
        eos_token_id=family.end_id,
    )
    return [family.decode(ids) for ids in output[:, inputs["input_ids"].shape[1] :].tolist()]


def records(
    model: PreTrainedModel,
    collator: Collator,
    rows: Dataset,
    batch_size: int,
    title: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Row]:
    """A record per row, in order; `check` is called before every batch and may raise; a title shows a bar."""
    training = model.training
    model.eval()
    bar = tqdm(total=len(rows), desc=title, unit="row", disable=title is None)
    try:
        for start in range(0, len(rows), batch_size):
            check()
            batch = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
            for row, text in zip(batch, generate(model, collator, batch), strict=True):
                yield collator.task.record(text.strip(), row)
            bar.update(len(batch))
    finally:
        bar.close()
        model.train(training)


def evaluate_to(file: Path, found: Iterator[Row], summarize: Callable[[Iterator[Row]], dict[str, float]]) -> Any:
    """Write records to `file` (whole or not at all) and summarize them from there, in constant memory."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with partial.open("w") as out:
            for record in found:
                out.write(json.dumps(record, ensure_ascii=False) + "\n")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return summarize(read_jsonl(file))


@torch.no_grad()
def teacher_forced(
    head: Any, model: PreTrainedModel, collator: Collator, loss: NumberLoss, rows: Dataset, batch_size: int
) -> dict[str, float]:
    """Per-token cross-entropy of the given rows, the one currency in which all losses can be compared."""
    training = model.training
    model.eval()
    summed, tokens = 0.0, 0
    for start in range(0, len(rows), batch_size):
        batch = collator([rows[i] for i in range(start, min(start + batch_size, len(rows)))])
        inputs = {k: v.to(model.device) for k, v in batch.items() if isinstance(v, torch.Tensor)}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = head.logits(model, inputs, positions)
        summed += torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item()
        tokens += targets.numel()
    model.train(training)
    return {"ce": summed / tokens}
