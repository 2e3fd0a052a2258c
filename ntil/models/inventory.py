"""Inventory of model configs: size, digits, coordinates, memory.

Parameters are counted on the meta device, from the checkpoint's own config where it is on this machine, else from
published.yaml. Memory is DeepSpeed's estimate of weights, gradients and optimizer states per GPU in 16-bit training
(2 + 18 bytes per parameter, partitioned as the stage says); activations come on top. Adapters: frozen weights take 2
bytes each, partitioned by stage 3 only, and the estimate is that of the trainable parameters alone. DeepSpeed has no
estimator for stage 1: there its stage 2 figure has the gradients' 6 bytes whole. Torch alone counts as stage 0, of
whose 20 bytes it takes 18: float32 weights, gradients and two moments, and autocast's 16-bit copies.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from huggingface_hub import try_to_load_from_cache

from ntil.config.build import build, locate
from ntil.config.schema import Component, RunConfig, TuningConfig
from ntil.distributed.ranks import ranks_on_this_host
from ntil.models.base import Family
from ntil.models.packaged import PREFIX, converted
from ntil.models.pretrained import CheckpointError, is_path
from ntil.models.tuning import Parts, tune
from ntil.numbers.tokenizers import keeps_digits_apart

PUBLISHED = Path(__file__).with_name("published.yaml")


def describe(model: Component, gpus: int = 8, rank: int = 16) -> dict[str, Any]:
    """Describe a model config; sizes in parameters, memory in bytes per GPU and ZeRO stage."""
    published = KnownModel.of(model)
    state = published.state
    try:
        published = published.opened()
    except CheckpointError as error:
        state = f"unreadable: {error}"
    kind, family, facts = published.kind, published.family, published.facts
    coords = family.coords if family else model.options.get("coords") or _default(kind, "coords")
    digits = keeps_digits_apart(family.tokenizer) if family else facts and facts["digits"]
    description: dict[str, Any] = {
        "model": model.name,
        "family": kind.__name__,
        "checkpoint": model.options.get("checkpoint"),
        "cached": state,
        "digits": digits,
        "coords": coords,
        "source": "config" if family else "published" if facts else None,
    }
    if not published.sized:
        return description
    full = published.skeleton()
    parts = {part: size for part, (size, _) in Parts(published.owner).counts(full).items()}
    all_parameters, trainable = published.tuned_sizes(published.skeleton(), TuningConfig(mode="lora", rank=rank))
    largest, total = largest_layer(full), sum(parts.values())
    return description | {
        "parameters": total,
        "parts": parts,
        "lora_trainable": trainable,
        "memory_full": [estimate(stage, total, 0, largest, gpus) for stage in range(4)],
        "memory_lora": [estimate(stage, trainable, all_parameters - trainable, largest, gpus) for stage in range(4)],
    }


def needed_memory(config: RunConfig) -> int | None:
    """Bytes per rank for the weights, gradients and optimizer states of a run's config; None for an unknown model.

    The estimate of the whole module, with the run's own ZeRO stage, ranks on a host and tuning.
    """
    published, engine = KnownModel.of(config.model).opened(), config.engine
    if not published.sized:
        return None
    skeleton = published.skeleton()
    largest = largest_layer(skeleton)
    all_parameters, trainable = published.tuned_sizes(skeleton, config.tuning)
    frozen = all_parameters - trainable
    return estimate(engine.zero_stage or 0, trainable, frozen, largest, ranks_on_this_host(engine), engine.offload)


def estimate(stage: int, trainable: int, frozen: int, largest: int, gpus: int, offload: bool = False) -> int:
    """Bytes per GPU for `trainable` and `frozen` parameters on one host of `gpus`.

    offload: optimizer states and weights are in CPU memory; stage 3 only.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # DeepSpeed would warn that it found no GPU; only its formulas run
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as stage3
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as stage2

    if stage == 3:
        size = stage3(trainable, largest, num_gpus_per_node=gpus, cpu_offload=offload, cpu_offload_params=offload)[1]
        return size + (0 if offload else 2 * frozen // gpus)
    shared = stage2(trainable, num_gpus_per_node=gpus if stage else 1, cpu_offload=False)[1]
    if stage == 1:
        shared += 6 * trainable - 6 * trainable // gpus
    return shared + 2 * frozen


def largest_layer(model: torch.nn.Module) -> int:
    """Parameters of the largest layer, as DeepSpeed counts: those that one module holds directly."""
    return max(sum(p.numel() for p in module.parameters(recurse=False)) for module in model.modules())


def cached(checkpoint: str | None) -> str:
    """State of a checkpoint on this machine: `from scratch`, `folder`, `yes`, `partly` (weights are missing), `no`."""
    if checkpoint is None:
        return "from scratch"
    if Path(checkpoint).expanduser().is_dir():
        return "folder"

    if is_path(checkpoint):
        return "no"
    if checkpoint.startswith(PREFIX):
        return "yes" if converted(checkpoint).is_dir() else "no"

    def there(name: str) -> str | None:
        path = try_to_load_from_cache(checkpoint, name)
        return path if isinstance(path, str) else None

    if not there("config.json"):
        return "no"
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = there(f"{stem}.index.json")
        shards = set(json.loads(Path(index).read_text())["weight_map"].values()) if index else {stem}
        if all(map(there, shards)):
            return "yes"
    return "partly"


class FamilyParts:
    """A family's class attributes, for a checkpoint that can't be opened here."""

    def __init__(self, kind: type[Family]) -> None:
        self.parts, self.lora_targets, self.lora_trainable = kind.parts, kind.lora_targets, kind.lora_trainable
        self.__name__ = kind.__name__


@dataclass(frozen=True)
class KnownModel:
    """A model config with its published facts, and once `opened` its family, if the checkpoint is on this machine.

    state: of the checkpoint, as `cached` says. facts: of this very checkpoint. class_path: of the model that it is read
        into, where it is published, whatever the checkpoint.
    """

    model: Component
    kind: type[Family]
    state: str
    facts: dict[str, Any] | None
    class_path: str | None = None
    family: Any = None

    @classmethod
    def of(cls, model: Component) -> KnownModel:
        checkpoint, published = model.options.get("checkpoint"), yaml.safe_load(PUBLISHED.read_text()).get(model.name)
        facts = published if published and published["checkpoint"] == checkpoint else None
        class_path = published["class"] if published else None
        return cls(model, locate(model.target, "model"), cached(checkpoint), facts, class_path)

    def opened(self) -> KnownModel:
        """Return it with its family built, unless the checkpoint is missing or incomplete.

        Raises:
            CheckpointError: the checkpoint is here and can't be read.
        """
        return self if self.state in ("no", "partly") else replace(self, family=build("model", self.model))

    @property
    def sized(self) -> bool:
        """Whether there is enough to build a `skeleton` of."""
        return self.family is not None or self.facts is not None

    @property
    def owner(self) -> Any:
        return self.family or FamilyParts(self.kind)

    def tuned_sizes(self, model: Any, tuning: TuningConfig) -> tuple[int, int]:
        """(all, trainable) parameters under `tuning`, which changes `model`."""
        counts = Parts(self.owner).counts(tune(model, self.owner, tuning)).values()
        all_parameters, trainable = (sum(column) for column in zip(*counts, strict=True))
        return all_parameters, trainable

    def skeleton(self) -> Any:
        """The model on the meta device, without weights."""
        with torch.device("meta"):
            if self.model.options.get("checkpoint") is None:
                return self.family.load()
            if self.class_path:
                model = _class_of(self.class_path)
                if self.family:
                    return model(self.family.config)
                assert self.facts  # `sized`
                return model(model.config_class(**self.facts["config"]))
            config = self.family.config
            model_class = getattr(self.family, "model_class", None) or getattr(transformers, config.architectures[0])
            return model_class(config)


def _default(kind: type[Family], name: str) -> Any:
    parameters = inspect.signature(kind).parameters.get(name)
    return parameters.default if parameters else getattr(kind, name)


def _class_of(path: str) -> Any:
    """Class that published.yaml names; the file is part of this package, so it is trusted."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
