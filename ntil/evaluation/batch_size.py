"""How many rows generate at once, where the configuration leaves it open."""

from __future__ import annotations

from typing import Any

import psutil
import torch
from datasets import Dataset

from data.common.rows import spread
from ntil.collator import Collator
from ntil.config.schema import RunConfig
from ntil.distributed.ranks import Ranks
from ntil.estimates.shape import layers_of

LIMIT = 240  # ours: larger batches hardly answer more rows a second, and wait longer for their longest answer
SHARE = 0.5  # of the free memory, ours: prompts, logits and what a step needs next come on top
SAMPLED, LONGER = 16, 1.25  # rows whose tokens are counted, and how much longer others may be
LOGIT_BYTES = 10  # of each logit of a true answer: 16 bits, float32 and its log-softmax


def evaluation_batch_size(config: RunConfig, model: Any, collator: Collator, rows: Dataset, ranks: Ranks) -> int:
    """Rows that generate at once on a rank, the same on all: `evaluation.batch_size`, or what memory has room for.

    Where that is null, a row takes the key-value cache of its prompt and of the longest answer that may be generated,
    or, when its true answer is scored by the same batches, the logits of that answer if these are more; free is what is
    left beside the model, and during training beside gradients and optimizer. Every beam has a cache and logits of its
    own.
    """
    if config.evaluation.batch_size is not None or not len(rows):
        return config.evaluation.batch_size or 1
    sampled = (rows[index] for index in spread(len(rows), SAMPLED))
    encoded = [collator.encode(row, collator.task.answer(row)) for row in sampled]
    tokens = int(LONGER * max(len(e.prompt_ids) for e in encoded)) + collator.task.max_new_tokens
    taught = int(LONGER * max(len(e.answer_ids) for e in encoded))
    vocabulary = model.config.get_text_config().vocab_size
    of_logits = LOGIT_BYTES * taught * vocabulary
    beams = config.evaluation.generation.beams or 1
    of_beams = beams * (key_value_bytes_per_token(model) * tokens + (LOGIT_BYTES * vocabulary if beams > 1 else 0))
    row_bytes = max(of_beams, of_logits)
    return min(ranks.gather(rows_with_room(row_bytes, free_memory(model.device))))


def rows_with_room(row_bytes: int, free: int) -> int:
    """At least one row, at most `LIMIT`."""
    return max(1, min(LIMIT, int(SHARE * free / row_bytes))) if row_bytes else LIMIT


def key_value_bytes_per_token(model: Any) -> int:
    """Bytes of the key-value cache per token: keys and values of every layer, in the dtype of the model."""
    layers = layers_of(model.config.get_text_config())
    width = torch.empty((), dtype=model.dtype).element_size()
    return 2 * layers.count * layers.key_value * width if layers else 0


def free_memory(device: torch.device) -> int:
    """Bytes that the device has left, with those that torch holds unused."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
