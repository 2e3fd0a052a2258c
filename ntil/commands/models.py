"""List model configs with their size, digits and memory.

    ntil models [name ...] [gpus=8] [rank=16] [--json]
    ntil models <name> ... --modes [gpus=8] [rank=16]

Every config of conf/model and of active plug-ins, or the named ones: parameters, whether the checkpoint is on this
machine, how digits are tokenised, coordinates, memory in full and LoRA training.

gpus: over how many the memory is spread. rank: of the adapters. --json: all of it for a program. --modes: what every
way to train the named models takes (adapters, optimizers, an average of the weights), in memory and on disk.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from data.common.counts import counted
from ntil.commands.options import parse_options
from ntil.config.compose import choices, compose_dict, config_file
from ntil.config.errors import ConfigError, nearest
from ntil.config.schema import Component
from ntil.console import gigabytes
from ntil.estimates.modes import modes_table
from ntil.models.inventory import describe

WIDTH = 124  # that the table needs
FLAGS = ("--json", "--modes")


@dataclass
class ModelsOptions:
    """Options of `ntil models`: GPUs that share the memory, rank of the adapters."""

    gpus: int = 8
    rank: int = 16


def main(arguments: list[str]) -> int:
    """Run `ntil models`; the exit code.

    Raises:
        ConfigError: a model or option that isn't there.
    """
    warnings.filterwarnings("ignore", category=FutureWarning)
    options = parse_options("models", ModelsOptions, [word for word in arguments if "=" in word])
    if min(options.gpus, options.rank) < 1:
        raise ConfigError("ntil models: gpus and rank are at least 1")
    words = [word for word in arguments if "=" not in word]
    if wrong := next((word for word in words if word.startswith("-") and word not in FLAGS), None):
        raise ConfigError(f"ntil models: no option {wrong!r}{nearest(wrong, FLAGS)}")
    if set(FLAGS) <= set(words):
        raise ConfigError(f"ntil models: {' and '.join(FLAGS)} can't be had together; leave one of them out")
    names = [word for word in words if word not in FLAGS]
    available = choices("model")
    for name in names:
        if name not in available:
            raise ConfigError(f"model={name}: no such config{nearest(name, available)}")
    if "--modes" in arguments:
        if not names:
            raise ConfigError("ntil models --modes takes names of models, as in llava15_7b --modes")
        modes_table(names, options.gpus, options.rank).print()
        return 0
    described = [describe(_component(name), options.gpus, options.rank) for name in names or available]
    if "--json" in arguments:
        print(json.dumps(described, indent=1))
    else:
        Console(width=max(Console().width, WIDTH)).print(_table(described, options))
    return 0


def _component(name: str) -> Component:
    config = yaml.safe_load(config_file("model", name).read_text())
    # Composing takes a third of a second, and few configs are made of others; what a recipe brings isn't the model.
    parts = [part for part in config.pop("defaults", []) if not str(next(iter(part))).startswith("override")]
    return Component.from_dict("model", compose_dict([f"model={name}"])["model"] if parts else config)


def _table(described: list[dict[str, Any]], options: ModelsOptions) -> Table:
    title = (
        f"GB per GPU for weights, gradients and optimizer states on {counted(options.gpus, 'GPU')}, ZeRO 0 / 1 / 2 / 3"
    )
    table = Table("model", box=None, pad_edge=False, caption=title, caption_justify="left")
    for name in ("parameters", "cached", "digits", "coords", "full", f"LoRA rank {options.rank}", "trains"):
        table.add_column(name, justify="right" if name in ("parameters", "trains") else "left")
    for model in described:
        digits = {True: "one each", False: "merged", None: "?"}[model["digits"]]
        memory = [_stages(model.get(f"memory_{kind}")) for kind in ("full", "lora")]
        sizes = [_count(model.get(key)) for key in ("parameters", "lora_trainable")]
        table.add_row(model["model"], sizes[0], model["cached"], digits, str(model["coords"]), *memory, sizes[1])
    return table


def _stages(sizes: list[int] | None) -> str:
    if sizes is None:
        return "?"
    return "< 0.1" if max(sizes) < 5e7 else " / ".join(map(gigabytes, sizes))


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.2f} M"
