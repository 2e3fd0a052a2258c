"""What to do about the errors that a setting can mend: memory and disk."""

from __future__ import annotations

import errno
from typing import Any

MEMORY_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
# The last two are what torch.save says when a write fails.
DISK_SIGNS = ("no space left on device", "disk quota exceeded", "inline_container.cc", "iostream error")


def advice(error: BaseException, config: dict[str, Any], evaluating: bool = False) -> str | None:
    """One sentence naming the setting and its value, or None for an error that no setting mends."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    text = " ".join(str(e).lower() for e in chain)
    if any(isinstance(e, MemoryError) for e in chain) or any(sign in text for sign in MEMORY_SIGNS):
        return f"out of memory: {_smaller(config, evaluating)}"
    full = any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in chain)
    if full or any(sign in text for sign in DISK_SIGNS):
        return (
            "the disk is full: the newest complete checkpoint is kept; free space or set keep_checkpoints=1, "
            "then run the same command with retry=true to go on from it"
        )
    return None


def _smaller(config: dict[str, Any], evaluating: bool) -> str:
    optim, engine, evaluation = config["optim"], config["engine"], config["evaluation"]
    if evaluating:
        size = evaluation["batch_size"]
        return f"set evaluation.batch_size={max(1, size // 2)} (now {size}); the trained model is kept"
    size, parts = optim["batch_size"], engine["accumulation"]
    finer = next((n for n in range(2 * parts, size + 1) if size % n == 0), None)
    if finer is not None:
        return f"set engine.accumulation={finer} (now {parts}): the same step in smaller pieces"
    if not engine["gradient_checkpointing"]:
        return "a micro-batch is one row already; set engine.gradient_checkpointing=true"
    if engine["zero"] != 3:
        return "a micro-batch is one row already; take engine=zero3_offload, or tuning=lora"
    return "a micro-batch is one row already; take tuning=lora, more GPUs (engine.gpus=...), or a smaller model"
