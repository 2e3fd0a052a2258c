"""Remedies for errors that a setting can fix: memory, disk, data workers, ranks that wait for each other."""

from __future__ import annotations

import errno
import shutil

from ntil.config.errors import ConfigError
from ntil.config.schema import EngineConfig, RunConfig
from ntil.distributed.ranks import ranks_on_this_host
from ntil.estimates.fit import fits, gpu_memory, remedy
from ntil.preflight import rank_count

MEMORY_SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
# The last two are in torch.save's messages when a write fails.
DISK_SIGNS = ("no space left on device", "disk quota exceeded", "inline_container.cc", "iostream error")

# Of torch's DataLoader, and of the data worker that could not send its batch.
WORKER_SIGNS = ("dataloader worker (pid", "dataloader timed out", "unable to allocate shared memory", "unable to mmap")
# Of gloo and NCCL.
RANK_SIGNS = ("timed out waiting", "watchdog caught collective", "wait timeout after", "socket timeout")
# Of gloo, NCCL and torch's store, where the process of another rank is gone.
LOST_RANK_SIGNS = (
    "connection closed",
    "connection reset",
    "connection refused",
    "broken pipe",
    "gloo",
    "nccl",
    "tcpstore",
    "process group",
)
SHARED_MEMORY = "/dev/shm"


def failure_hint(error: BaseException, config: RunConfig, evaluating: bool = False) -> str | None:
    """One sentence naming the setting and its value, or None for an error that no setting fixes."""
    chain = chain_of(error)
    text = " ".join(str(e).lower() for e in chain)
    # Before the sign of memory, since a data worker's memory is another.
    if config.engine.workers and any(sign in text for sign in WORKER_SIGNS):
        return _without_workers()
    if any(sign in text for sign in RANK_SIGNS):
        return "a rank waited in vain for another one: logs/rank<k>.log of the run folder say where each of them was"
    if any(isinstance(e, MemoryError) for e in chain) or any(sign in text for sign in MEMORY_SIGNS):
        return f"out of memory: {_smaller(config, evaluating)}"
    full = any(isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT) for e in chain)
    if full or any(sign in text for sign in DISK_SIGNS):
        return (
            "the disk is full: the newest complete checkpoint is kept; free space or set keep_checkpoints=1, "
            "then run the same command with retry=true to go on from it"
        )
    return None


def chain_of(error: BaseException) -> list[BaseException]:
    """The error, and those that it was raised from or while they were handled."""
    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    return chain


def lost_rank(error: BaseException) -> bool:
    """Whether it is an error of communication, as where another rank has ended."""
    text = " ".join(str(e).lower() for e in chain_of(error))
    return any(sign in text for sign in LOST_RANK_SIGNS + RANK_SIGNS)


def _without_workers() -> str:
    try:
        free = f" ({shutil.disk_usage(SHARED_MEMORY).free / 2**20:,.0f} MiB are free in {SHARED_MEMORY} now)"
    except OSError:
        free = ""
    return (
        "a data worker was lost or stuck; they send batches through shared memory, which containers have little of"
        f"{free}: set engine.workers=0, or start the container with more (docker run --shm-size=8g), then run the same "
        "command with retry=true"
    )


def _smaller(config: RunConfig, evaluating: bool) -> str:
    """A setting that can help: one that the estimate says is too large, else the finest cut of what a step does."""
    if evaluating:
        return _fewer_rows(config)
    gpus = gpu_memory() if config.engine.device != "cpu" else []
    ranks = ranks_on_this_host(config.engine)
    if gpus and not config.engine.hostfile and not fits(config, ranks, min(gpus)):
        return remedy(config, ranks, len(gpus), min(gpus)) or "no setting is estimated to fit; take a smaller model"
    engine, size = config.engine, config.optim.batch_size
    shares = _ranks(engine)  # every rank has as many rows of a step
    finer = next((n for n in range(2 * engine.accumulation, size + 1) if size % (n * shares) == 0), None)
    if finer is not None:
        return f"set engine.accumulation={finer} (now {engine.accumulation}): the same step in smaller pieces"
    if not engine.gradient_checkpointing:
        return "a micro-batch is one row already; set engine.gradient_checkpointing=true"
    if engine.zero_stage != 3:
        return "a micro-batch is one row already; take engine=zero3_offload, or tuning=lora"
    return "a micro-batch is one row already; take tuning=lora, more GPUs (engine.processes=...), or a smaller model"


def _ranks(engine: EngineConfig) -> int:
    """Ranks over all hosts; of this host alone where the hostfile isn't here, as on another one."""
    try:
        return rank_count(engine)
    except ConfigError:
        return ranks_on_this_host(engine)


def _fewer_rows(config: RunConfig) -> str:
    size = config.evaluation.batch_size
    if size is None:
        return "set evaluation.batch_size=1 (it was chosen from the free memory); the trained model is kept"
    return f"set evaluation.batch_size={max(1, size // 2)} (now {size}); the trained model is kept"
