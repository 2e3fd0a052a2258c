"""Checks of a configuration: all errors that can be found without reading data or weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ntil.components import build_task, check_reading
from ntil.config.build import build, check_component, locate
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.schema import EngineConfig, RunConfig
from ntil.distributed.ranks import ranks_on_this_host
from ntil.estimates.fit import check_memory, gpu_memory, idle_gpus, short_of_memory
from ntil.losses import NumberLoss
from ntil.models.learning_rates import check_learning_rates, refuse_to_overwrite
from ntil.models.optimizers import check_optimizer, remarks_on_optimizer, warmup_remark
from ntil.models.pretrained import is_path, refuse_adapter
from ntil.models.quantization import check_quantization
from ntil.models.tuning import check_tuning, is_frozen
from ntil.numbers.vocab import NumberVocab
from ntil.packing.refusals import check_class
from tasks.base import Task
from tasks.mixture import has_split

LONGEST_NAME, LONGEST_PROJECT = 64, 128  # characters of a tag, and of a project, of W&B


def compose_checked(overrides: Iterable[str], on_this_machine: bool = True) -> RunConfig:
    """Compose and `check` the configuration of `ntil train <overrides>`."""
    config = compose(overrides)
    check(config, on_this_machine)
    _refuse_backend(config)
    return config


def _refuse_backend(config: RunConfig) -> None:
    if config.evaluation.backend:
        raise ConfigError(
            f"evaluation.backend={config.evaluation.backend} is for finished runs: export one, serve it, then "
            "ntil eval run=<folder> evaluation.backend=openai evaluation.server.url=... evaluation.server.model=..."
        )


def check(config: RunConfig, on_this_machine: bool = True) -> None:
    """Check a configuration before its run begins.

    Args:
        on_this_machine: also check the files, devices, hosts and batch of a training on this machine.

    Raises:
        UserError: names the key and the remedy.
    """
    for group in ("model", "task", "loss"):
        check_component(group, getattr(config, group))
    # With ten digits for the model's own vocabulary: what a loss refuses by itself is refused before its run.
    loss: NumberLoss = build("loss", config.loss, vocab=NumberVocab(range(10)))
    family = locate(config.model.target, "model")
    check_tuning(config.tuning, family)
    check_class(config, family)
    check_learning_rates(config, family)
    check_optimizer(config, on_this_machine)
    check_quantization(config, on_this_machine)
    _check_shared_prompts(config, family)
    _check_augmentation(config, family)
    if on_this_machine:
        _refuse_backend(config)
        refuse_to_overwrite(config)
        _check_names(config)
        _check_weights(config)
        _check_devices(config.engine)
        if not config.engine.hostfile:
            check_memory(config, gpu_memory())
        _check_batch(config)
        _check_checkpoint(config)
        task = build_task(config)
        check_reading(type(loss), task)
        task.check_augmentation(config.augment.names)
        _check_splits(config, task)
        task.check_files()


def _check_splits(config: RunConfig, task: Task) -> None:
    """Check that the task has every split of the run; of a mixture some task those that only show more of it."""
    first, further = config.evaluation.validated[:1], config.evaluation.validated[1:]
    for split in dict.fromkeys(["train", *first, config.evaluation.split]):
        task.check_split(split)
    for split in further:
        if not any(has_split(member, split) for member in task.members.values()):
            task.check_split(split)


def _check_shared_prompts(config: RunConfig, family: Any) -> None:
    """Check what can be known before a model is there; the rest is looked up in it, see ntil/evaluation/sharing.py."""
    if not config.evaluation.share_prompts:
        return
    if not getattr(family, "causal", True):
        raise ConfigError(
            f"evaluation.share_prompts=true: {family.__name__} reads a prompt in both directions, so its picture sees "
            "the question; leave it null"
        )
    attention = config.model.options.get("attn_implementation", "sdpa")
    if attention not in ("sdpa", "eager"):
        raise ConfigError(
            f"evaluation.share_prompts=true: model.attn_implementation={attention} can't keep questions apart; take "
            "sdpa, or leave it null"
        )


def _check_augmentation(config: RunConfig, family: Any) -> None:
    if config.augment.on and config.vision_cache_gb and is_frozen(config.tuning, family, "vision"):
        raise ConfigError(
            f"augment: {', '.join(config.augment.names)} make a new picture at each drawing, and the cache of the "
            "frozen vision tower would hold them all; set vision_cache_gb=0, or augment=none"
        )


def _check_names(config: RunConfig) -> None:
    """Check names against what file systems and trackers take; only of new runs, since finished ones can be read."""
    names = {"name": config.name.split("/"), **{g: [getattr(config, g).name] for g in ("model", "task", "loss")}}
    if not config.runs:
        raise ConfigError("runs= names no folder: give one, as in runs=runs, or leave it out")
    for group, parts in names.items():
        key = group if group == "name" else f"{group}.name"
        for part in parts:
            if len(part) > LONGEST_NAME:
                raise ConfigError(
                    f"{key}={part!r} has {len(part)} characters; folders and trackers take {LONGEST_NAME} at most"
                )
    project = config.tracker.project
    if not 0 < len(project) <= LONGEST_PROJECT or any(c in project for c in "/\\#?%:"):
        raise ConfigError(
            f"tracker.project={project!r} is no name that W&B takes: {LONGEST_PROJECT} characters at most, "
            "none of /\\#?%:"
        )


def _check_weights(config: RunConfig) -> None:
    if config.model.options.get("dtype") == "float16" and config.engine.dtype != "float16":
        raise ConfigError(
            f"model.dtype=float16 is too coarse for engine.dtype={config.engine.dtype}; take engine.dtype=float16, "
            "which scales the loss, or model.dtype=bfloat16"
        )


def _check_devices(engine: EngineConfig) -> None:
    if engine.hostfile or engine.device == "cpu":
        return
    if engine.device == "auto" and engine.processes in (1, None) and engine.dtype != "float16":
        return
    import torch

    gpus = torch.cuda.device_count()
    if not gpus and engine.device == "cuda":
        raise ConfigError("engine.device=cuda, but there is no CUDA device here; take engine.device=cpu")
    if not gpus and engine.dtype == "float16":
        raise ConfigError("engine.dtype=float16 needs a CUDA device and there is none here; take bfloat16 or float32")
    if gpus and ranks_on_this_host(engine) > gpus:
        raise ConfigError(
            f"engine.processes={engine.processes}, but {gpus} CUDA device(s) are here; take engine.processes={gpus}"
        )


def _check_batch(config: RunConfig) -> None:
    ranks = rank_count(config.engine)
    pieces, batch = ranks * config.engine.accumulation, config.optim.batch_size
    if batch % pieces:
        near = max(batch // pieces, 1) * pieces
        fewer = next(n for n in range(ranks, 0, -1) if batch % (n * config.engine.accumulation) == 0 or n == 1)
        others = "" if fewer == 1 or config.engine.hostfile else f", or engine.processes={fewer}"
        raise ConfigError(
            f"optim.batch_size={batch} doesn't divide over {ranks} rank(s) x engine.accumulation="
            f"{config.engine.accumulation}; take optim.batch_size={near} or {near + pieces}{others}"
        )


def _check_checkpoint(config: RunConfig) -> None:
    checkpoint = config.model.options.get("checkpoint")
    if checkpoint and is_path(checkpoint) and not Path(checkpoint).expanduser().exists():
        raise ConfigError(f"model.checkpoint={checkpoint}: no such folder; give an existing one or a hub name")
    if checkpoint:
        refuse_adapter(checkpoint)


def remarks(config: RunConfig) -> list[str]:
    """What a run can do but is hardly meant to."""
    optim = config.optim
    sentences = [idle_gpus(config, len(gpu_memory())), short_of_memory(config), *remarks_on_optimizer(optim)]
    sentences.append(warmup_remark(optim, optim.steps))  # where rows bound the steps, again once these are known
    return [sentence for sentence in sentences if sentence]


def rank_count(engine: EngineConfig) -> int:
    """Number of ranks over all hosts: the slots of the hostfile, or those of this host without one."""
    return sum(hosts(Path(engine.hostfile)).values()) if engine.hostfile else ranks_on_this_host(engine)


def hosts(file: Path) -> dict[str, int]:
    """Read a DeepSpeed hostfile: host name -> ranks on it.

    Raises:
        ConfigError: no such file, or a line that isn't `name slots=N`.
    """
    if not file.is_file():
        raise ConfigError(f"engine.hostfile={file}: no such file; it holds one `name slots=N` a line")
    slots_of: dict[str, int] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        name, slots = words[0], words[1:]
        count = slots[0].removeprefix("slots=") if len(slots) == 1 else ""
        if not count.isdecimal() or int(count) < 1 or name in slots_of:
            raise ConfigError(f"engine.hostfile={file}, line {number}: {line!r} must be `name slots=N`, each name once")
        slots_of[name] = int(count)
    if not slots_of:
        raise ConfigError(f"engine.hostfile={file} names no host; it holds one `name slots=N` a line")
    return slots_of
