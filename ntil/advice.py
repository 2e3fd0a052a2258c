"""What to do about the errors that a setting can mend: memory and disk."""

from __future__ import annotations

import errno
from typing import Any

MEMORY_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
DISK_SIGNS = ("no space left on device", "disk quota exceeded")


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
    size, parts = optim["batch_size"], optim["accumulation"]
    if size > 1:
        half = size // 2
        same = f"optim.batch_size={half} optim.accumulation={parts * 2}"
        exact = "the same step" if size % 2 == 0 else f"{half * 2 * parts} instead of {size * parts} rows a step"
        return f"set {same} (now {size} x {parts}: {exact})"
    if not engine["gradient_checkpointing"]:
        return "the batch is 1 already; set engine.gradient_checkpointing=true"
    if engine["zero"] != 3:
        return "the batch is 1 already; take engine=zero3_offload, or tuning=lora"
    return "the batch is 1 already; take tuning=lora, more GPUs (engine.gpus=...), or a smaller model"
