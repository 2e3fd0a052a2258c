"""Generate answers, let the task read and score them, write one line each and a summary."""

from __future__ import annotations

import heapq
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
from ntil.diagnostics import DigitTally, added, means
from ntil.ranks import Ranks
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
    return (record for _, record in dealt_records(model, collator, rows, batch_size, Ranks(), title, check))


def dealt_records(
    model: PreTrainedModel,
    collator: Collator,
    rows: Dataset,
    batch_size: int,
    ranks: Ranks,
    title: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Row]]:
    """The records of this rank's batches, each with its row's index.

    All ranks go through the same number of rounds, so `check` may be an agreement among them.
    """
    training = model.training
    model.eval()
    bar = tqdm(total=len(rows), desc=title, unit="row", disable=title is None)
    try:
        for indices, spare in _rounds(len(rows), batch_size, ranks):
            check()
            if spare and not _partitioned(model):
                continue
            batch = [rows[i] for i in indices]
            texts = generate(model, collator, batch)
            if not spare:
                for i, row, text in zip(indices, batch, texts, strict=True):
                    yield i, collator.task.record(text.strip(), row)
            bar.update(min(len(batch) * ranks.count, len(rows) - bar.n))
    finally:
        bar.close()
        model.train(training)


def _rounds(rows: int, batch_size: int, ranks: Ranks) -> Iterator[tuple[range, bool]]:
    """This rank's batches, dealt in turn; in the last round there may be none left, then one is met again as a spare.

    Every batch is one that a single rank would have had too, unless there are fewer of those than ranks.
    """
    size = max(1, min(batch_size, -(-rows // ranks.count)))
    batches = [range(start, min(start + size, rows)) for start in range(0, rows, size)]
    for first in range(0, len(batches), ranks.count):
        mine = first + ranks.index
        yield batches[min(mine, len(batches) - 1)], mine >= len(batches)


def _partitioned(model: torch.nn.Module) -> bool:
    """Under ZeRO-3 a forward is a joint act of all ranks: one that has no rows left must join in nevertheless."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


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


def evaluate_dealt(
    file: Path,
    found: Iterator[tuple[int, Row]],
    summarize: Callable[[Iterator[Row]], dict[str, float]],
    ranks: Ranks,
) -> Any:
    """`evaluate_to` over all ranks, which share the folder; rank 0 joins their parts in order and has the metrics."""
    if ranks.count == 1:
        return evaluate_to(file, (record for _, record in found), summarize)
    parts = [file.with_name(f".{file.name}.part{index}") for index in range(ranks.count)]
    own = parts[ranks.index]
    try:
        with own.open("w") as out:
            for row, record in found:
                out.write(json.dumps({"row": row, "record": record}, ensure_ascii=False) + "\n")
        ranks.barrier()
        metrics = None
        if ranks.first:
            joined = heapq.merge(*map(read_jsonl, parts), key=lambda line: line["row"])
            metrics = evaluate_to(file, (line["record"] for line in joined), summarize)
        ranks.barrier()
        return metrics
    finally:
        own.unlink(missing_ok=True)


@torch.no_grad()
def teacher_forced(
    head: Any,
    model: PreTrainedModel,
    collator: Collator,
    rows: Dataset,
    batch_size: int,
    ranks: Ranks | None = None,
) -> tuple[dict[str, float], dict[str, Any]]:
    """The one currency in which all losses can be compared: per-token cross-entropy, and what happens at digits.

    Returns:
        Means (`ce` and those of `ntil.diagnostics`), and the digit tables behind them.
    """
    ranks = ranks or Ranks()
    training = model.training
    model.eval()
    sums = []
    digits = DigitTally(collator.vocab, model.device) if collator.vocab else None
    for indices, spare in _rounds(len(rows), batch_size, ranks):
        if spare and not _partitioned(model):
            continue
        batch = collator([rows[i] for i in indices])
        inputs = {k: v.to(model.device) for k, v in batch.items() if isinstance(v, torch.Tensor)}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = head.logits(model, inputs, positions)
        cost = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item()
        if not spare:
            sums.append((indices.start, cost, targets.numel()))
            if digits:
                digits.add(logits, targets)
    model.train(training)
    # In the order of the rows, as one rank would have added them.
    everyone = sorted(part for parts in ranks.gather(sums) for part in parts)
    ce = sum(cost for _, cost, _ in everyone) / sum(tokens for *_, tokens in everyone)
    tables = added(ranks.gather(digits.sums())) if digits else {}
    return {"ce": ce, **means(tables)}, tables
