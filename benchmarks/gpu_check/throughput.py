"""Rows and tokens a second of the evaluation, by batch size, with answers written to their limit."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.gpu_check.check import Context, Result
from ntil.components import Components
from ntil.console import Table, gigabytes
from ntil.evaluation.generate import generate
from ntil.preflight import compose_checked

BATCHES = (1, 8, 32)


def run(context: Context, batches: tuple[int, ...] = BATCHES) -> Result:
    """Generate answers of batches of each size, twice, and time the second."""
    config = compose_checked([*context.words, "engine.device=cpu"])
    components = Components.build(config)
    model: Any = components.family.load().eval()
    model.to(context.device)
    # As many tokens as a batch may have to wait for.
    model.generation_config.min_new_tokens = components.task.max_new_tokens
    split = components.task.rows("train")
    rows = []
    for size in batches:
        batch = [split[i % len(split)] for i in range(size)]
        with torch.no_grad():
            generate(model, components.collator, batch)
            memory = context.peak_bytes(lambda batch=batch: generate(model, components.collator, batch))  # type: ignore[misc]
            seconds = context.seconds(lambda batch=batch: generate(model, components.collator, batch))  # type: ignore[misc]
        tokens = size * components.task.max_new_tokens
        rows.append([str(size), f"{size / seconds:.3g}", f"{tokens / seconds:.3g}", gigabytes(memory)])
    table = Table("evaluation", ["batch", "rows/s", "tokens/s", "peak GB"], ["r", "r", "r", "r"], rows)
    return Result("Evaluation throughput", None, [f"{components.task.max_new_tokens} tokens an answer"], [table])
