"""Which parameters of a model move: all, some parts, or adapters. Knows parts by a family's own names for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn
from transformers import PreTrainedModel

from ntil.config import ConfigError, TuningConfig, nearest
from ntil.models.base import Family

BASE = "base"


class Parts:
    """Part of every parameter and module of a model, under any peft wrapper."""

    def __init__(self, family: Family) -> None:
        self.names = list(family.parts)
        prefixes = [(prefix, part) for part, prefix in family.parts.items()]
        self._prefixes = sorted(prefixes, key=lambda item: -len(item[0]))

    def of(self, name: str) -> str:
        name = _plain(name)
        for prefix, part in self._prefixes:
            if not prefix or name == prefix or name.startswith(f"{prefix}."):
                return part
        return "language"

    def counts(self, model: nn.Module) -> dict[str, tuple[int, int]]:
        """Part -> (parameters, trainable ones). Frozen originals of modules that an adapter copied don't count."""
        found = dict.fromkeys(self.names, (0, 0))
        for name, parameter in model.named_parameters():
            if ".original_module." not in name:
                every, moving = found[self.of(name)]
                size = size_of(parameter)
                found[self.of(name)] = every + size, moving + size * parameter.requires_grad
        return found


def check(tuning: TuningConfig, family: Family | type[Family]) -> None:
    """What can be known to be wrong before anything is loaded.

    Raises:
        ConfigError: a part that the family doesn't have, or nothing that would move.
    """
    for key in ("freeze", "adapt", "train"):
        for part in getattr(tuning, key) or ():
            if part not in family.parts:
                raise ConfigError(
                    f"tuning.{key}: {_name(family)} has no part {part!r}{nearest(part, family.parts)}"
                    f" (parts: {', '.join(family.parts)})"
                )
    if tuning.mode == "full":
        if set(tuning.freeze) >= set(family.parts):
            raise ConfigError(f"tuning.freeze={tuning.freeze} leaves nothing to train; leave one of its parts out")
        return
    if "language" in (tuning.train or ()):
        raise ConfigError("tuning.train=[language] beside adapters is not supported; take tuning=full")
    for part in _adapted(tuning):
        if not tuning.targets and part not in family.lora_targets:
            known = ", ".join(family.lora_targets)
            raise ConfigError(
                f"tuning.adapt: {_name(family)} states no layers for adapters in {part!r} (only in {known}); "
                "name them in tuning.targets"
            )
    if not _adapted(tuning):
        raise ConfigError("tuning.mode=lora without a part to adapt; leave one out of tuning.freeze, or take full")


def tune(model: PreTrainedModel, family: Family, tuning: TuningConfig) -> Any:
    """The model with exactly the parameters free to move that `tuning` says; wrapped by peft under `lora`.

    Raises:
        ConfigError: see `check`; or adapters asked for on modules that aren't there.
    """
    from peft import LoraConfig, get_peft_model

    check(tuning, family)
    parts = Parts(family)
    if tuning.mode == "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parts.of(name) not in tuning.freeze)
        return model
    whole = [p for p in _whole(tuning, family) if p not in tuning.freeze]
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha or 2 * tuning.rank,  # type: ignore[arg-type]
        lora_dropout=tuning.dropout,
        target_modules=adapted_layers(model, family, tuning),
        modules_to_save=[family.parts[part] for part in whole] or None,
    )
    # peft would make adapters float32 beside 16-bit copies of whole parts, and ZeRO-3 gathers one type at a time. What
    # is trained is kept in float32 all the same, by DeepSpeed or `float32_masters`.
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def adapted_layers(model: nn.Module, family: Family, tuning: TuningConfig) -> list[str]:
    """Full names of the linear layers that get adapters.

    Raises:
        ConfigError: none has such a name.
    """
    parts, found = Parts(family), []
    for part in _adapted(tuning):
        wanted = tuning.targets or family.lora_targets[part]
        linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and parts.of(n) == part]
        chosen = [n for n in linear if n.rpartition(".")[2] in wanted]
        if not chosen:
            there = sorted({n.rpartition(".")[2] for n in linear})
            raise ConfigError(f"tuning.targets={list(wanted)}: none in {part}; its linear layers: {', '.join(there)}")
        found += chosen
    return found


def keeps(tuning: TuningConfig, family: Family, part: str) -> bool:
    """Whether the family has the part and every parameter of it stays as it was loaded."""
    moves = tuning.mode == "full" or part in [*_adapted(tuning), *_whole(tuning, family)]
    return part in family.parts and (part in tuning.freeze or not moves)


def table(model: nn.Module, family: Family) -> Table:
    """Parameters and trainable ones, per part."""
    shown = Table("part", box=None, pad_edge=False)
    for title in ("parameters", "trainable", "share"):
        shown.add_column(title, justify="right")
    counts = Parts(family).counts(model)
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    for part, (every, moving) in [*counts.items(), ("all", sums)]:
        shown.add_row(part, f"{every:,}", f"{moving:,}", f"{moving / every:.1%}" if every else "-")
    return shown


def save_base(model: PreTrainedModel, family: Family, folder: Path) -> None:
    """Keep what the adapters of a model from scratch stand on: no hub has it. Every rank of a ZeRO-3 run must call."""
    with gathered(model) as writes:
        if writes and not (folder / BASE / "config.json").exists():
            family.save(model, folder / BASE)


def save(model: Any, family: Family, folder: Path) -> None:
    """The trained model: the whole, or under adapters these alone."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(str(folder))
    else:
        family.save(model, folder)


def is_saved(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("config.json", "adapter_config.json"))


def load_saved(family: Family, folder: Path) -> Any:
    """The model that a run saved in `folder`: whole, or an adapter on its base."""
    if not (folder / "adapter_config.json").exists():
        return family.load(folder)
    from peft import PeftModel

    base = family.load(folder / BASE if (folder / BASE).exists() else None)
    return PeftModel.from_pretrained(base, str(folder), autocast_adapter_dtype=False)


@contextmanager
def gathered(model: nn.Module) -> Iterator[bool]:
    """Whole parameters inside, also under ZeRO-3; gives whether this rank is the one to write."""
    parameters = [p for p in model.parameters() if hasattr(p, "ds_id")]
    first = not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
    if not parameters:
        yield first
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameters):
        yield first


def size_of(parameter: nn.Parameter) -> int:
    return getattr(parameter, "ds_numel", parameter.numel())


def _adapted(tuning: TuningConfig) -> list[str]:
    return [part for part in tuning.adapt if part not in tuning.freeze]


def _whole(tuning: TuningConfig, family: Family) -> list[str]:
    named = family.lora_trainable if tuning.train is None else tuning.train
    return [part for part in named if part in family.parts]


def _name(family: Any) -> str:
    return getattr(family, "__name__", type(family).__name__)


def _plain(name: str) -> str:
    return name.removeprefix("base_model.model.")
