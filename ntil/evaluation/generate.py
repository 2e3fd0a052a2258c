"""Generation and scoring of answers: a record per row in a JSONL file, and their summary."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from data.common.files import replacing
from data.common.rows import Row
from ntil.collator import Collator
from ntil.config.answering import GenerationConfig
from ntil.config.schema import EvaluationConfig
from ntil.distributed.ranks import Ranks
from ntil.distributed.zero3 import any_partitioned
from ntil.evaluation.decoding import Decoder, records_of
from ntil.evaluation.decoding_metrics import decoding_metrics
from ntil.evaluation.digits import DigitTally, add_sums, means
from ntil.evaluation.prompt_groups import Batches
from ntil.evaluation.read_numbers import read_answers
from ntil.evaluation.rounds import rounds
from ntil.evaluation.sampling import RowSampler
from ntil.evaluation.shared_prompts import generate_shared
from ntil.evaluation.sharing import shares_prompts
from ntil.evaluation.stops import cut
from ntil.models.head import SupervisedHead
from ntil.runs.folder import read_jsonl

Metrics = dict[str, float]


@torch.no_grad()
def generate(
    model: Any,
    collator: Collator,
    rows: list[Row],
    max_new_tokens: int | None = None,
    generation: GenerationConfig | None = None,
    sample: int | None = None,
) -> list[str]:
    """Answers of a batch of rows, cut at the end token, at a stop text, or after `max_new_tokens` (None: the task's).

    Those of a collator with a reader are read, not generated.

    Args:
        generation: None: greedy, without stop texts.
        sample: which of the rows' samples to draw, see `ntil.evaluation.sampling`; None: greedy, or a beam search.
    """
    if collator.reader is not None:
        return read_answers(model, collator, rows)
    generation = generation or GenerationConfig()
    family, most = collator.family, max_new_tokens or collator.task.max_new_tokens
    inputs = {k: v.to(model.device) for k, v in collator.prompts(rows).items()}
    width = inputs["input_ids"].shape[1]
    how: dict[str, Any] = {}
    if sample is not None:
        how["logits_processor"] = [RowSampler(generation, [row["id"] for row in rows], sample, width, most)]
    elif generation.beams is not None:
        how["num_beams"] = generation.beams
    if generation.stop:
        how |= {"stop_strings": generation.stop, "tokenizer": family.tokenizer}
    output = model.generate(
        **inputs,
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=family.tokenizer.pad_token_id,
        eos_token_id=family.end_id,
        **how,
    )
    return [cut(family.decode(ids), generation.stop) for ids in output[:, width:].tolist()]


def predict(
    model: PreTrainedModel,
    collator: Collator,
    rows: Dataset,
    batch_size: int,
    title: str | None = None,
    check: Callable[[], None] = lambda: None,
    share_prompts: bool | None = False,
    evaluation: EvaluationConfig | None = None,
) -> Iterator[Row]:
    """Yield a record per row, in order; `check` is called before every batch and may raise; `title` shows a bar."""
    how: dict[str, Any] = {"share_prompts": share_prompts, "evaluation": evaluation}
    shard = predict_shard(model, collator, rows, batch_size, Ranks(), title, check, **how)
    return (record for _, record in shard)


def predict_shard(
    model: PreTrainedModel,
    collator: Collator,
    rows: Dataset,
    batch_size: int,
    ranks: Ranks,
    title: str | None = None,
    check: Callable[[], None] = lambda: None,
    max_new_tokens: int | None = None,
    share_prompts: bool | None = False,
    evaluation: EvaluationConfig | None = None,
) -> Iterator[tuple[int, Row]]:
    """Yield the records of this rank's batches, each with its row's index, in the order of the rows.

    All ranks have the same number of rounds, so `check` may be a collective operation.

    Args:
        share_prompts: whether rows with one picture, or a long text in common, share it; None: where that is exact. A
            beam search shares nothing, and samples share nothing.
        evaluation: its generation and decodings; None: greedy answers alone.

    Raises:
        ConfigError: prompts are to be shared, and the model can't.
    """
    training = model.training
    model.eval()
    bar = tqdm(total=len(rows), desc=title, unit="row", disable=title is None)
    evaluation = evaluation or EvaluationConfig()
    generation, decoder = evaluation.generation, Decoder.of(evaluation, batch_size)
    try:
        share = generation.greedy and collator.reader is None and shares_prompts(share_prompts, model, collator)
        batches = Batches(collator, rows, batch_size, ranks, share)
        for window in batches.windows():
            records: list[tuple[int, Row]] = []
            for batch, spare in window:
                check()
                if spare and not any_partitioned(model):
                    continue
                groups = batches.read(batch)
                texts = _answers(model, collator, groups, batch.shared, max_new_tokens, generation)
                if not spare:
                    answered = _records(
                        model, collator, list(chain.from_iterable(groups)), texts, max_new_tokens, decoder
                    )
                    records += zip(batch.rows, answered, strict=True)
                bar.update(min(len(batch.rows) * ranks.count, len(rows) - bar.n))
            yield from sorted(records, key=lambda record: record[0])
    finally:
        bar.close()
        model.train(training)


def _answers(
    model: Any,
    collator: Collator,
    groups: list[list[Row]],
    shared: bool,
    max_new_tokens: int | None,
    generation: GenerationConfig,
) -> list[str]:
    if shared:
        # Greedy answers are the same up to a stop text, wherever they end.
        return [cut(text, generation.stop) for text in generate_shared(model, collator, groups, max_new_tokens)]
    return generate(model, collator, [row for group in groups for row in group], max_new_tokens, generation)


def _records(
    model: Any,
    collator: Collator,
    rows: list[Row],
    texts: list[str],
    max_new_tokens: int | None,
    decoder: Decoder | None,
) -> list[Row]:
    """The records of a batch, with samples and decodings where these are asked for."""
    draw = partial(generate, model, collator, rows, max_new_tokens, decoder.generation if decoder else None)
    return records_of(model, collator, rows, texts, draw, decoder)


def evaluate_to(file: Path, records: Iterable[Row], summarize: Callable[[Iterator[Row]], Metrics]) -> Metrics:
    """Write records to `file` atomically and summarize them from there, with their decodings, in constant memory."""
    with replacing(file) as partial, partial.open("w") as out:
        for record in records:
            out.write(json.dumps(record, ensure_ascii=False) + "\n")
        out.flush()
        os.fsync(out.fileno())  # before the metrics that say they are there
    return {**summarize(read_jsonl(file)), **decoding_metrics(file, summarize)}


def evaluate_sharded(
    file: Path,
    records: Iterator[tuple[int, Row]],
    summarize: Callable[[Iterator[Row]], Metrics],
    ranks: Ranks,
) -> Metrics | None:
    """Run `evaluate_to` over all ranks, which share the folder; rank 0 joins the parts and returns the metrics."""
    if ranks.count == 1:
        return evaluate_to(file, (record for _, record in records), summarize)
    parts = [file.with_name(f".{file.name}.part{index}") for index in range(ranks.count)]
    part = parts[ranks.index]
    try:
        with part.open("w") as out:
            for row, record in records:
                out.write(json.dumps({"row": row, "record": record}, ensure_ascii=False) + "\n")
        ranks.barrier()
        metrics = None
        if ranks.first:
            joined = heapq.merge(*map(read_jsonl, parts), key=lambda line: line["row"])
            metrics = evaluate_to(file, (line["record"] for line in joined), summarize)
        ranks.barrier()
        return metrics
    finally:
        part.unlink(missing_ok=True)


@torch.no_grad()
def teacher_forced(
    head: SupervisedHead,
    model: PreTrainedModel,
    collator: Collator,
    rows: Dataset,
    batch_size: int,
    ranks: Ranks | None = None,
) -> tuple[Metrics, dict[str, Any]]:
    """Teacher-forced metrics that are comparable over losses: per-token cross-entropy and digit statistics.

    Returns:
        Means (`ce` and those of `ntil.evaluation.digits`), and the digit tables behind them.
    """
    ranks = ranks or Ranks()
    training = model.training
    model.eval()
    costs = []
    digits = DigitTally(collator.vocab, model.device) if collator.vocab else None
    for indices, spare in rounds(len(rows), batch_size, ranks):
        if spare and not any_partitioned(model):
            continue
        batch = collator([rows[i] for i in indices])
        inputs = {k: v.to(model.device) for k, v in batch.items() if isinstance(v, Tensor)}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = head.logits(model, inputs, positions)
        cost = torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item()
        if not spare:
            costs.append((indices.start, cost, targets.numel()))
            if digits:
                digits.add(logits, targets, batch["unmeasured"])
    model.train(training)
    # In the order of the rows, as one rank would have added them.
    in_order = sorted(cost for shard in ranks.gather(costs) for cost in shard)
    ce = sum(cost for _, cost, _ in in_order) / sum(tokens for *_, tokens in in_order)
    tables = add_sums(ranks.gather(digits.sums())) if digits else {}
    return {"ce": ce, **means(tables)}, tables
