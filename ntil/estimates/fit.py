"""Whether a run fits the GPUs of this machine, and which setting would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import torch

from data.common.counts import counted
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.console import gigabytes
from ntil.distributed.ranks import ranks_on_this_host
from ntil.estimates.memory import SPARE, memory_need
from ntil.models.optimizers import check_optimizer
from ntil.models.quantization import check_quantization

Change = tuple[str, Callable[[RunConfig], RunConfig]]


def gpu_memory() -> list[int]:
    """Bytes of every GPU of this machine."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_properties(i).total_memory for i in range(count)]


def check_memory(config: RunConfig, gpus: list[int]) -> None:
    """Check the estimated need of a rank against the smallest GPU in use.

    Raises:
        ConfigError: it is more, and `accept_memory` is not set; the message names settings that are estimated to fit.
    """
    if not gpus or config.engine.device == "cpu" or config.accept_memory or _is_from_scratch(config):
        return
    ranks = ranks_on_this_host(config.engine)
    room, need = min(gpus[:ranks]), memory_need(config, ranks)
    if need is None or fits(config, ranks, room):
        return
    advice = remedy(config, ranks, len(gpus), room)
    raise ConfigError(
        f"a rank needs about {gigabytes(need.peak)} GB ({gigabytes(need.states)} for weights, gradients and optimizer, "
        f"{gigabytes(need.activations)} for activations, {gigabytes(need.key_values)} for generation), and a GPU here "
        f"has {gigabytes(room)}; {advice or 'take a smaller model or more GPUs'}, or accept_memory=true to try all the "
        "same"
    )


def _is_from_scratch(config: RunConfig) -> bool:
    """Whether the model is made here, so that it is small; an estimate takes seconds, for the libraries it needs."""
    return not config.model.options.get("checkpoint")


def idle_gpus(config: RunConfig, gpus: int) -> str | None:
    """One sentence where a full-size run leaves GPUs of this machine without work."""
    ranks = ranks_on_this_host(config.engine)
    if config.engine.hostfile or config.engine.device == "cpu" or ranks >= gpus:
        return None
    return f"engine.processes={ranks} leaves {gpus - ranks} of {gpus} GPUs idle; engine.processes={gpus} uses all"


def short_of_memory(config: RunConfig) -> str | None:
    """One sentence where all ranks together need more than this machine has free, and there is no GPU."""
    if config.engine.hostfile or (config.engine.device != "cpu" and torch.cuda.is_available()):
        return None
    if _is_from_scratch(config):
        return None
    ranks = ranks_on_this_host(config.engine)
    need, free = memory_need(config, ranks), psutil.virtual_memory().available
    if need is None or ranks * need.peak <= free:
        return None
    return (
        f"{counted(ranks, 'rank')} on the CPU need about {gigabytes(ranks * need.peak)} GB, and {gigabytes(free)} GB "
        "are free here"
    )


def fits(config: RunConfig, ranks: int, room: int) -> bool:
    """Whether a rank's estimate lies within `room` bytes; also where there is no estimate."""
    need = memory_need(config, ranks)
    return need is None or need.peak <= room * (1 - SPARE)


def remedy(config: RunConfig, ranks: int, gpus: int, room: int) -> str | None:
    """The fewest settings, as overrides, with which the estimate fits and the run starts; None if none do."""
    changes = list(_changes(config, ranks, gpus))
    alone = [[change] for change in changes if _starts(_changed(config, [change]))]
    together: list[list[Change]] = [[]]
    for change in changes:
        if _starts(_changed(config, [*together[-1], change])):
            together.append([*together[-1], change])
    tried = (_fitting(config, some, gpus, room) for some in [*alone, *together[2:]])
    return next((advice for advice in tried if advice), None)


def _fitting(config: RunConfig, changes: list[Change], gpus: int, room: int) -> str | None:
    config = _changed(config, changes)
    ranks = min(gpus, ranks_on_this_host(config.engine))
    need = memory_need(config, ranks)
    if need is None or not fits(config, ranks, room):
        return None
    # Of two engines the second stays: it has the settings of both.
    names = {name.partition("=")[0]: name for name, _ in changes}
    return f"set {' '.join(names.values())} (about {gigabytes(need.peak)} GB)"


def _changed(config: RunConfig, changes: list[Change]) -> RunConfig:
    for _, apply in changes:
        config = apply(config)
    return config


def _starts(config: RunConfig) -> bool:
    """Whether optimizer and base are such that the engine takes them."""
    try:
        check_optimizer(config, on_this_machine=False)
        check_quantization(config, on_this_machine=False)
    except ConfigError:
        return False
    return True


def _changes(config: RunConfig, ranks: int, gpus: int) -> Iterator[Change]:
    """Settings that save memory, the cheapest in time first."""
    engine, optim = config.engine, config.optim
    if ranks < gpus and optim.batch_size % gpus == 0:
        yield f"engine.processes={gpus}", _with_engine(processes=gpus)
    here = gpus if ranks < gpus and optim.batch_size % gpus == 0 else ranks
    if optim.batch_size % here == 0 and (finest := optim.batch_size // here) > engine.accumulation:
        yield f"engine.accumulation={finest}", _with_engine(accumulation=finest)
    if not engine.gradient_checkpointing:
        yield "engine.gradient_checkpointing=true", _with_engine(gradient_checkpointing=True)
    if (config.evaluation.batch_size or 2) > 1:
        yield "evaluation.batch_size=1", lambda c: replace(c, evaluation=replace(c.evaluation, batch_size=1))
    if (engine.zero_stage or 0) < 3:
        yield "engine=zero3", _with_engine(zero_stage=3)
    if config.tuning.mode != "lora":
        yield "tuning=lora", lambda c: replace(c, tuning=replace(c.tuning, mode="lora", freeze=[]))
    if not engine.offload:
        yield "engine=zero3_offload", _with_engine(zero_stage=3, offload=True)


def _with_engine(**values: object) -> Callable[[RunConfig], RunConfig]:
    return lambda config: replace(config, engine=replace(config.engine, **values))  # type: ignore[arg-type]
