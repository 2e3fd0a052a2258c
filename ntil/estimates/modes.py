"""What each way of training takes in memory and on disk: tuning modes, optimizers, the average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ntil.config.build import locate
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.console import Table, gigabytes
from ntil.estimates.disk import disk_need
from ntil.estimates.memory import state_memory
from ntil.estimates.shape import shape_of
from ntil.models.optimizers import KNOWN

# Name in the table -> overrides of a run's config.
MODES = {
    "full": [],
    "full, adafactor": ["optim.name=adafactor"],
    "full, sgd": ["optim.name=sgd"],
    "full, adamw_8bit": ["optim.name=adamw_8bit"],
    "full, ema": ["optim.ema=0.999"],
    "lora": ["tuning=lora"],
    "lora, adamw_8bit": ["tuning=lora", "optim.name=adamw_8bit"],
    "dora": ["tuning=dora"],
    "rslora": ["tuning=rslora"],
    "lora_all": ["tuning=lora_all"],
    "qlora": ["tuning=qlora"],
}


@dataclass(frozen=True)
class ModeNeed:
    """Bytes that a way of training takes. stages: a GPU under ZeRO 0 to 3; None where it can't run so."""

    mode: str
    trained: int
    stages: tuple[int | None, ...]
    checkpoint: int


def mode_needs(model: str, gpus: int, rank: int) -> Iterator[ModeNeed]:
    """The needs of a model config in every mode that its family has parts for.

    Args:
        gpus: over how many ZeRO cuts. rank: of the adapters.

    Raises:
        ConfigError: a model whose sizes aren't known here.
    """
    family = locate(compose([f"model={model}"]).model.target, "model")
    for mode, overrides in MODES.items():
        if mode == "lora_all" and "vision" not in family.parts:
            continue
        of_rank = [f"tuning.rank={rank}"] if any(word.startswith("tuning=") for word in overrides) else []
        # One checkpoint's disk is what one more kept checkpoint takes.
        words = [f"model={model}", "evaluation.every_steps=0", "save_every=1", *overrides, *of_rank]
        config, more = compose(words), compose([*words, "keep_checkpoints=2"])
        shape = shape_of(config)
        disk, more_disk = disk_need(config), disk_need(more)
        if shape is None or disk is None or more_disk is None:
            raise ConfigError(f"model={model}: its sizes aren't known here, so neither is its memory")
        whole_weights = KNOWN[config.optim.name or "adamw_torch"].not_zero
        possible = [0] if whole_weights else [0, 1, 2, 3]
        if config.optim.ema is not None or config.tuning.quantize:
            possible = [0, 1, 2]
        sizes = tuple(state_memory(shape, config.optim, s, gpus) if s in possible else None for s in range(4))
        yield ModeNeed(mode, shape.trained, sizes, more_disk.peak - disk.peak)


def modes_table(models: Sequence[str], gpus: int, rank: int) -> Table:
    """Table of the needs of several models; memory without activations."""
    rows = [
        [model, need.mode, f"{need.trained / 1e6:,.1f} M", _stages(need.stages), gigabytes(need.checkpoint)]
        for model in models
        for need in mode_needs(model, gpus, rank)
    ]
    title = (
        f"GB per GPU for weights, gradients, optimizer and average on {gpus} GPUs, ZeRO 0 / 1 / 2 / 3; GB a checkpoint"
    )
    return Table(title, ["model", "mode", "trains", "GB a GPU", "checkpoint"], ["l", "l", "r", "l", "r"], rows)


def _stages(sizes: Sequence[int | None]) -> str:
    return " / ".join("-" if size is None else gigabytes(size) for size in sizes)
