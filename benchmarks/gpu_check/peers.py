"""Step time and peak memory beside Hugging Face's Trainer and TRL's SFTTrainer with its fused head."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from benchmarks import train_step
from benchmarks.gpu_check.check import Context, Result
from ntil.console import Table

LOSSES = ("ce", "ntil")
ROUNDS = 2
Spawned = Callable[..., dict[str, Any]]


def run(context: Context, model: str = "qwen2_vl_2b", spawned: Spawned = train_step.spawned) -> Result:
    """Train the same model on the same rows by every trainer, each in processes of its own and in turns."""
    hf, trl = train_step.PEERS
    names = [*LOSSES, hf, *([trl] if find_spec("trl") else [])]
    checkpoint = train_step.write_checkpoint(model, context.folder / "checkpoint")
    options = argparse.Namespace(workers=1, steps=context.steps + 2, where=False)
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(ROUNDS):
        for name in names:
            results[name].append(spawned(model, name, checkpoint, options))
    seconds = {name: statistics.median(s for one in runs for s in one["steps"]) for name, runs in results.items()}
    rows = []
    for name, runs in results.items():
        memory = statistics.median(one["gib"] for one in runs)
        ratio = f"{seconds[name] / seconds[LOSSES[0]]:.2f}"
        rows.append([name if name in (hf, trl) else f"ours, {name}", f"{seconds[name]:.3g}", ratio, f"{memory:.3g}"])
    table = Table("peers", ["trainer", "step s", "x of ours, ce", "peak GiB"], ["l", "r", "r", "r"], rows)
    lines = [f"{model}, batch {train_step.MODELS[model][0]}, random weights, `python -m benchmarks.train_step`"]
    lines += [] if trl in names else ["TRL isn't installed here, so it is left out"]
    return Result("A step beside others' trainers", None, lines, [table])
