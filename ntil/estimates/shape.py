"""Sizes of a model that memory and time follow from, read off its config and its skeleton on the meta device."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ntil.config.schema import RunConfig
from ntil.models.inventory import KnownModel, largest_layer
from ntil.models.pretrained import CheckpointError
from ntil.models.quantization import quantized_size
from ntil.models.tuning import Parts, tune

PICTURE = (640, 480)  # pixels, most COCO pictures
TEXT_TOKENS = 60  # question, template and answer beside a picture, as in RefCOCO's rows


@dataclass(frozen=True)
class Layers:
    """Transformer layers of equal size. key_value: width of the keys, and of the values, of one layer."""

    count: int
    hidden: int
    key_value: int
    intermediate: int


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a model.

    Attributes:
        counts: part -> (parameters, trained ones), adapters included.
        largest: parameters of the largest layer.
        language, vision: None where the config doesn't say.
        vocab: rows of the output embedding.
        weight_bytes: of one parameter as it is loaded.
        picture_tokens: image tokens of a picture of `PICTURE` in the language model, 0 for text models.
        patches: tokens of that picture in the vision tower.
        factored: rows and columns of the trained matrices, and elements of the trained vectors.
        quantized: weights that are in 4 bits.
    """

    counts: dict[str, tuple[int, int]]
    largest: int
    language: Layers | None
    vision: Layers | None
    vocab: int
    weight_bytes: int
    picture_tokens: int
    patches: int
    factored: int = 0
    quantized: int = 0

    @property
    def parameters(self) -> int:
        return sum(total for total, _ in self.counts.values())

    @property
    def trained(self) -> int:
        return sum(trained for _, trained in self.counts.values())


def shape_of(config: RunConfig) -> ModelShape | None:
    """Sizes of a run's model under its tuning; None for a model whose config is nowhere on this machine."""
    key = (repr(config.model.to_dict()), repr(config.tuning))
    return _cached(key, lambda: _shape(config))


_SHAPES: dict[Any, ModelShape | None] = {}


def _cached(key: Any, make: Callable[[], ModelShape | None]) -> ModelShape | None:
    if key not in _SHAPES:
        _SHAPES[key] = make()
    return _SHAPES[key]


def _shape(config: RunConfig) -> ModelShape | None:
    known = KnownModel.of(config.model)
    try:
        known = known.opened()
    except CheckpointError:
        return None
    if not known.sized:
        return None
    model = known.skeleton()
    largest, text = largest_layer(model), model.config.get_text_config()
    vision = getattr(model.config, "vision_config", None)
    quantized = quantized_size(model, known.owner) if config.tuning.quantize else 0
    tuned = tune(model, known.owner, config.tuning)
    counts, trained = Parts(known.owner).counts(tuned), (p for p in tuned.parameters() if p.requires_grad)
    tokens, patches = tokens_and_patches(known) if vision is not None else (0, 0)
    return ModelShape(
        counts,
        largest,
        layers_of(text),
        layers_of(vision) if vision is not None else None,
        text.vocab_size,
        2 if config.model.options.get("dtype") in ("bfloat16", "float16") else 4,
        tokens,
        patches,
        sum(sum(p.shape[-2:]) * math.prod(p.shape[:-2]) for p in trained),
        quantized,
    )


def layers_of(config: Any) -> Layers | None:
    """Layers that a config describes, by the names of the field; None where it uses others."""
    count = _first(config, "num_hidden_layers", "depth", "num_layers")
    hidden = _first(config, "embed_dim", "hidden_size")
    if not count or not hidden:
        return None
    heads = _first(config, "num_attention_heads", "num_heads") or 1
    intermediate = _first(config, "intermediate_size") or int((_first(config, "mlp_ratio") or 4) * hidden)
    return Layers(count, hidden, _key_value(config, hidden, heads), intermediate)


def _key_value(config: Any, hidden: int, heads: int) -> int:
    """Width of a layer's keys in the cache; the mean of keys and values where these differ.

    Of multi-head latent attention (MiniCPM3) the latent and the rotated part are cached (transformers 5.23).
    """
    if (latent := _first(config, "kv_lora_rank")) is not None:
        return int(latent + (_first(config, "qk_rope_head_dim") or 0)) // 2
    groups = _first(config, "num_key_value_heads") or heads
    return int(groups * (_first(config, "head_dim") or hidden // heads))


def _first(config: Any, *names: str) -> Any:
    return next((getattr(config, n) for n in names if getattr(config, n, None) is not None), None)


def tokens_and_patches(known: KnownModel) -> tuple[int, int]:
    """Image tokens of a picture in the language model, and in the tower."""
    if known.family is not None:
        tokens = int(known.family.picture_tokens(PICTURE))
    else:
        tokens = int((known.facts or {}).get("picture_tokens", 0))
    return tokens, tokens * (known.family or known.kind).patches_per_token
