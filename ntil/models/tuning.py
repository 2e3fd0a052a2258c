"""Trainable parameters of a model: all, some parts, or adapters. Parts are named by the family."""

from __future__ import annotations

import re
from typing import Any

from rich.table import Table
from torch import nn
from transformers import PreTrainedModel

from ntil.config.errors import ConfigError, nearest
from ntil.config.schema import TuningConfig
from ntil.distributed.zero3 import full_size
from ntil.models.base import Family

_BLOCK = re.compile(r"\.(\d+)\.")  # of a list of blocks, in the name of a module


class Parts:
    """Part of every parameter and module of a model, under any peft wrapper."""

    def __init__(self, family: Family) -> None:
        self.names = list(family.parts)
        self._of_part = {part: (p,) if isinstance(p, str) else tuple(p) for part, p in family.parts.items()}
        prefixes = [(prefix, part) for part, several in self._of_part.items() for prefix in several]
        self._prefixes = sorted(prefixes, key=lambda item: -len(item[0]))

    def of(self, name: str) -> str:
        name = _unwrapped(name)
        for prefix, part in self._prefixes:
            if not prefix or name == prefix or name.startswith(f"{prefix}."):
                return part
        return "language"

    def modules(self, model: nn.Module, part: str) -> dict[str, nn.Module]:
        """Modules of a part by their full names, of which none holds another part.

        Of a list of modules these are its entries, since a list is never called.

        Raises:
            ConfigError: a module holds parameters of its own beside another part's module.
        """
        modules: dict[str, nn.Module] = {}
        for prefix in self._of_part[part]:
            modules |= self._without_other_parts(model.get_submodule(prefix), prefix, part)
        return modules

    def _without_other_parts(self, module: nn.Module, name: str, part: str) -> dict[str, nn.Module]:
        mixed = any(other.startswith(f"{name}.") and of != part for other, of in self._prefixes)
        if not mixed and not isinstance(module, nn.ModuleList):
            return {name: module}
        if direct := [parameter for parameter, _ in module.named_parameters(recurse=False)]:
            reason = f"{name} holds {direct[0]} beside other parts"
            raise ConfigError(f"tuning.train=[{part}] beside adapters is not supported: {reason}; take tuning=full")
        modules: dict[str, nn.Module] = {}
        for child_name, child in module.named_children():
            full_name = f"{name}.{child_name}"
            if self.of(full_name) == part and next(child.parameters(), None) is not None:
                modules |= self._without_other_parts(child, full_name, part)
        return modules

    def counts(self, model: nn.Module) -> dict[str, tuple[int, int]]:
        """Map a part to its counts of all and trainable parameters, without frozen originals of copied modules."""
        sizes = dict.fromkeys(self.names, (0, 0))
        for name, parameter in model.named_parameters():
            if ".original_module." not in name:
                total, trainable = sizes[self.of(name)]
                size = full_size(parameter)
                sizes[self.of(name)] = total + size, trainable + size * parameter.requires_grad
        return sizes


def check_tuning(tuning: TuningConfig, family: Family | type[Family]) -> None:
    """Check the options against the family, before anything is loaded.

    Raises:
        ConfigError: a part that the family doesn't have, or nothing to train.
    """
    for key in ("freeze", "adapt", "train"):
        for part in getattr(tuning, key) or ():
            if part not in family.parts:
                raise ConfigError(
                    f"tuning.{key}: {_family_name(family)} has no part {part!r}{nearest(part, family.parts)}"
                    f" (parts: {', '.join(family.parts)})"
                )
    if tuning.mode == "full":
        if set(tuning.freeze) >= set(family.parts):
            raise ConfigError(f"tuning.freeze={tuning.freeze} leaves nothing to train; leave one of its parts out")
        return
    if "language" in (tuning.train or ()):
        raise ConfigError("tuning.train=[language] beside adapters is not supported; take tuning=full")
    for part in _adapted(tuning):
        if part in (tuning.train or ()):
            raise ConfigError(
                f"tuning.adapt and tuning.train both name {part!r}, which either has adapters or is trained whole"
            )
        if not tuning.targets and part not in family.lora_targets:
            parts = ", ".join(family.lora_targets)
            raise ConfigError(
                f"tuning.adapt: {_family_name(family)} states no layers for adapters in {part!r} (only in {parts}); "
                "name them in tuning.targets"
            )
    if not _adapted(tuning):
        raise ConfigError("tuning.mode=lora without a part to adapt; leave one out of tuning.freeze, or take full")


def tune(model: PreTrainedModel, family: Family, tuning: TuningConfig) -> Any:
    """Make exactly the parameters trainable that `tuning` says; under `lora` the model is wrapped by peft.

    Raises:
        ConfigError: see `check_tuning` and `adapted_layers`.
    """
    from peft import LoraConfig, get_peft_model

    check_tuning(tuning, family)
    parts = Parts(family)
    if tuning.mode == "full":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parts.of(name) not in tuning.freeze)
        return model
    trained_whole = [p for p in _trained_whole(tuning, family) if p not in tuning.freeze]
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha or 2 * tuning.rank,  # type: ignore[arg-type]
        lora_dropout=tuning.dropout,
        use_dora=bool(tuning.dora),
        use_rslora=bool(tuning.rslora),
        target_modules=adapted_layers(model, family, tuning),
        modules_to_save=[name for part in trained_whole for name in parts.modules(model, part)] or None,
    )
    # peft would make adapters float32 but copies of whole parts 16-bit, and ZeRO-3 gathers one type at a time. What
    # is trained is kept in float32 all the same, by DeepSpeed or `float32_masters`.
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def adapted_layers(model: nn.Module, family: Family, tuning: TuningConfig) -> list[str]:
    """Full names of the linear layers that get adapters.

    Raises:
        ConfigError: none has such a name, or no block such a number.
    """
    parts, layers = Parts(family), []
    for part in _adapted(tuning):
        targets = tuning.targets or family.lora_targets[part]
        linear = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and parts.of(n) == part]
        linear = _of_blocks(linear, part, tuning.layers)
        chosen = [n for n in linear if n.rpartition(".")[2] in targets]
        if not chosen:
            names = sorted({n.rpartition(".")[2] for n in linear})
            raise ConfigError(f"tuning.targets={list(targets)}: none in {part}; its linear layers: {', '.join(names)}")
        layers += chosen
    return layers


def _of_blocks(names: list[str], part: str, blocks: list[int] | None) -> list[str]:
    """Of the modules those in the blocks with these numbers; all without numbers."""
    if blocks is None:
        return names
    numbers = {name: int(number[1]) if (number := _BLOCK.search(name)) else -1 for name in names}
    known = sorted({*numbers.values()} - {-1})
    if missing := [block for block in blocks if block not in known]:
        raise ConfigError(
            f"tuning.layers={blocks}: {part} has no block {missing[0]}; its blocks are "
            f"{f'{known[0]}..{known[-1]}' if known else 'not numbered'}"
        )
    return [name for name, number in numbers.items() if number in blocks]


def is_frozen(tuning: TuningConfig, family: Family | type[Family], part: str) -> bool:
    """Whether the family has the part and every parameter of it stays as it was loaded."""
    moves = tuning.mode == "full" or part in [*_adapted(tuning), *_trained_whole(tuning, family)]
    return part in family.parts and (part in tuning.freeze or not moves)


def parameter_table(model: nn.Module, family: Family) -> Table:
    """Parameters and trainable ones, per part."""
    table = Table("part", box=None, pad_edge=False)
    for title in ("parameters", "trainable", "share"):
        table.add_column(title, justify="right")
    counts = Parts(family).counts(model)
    sums = [sum(column) for column in zip(*counts.values(), strict=True)]
    for part, (total, trainable) in [*counts.items(), ("all", sums)]:
        table.add_row(part, f"{total:,}", f"{trainable:,}", f"{trainable / total:.1%}" if total else "-")
    return table


def _adapted(tuning: TuningConfig) -> list[str]:
    return [part for part in tuning.adapt if part not in tuning.freeze]


def _trained_whole(tuning: TuningConfig, family: Family | type[Family]) -> list[str]:
    names = family.lora_trainable if tuning.train is None else tuning.train
    return [part for part in names if part in family.parts]


def _family_name(family: Any) -> str:
    return getattr(family, "__name__", type(family).__name__)


def _unwrapped(name: str) -> str:
    return name.removeprefix("base_model.model.")
