"""A checkpoint of random weights in a model's published sizes and layout, for machines without the weights.

Sizes: the checkpoint's own config where it is on this machine, else `ntil/models/published.yaml`. The tokenizer is the
checkpoint's own where that is here, or that of a folder. Else the tokenizer of the family's nano model takes its place:
embedding and head keep the published number of rows, but texts become more tokens than they would.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from ntil.config.build import build
from ntil.config.compose import choices, compose_dict
from ntil.config.errors import ConfigError
from ntil.config.schema import Component
from ntil.models.base import Family, torch_dtype
from ntil.models.inventory import KnownModel
from ntil.models.pretrained import CheckpointError

SHARD = "2GB"
# What a tokenizer is read from.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
)


def write_random(model: Component, folder: Path, tokenizer: str | None = None) -> list[str]:
    """Write random weights for the model, with all that `model.checkpoint=<folder>` needs; remarks for the report.

    Args:
        tokenizer: a folder with the tokenizer to take, in the files of the model's own release.

    Raises:
        ConfigError: a model whose sizes aren't known here, or a tokenizer that can't be read.
    """
    known, remarks = _opened(KnownModel.of(model)), []
    family = known.family
    if not known.sized:
        raise ConfigError(
            f"weights=random: {model.options['checkpoint']} isn't on this machine, and ntil/models/published.yaml "
            "doesn't state its sizes"
        )
    if family is None:
        family = build("model", nano_twin(model, known.facts or {}))
        if tokenizer is None:
            remarks.append(
                f"the tokenizer of {model.options['checkpoint']} isn't on this machine; that of the nano model "
                "takes its place (texts become more tokens; the embedding keeps its size); tokenizer=<folder> takes "
                "a real one"
            )
        if family.image_processor is not None:
            family.image_processor = _processor(family, known)
    weights = _random(known, str(model.options.get("dtype", "float32")))
    if known.family is None:
        _set_ids(weights.config, family, tokenizer)
        family.config = weights.config
    # By itself a family's `save` would write one file; releases of this size have several.
    weights.save_pretrained = partial(weights.save_pretrained, max_shard_size=SHARD)
    family.save(weights, folder)
    del weights
    gc.collect()
    if tokenizer is not None:
        _copy_tokenizer(Path(tokenizer).expanduser(), folder)
    return remarks


def _opened(known: KnownModel) -> KnownModel:
    """The model with its family where config, tokenizer and processor are on this machine, with or without weights."""
    if known.state == "no":
        return known
    try:
        return replace(known, family=build("model", known.model))
    except CheckpointError:
        return known


def nano_twin(model: Component, facts: dict[str, Any]) -> Component:
    """The config of conf/model that makes a model of the same family from scratch, of the same architecture at best.

    Raises:
        ConfigError: there is none.
    """
    twins = [compose_dict([f"model={name}"])["model"] for name in choices("model") if name.endswith("_nano")]
    twins = [twin for twin in twins if twin["target"] == model.target and twin.get("checkpoint") is None]
    if not twins:
        raise ConfigError(f"weights=random: no config of conf/model makes a model of {model.target} from scratch")
    of_class = [twin for twin in twins if _architecture(twin) in str(facts.get("class", "")).lower()]
    return Component.from_dict("model", (of_class or twins)[0])


def _architecture(twin: dict[str, Any]) -> str:
    return str((twin.get("language") or {}).get("model_type", "")).removesuffix("_text")


def _random(known: KnownModel, dtype: str) -> Any:
    """The model in its published sizes with random weights, drawn as its class draws them, in host memory."""
    weights = known.skeleton().to(torch_dtype(dtype)).to_empty(device="cpu")
    weights.init_weights()
    return weights


def _processor(family: Family, known: KnownModel) -> Any:
    facts = known.facts or {}
    if "processor" not in facts:
        raise ConfigError(
            f"weights=random: ntil/models/published.yaml doesn't state the picture processor of {known.model.name}"
        )
    return type(family.image_processor)(**facts["processor"])


def _set_ids(config: Any, family: Family, tokenizer: str | None) -> None:
    """Set the ids of special tokens in a published config to those of the tokenizer that takes the place of its own."""
    ids = family.tokenizer.get_vocab()
    names = {index: name for name, index in ids.items()}
    new: Any = family.tokenizer
    if tokenizer is not None:
        new = _tokenizer_of(Path(tokenizer).expanduser())
    vocab = new.get_vocab()
    for part, key, index in _token_ids(config, family.config):
        standard = key.removesuffix("_token_id")
        if standard in ("bos", "eos", "pad"):
            setattr(part, key, getattr(new, key))
        elif index is not None and names.get(index) in vocab:
            setattr(part, key, vocab[names[index]])


def _tokenizer_of(folder: Path) -> Any:
    """The tokenizer in a folder.

    Raises:
        ConfigError: there is none, or it doesn't say of which class it is.
    """
    if not folder.is_dir():
        raise ConfigError(f"tokenizer={folder}: there is no such folder")
    try:
        return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"tokenizer={folder}: no tokenizer can be read there; give a folder with the release's tokenizer.json, "
            "tokenizer_config.json and config.json"
        ) from error


def _token_ids(config: Any, nano: Any) -> Iterator[tuple[Any, str, int | None]]:
    """The config or a part of it, the key of an id there, and the id in the same place of the nano model's config."""
    for key in [key for key in nano.to_dict() if key.endswith(("_token_id", "_token_index"))]:
        yield config, key, getattr(nano, key)
    if hasattr(nano, "text_config"):
        yield from _token_ids(config.text_config, nano.text_config)


def _copy_tokenizer(source: Path, folder: Path) -> None:
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
        if (source / name).exists():
            shutil.copy(source / name, folder / name)
