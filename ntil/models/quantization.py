"""A base in 4 bits beneath adapters (QLoRA), through bitsandbytes: what can have one, and how it is read."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig, TuningConfig
from ntil.models.base import Family
from ntil.models.tuning import Parts

HEAD = "lm_head"
# 4 bits, and of each block of 64 weights a scale in 8 bits, whose scales are 32 bits for each 256 of them: 0.127 bits
# (Dettmers et al., 2023, arXiv 2305.14314, section 3).
BYTES = 4.127 / 8


def check_quantization(config: RunConfig, on_this_machine: bool = True) -> None:
    """Check `tuning.quantize` against the model, the engine, and what this machine has.

    Raises:
        ConfigError: names what is missing, and what to take instead.
    """
    quantize, engine = config.tuning.quantize, config.engine
    if quantize is None:
        return
    key = f"tuning.quantize={quantize}"
    if not config.model.options.get("checkpoint"):
        raise ConfigError(f"{key}: {config.model.name} is made from scratch, with no weights to quantize; leave it out")
    if engine.zero_stage == 3:
        raise ConfigError(f"{key}: ZeRO-3 can't partition weights in 4 bits; take engine=zero2 or engine=local")
    if engine.compile:
        raise ConfigError(f"{key}: torch.compile isn't supported on weights in 4 bits; take engine.compile=false")
    if not on_this_machine:
        return
    if not find_spec("bitsandbytes"):
        raise ConfigError(
            f"{key} needs the package bitsandbytes, which isn't installed here; install it with "
            "`pip install bitsandbytes`, or take tuning=lora"
        )
    if engine.device == "cpu" or not torch.cuda.is_available():
        raise ConfigError(f"{key} needs a GPU, and there is none here or engine.device=cpu; take tuning=lora")


def quantization_of(tuning: TuningConfig, family: Family) -> Any:
    """The `BitsAndBytesConfig` that the base is read with; None where it isn't quantized.

    Parts beside the language model are left as they are: a projector is trained whole, and a vision tower is small.
    """
    if tuning.quantize is None:
        return None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=tuning.quantize,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=family.dtype,
        llm_int8_skip_modules=not_quantized(family),
    )


def not_quantized(family: Family) -> list[str]:
    """Prefixes of the modules that keep their precision: all parts but the language model, and the output head."""
    others = (prefixes for part, prefixes in family.parts.items() if part != "language")
    return [HEAD, *(prefix for several in others for prefix in ((several,) if isinstance(several, str) else several))]


def quantized_size(model: nn.Module, family: Family) -> int:
    """Number of weights of a model that a base in 4 bits has in 4 bits: those of the language model's linear layers."""
    parts = Parts(family)
    return sum(
        module.weight.numel()
        for name, module in model.named_modules()
        if type(module) is nn.Linear and parts.of(name) == "language" and name.rpartition(".")[2] != HEAD
    )
