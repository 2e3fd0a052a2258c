"""A trained model in its run's folder: whole, or as adapters on their base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from ntil.config.errors import ConfigError
from ntil.config.json_files import read_json
from ntil.distributed.ranks import Ranks
from ntil.distributed.zero3 import gathered
from ntil.models.base import Family, ready

BASE = "base"


def save_base(model: PreTrainedModel, family: Family, folder: Path) -> None:
    """Save the base of the adapters of a model from scratch, which no hub has. Under ZeRO-3 all ranks must call."""
    with whole_model(model) as writes:
        if writes and not (folder / BASE / "config.json").exists():
            family.save(model, folder / BASE)


def save(model: Any, family: Family, folder: Path) -> None:
    """Save the trained model: the whole, or of a peft model its adapters alone."""
    if hasattr(model, "peft_config"):
        model.save_pretrained(str(folder))
    else:
        family.save(model, folder)


def is_saved(folder: Path) -> bool:
    """Whether the folder holds a whole model or an adapter."""
    return any((folder / name).exists() for name in ("config.json", "adapter_config.json"))


def check_saved(folder: Path) -> None:
    """Check that a run of ntil could have saved the folder, before weights are read.

    Raises:
        ConfigError: no model, no safetensors, a damaged adapter_config.json, or an adapter whose `megatron_core` names
            a module: peft would import it.
    """
    if not is_saved(folder):
        raise ConfigError(f"{folder} holds no model; finish the run first")
    file = folder / "adapter_config.json"
    # Where peft sees no file of this very name, it reads adapter_model.bin.
    weights = "adapter_model.safetensors" if file.exists() else "*.safetensors"
    if not any(folder.glob(weights)):
        raise ConfigError(f"{folder} holds no {weights}, and a run saves nothing else; its pickles are not read")
    adapter = read_json(file) if file.exists() else {"peft_type": "LORA"}
    if adapter.get("peft_type") != "LORA" or adapter.get("megatron_config") is not None:
        raise ConfigError(f"{file}: only LoRA adapters without megatron_config are read")


def load_saved(
    family: Family,
    folder: Path,
    device: torch.device | str = "cpu",
    base_in: Path | None = None,
    trainable: bool = False,
) -> Any:
    """Load the model that a run saved in `folder`, whole or an adapter on its base, onto a device.

    Args:
        base_in: the folder that `save_base` was given, where that is another one.
        trainable: whether adapters get gradients; a whole model's weights do.

    Raises:
        ConfigError: see `check_saved`.
    """
    check_saved(folder)
    # Straight onto a GPU, so that the ranks of a host don't each fill its memory with a model first.
    on_device = nullcontext() if torch.device(device).type == "cpu" else torch.device(device)
    if not (folder / "adapter_config.json").exists():
        with on_device:
            model: nn.Module = family.load(folder)
        return model.to(device)
    from peft import PeftModel

    if (base := (base_in or folder) / BASE).exists():
        check_saved(base)
    with on_device:
        model = family.load(base if base.exists() else None)
    adapted: nn.Module = PeftModel.from_pretrained(
        model, str(folder), is_trainable=trainable, autocast_adapter_dtype=False
    )
    return adapted.to(device)


def load_merged(family: Family, folder: Path) -> Any:
    """Load the adapters that a run saved, merged into their base: the logits are those of base and adapters.

    A base in 4 bits is unpacked first, since the adapters were trained on it and not on the one that it was made of.
    A head that shares its weight with the input embedding and has adapters gets a weight of its own (`merged`).

    Raises:
        ConfigError: see `check_saved`; or a base in 4 bits without bitsandbytes to read it.
    """
    if family.quantization is None:
        return merged(load_saved(family, folder))
    if not find_spec("bitsandbytes"):
        raise ConfigError(
            f"{folder}: its base is in 4 bits, which the package bitsandbytes reads, and it isn't installed here; "
            "install it with `pip install bitsandbytes`, or export the adapters alone with merge=false"
        )
    check_saved(folder)
    from peft import PeftModel

    base: Any = family.load()
    unpacked = base.dequantize(family.dtype)
    return ready(merged(PeftModel.from_pretrained(unpacked, str(folder), autocast_adapter_dtype=False)))


def merged(adapted: Any) -> Any:
    """Merge the adapters of a peft model into its base, in place; the base alone.

    An adapter moves one use of a weight. Where its layer shares the weight, as a tied head does with the input
    embedding, the layer gets a copy first, and the config says that the two are tied no more.
    """
    model = adapted.get_base_model()
    if _untied(model):
        for config in (model.config, model.config.get_text_config()):
            config.tie_word_embeddings = False
    return adapted.merge_and_unload()


def _untied(model: nn.Module) -> bool:
    """Copy the weights of adapted layers that other modules use too; whether there were any."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    layers: list[Any] = [module.get_base_layer() for module in model.modules() if isinstance(module, BaseTunerLayer)]
    shared = [layer for layer in layers if uses[id(layer.weight)] > 1]
    for layer in shared:
        layer.weight = nn.Parameter(layer.weight.detach().clone(), requires_grad=layer.weight.requires_grad)
    return bool(shared)


@contextmanager
def whole_model(model: nn.Module) -> Iterator[bool]:
    """Gather the parameters within the block, for ZeRO-3; yields whether this rank is the one to write."""
    with gathered(model.parameters()):
        yield Ranks.here().first
