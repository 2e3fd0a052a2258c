"""Where a shared beginning isn't exact, and what is said there.

A model may share one if each token depends on those before it alone, and those it may see and where they stand are
given by an attention mask and by position ids.
"""

from __future__ import annotations

from typing import Any

from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.models.base import Family

# Architectures of language models in transformers 5.23 that take all of it from mask and position ids; the tests
# compare packed and separate examples of each.
EXACT = ("llama", "qwen2", "qwen3", "minicpm3", "qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text")


def check_class(config: RunConfig, family: type[Family]) -> None:
    """Check what the class of a model and its options say, before anything is read.

    Raises:
        ConfigError: a packed batch would be another computation.
    """
    if config.packing.mode == "tower" and "vision" not in family.parts:
        raise ConfigError(f"packing=tower: {family.__name__} has no vision tower; set packing=pictures or packing=none")
    if not config.packing.shares_tokens:
        return
    if not family.causal:
        raise ConfigError(
            f"packing={config.packing.mode}: in {family.__name__} the picture's states depend on the question, so "
            f"questions can't share them; {_remedy(family)}"
        )
    _check_attention(config.model.options.get("attn_implementation"), _remedy(family))


def check_family(family: Family) -> None:
    """Check a model's own configuration.

    Raises:
        ConfigError: a packed batch would be another computation.
    """
    if not family.causal:
        raise ConfigError(f"{type(family).__name__}: what is before a question depends on it; {_remedy(type(family))}")
    _check_attention(getattr(family, "attention", None), _remedy(type(family)))
    text: Any = family.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        raise ConfigError(
            f"packing: {text.model_type} has layers of {', '.join(sorted(kinds - {'full_attention'}))}, in which a "
            f"token's neighbours in a packed sequence aren't those in its example; {_remedy(type(family))}"
        )
    if text.model_type not in EXACT:
        raise ConfigError(
            f"packing: nobody has compared packed and separate examples of {text.model_type!r}, only of "
            f"{', '.join(EXACT)}; {_remedy(type(family))}"
        )


def _check_attention(attention: str | None, remedy: str) -> None:
    if attention and attention.startswith("flash_attention"):
        raise ConfigError(
            f"packing: model.attn_implementation={attention} takes no mask, so questions would see each other; set "
            f"model.attn_implementation=sdpa, or {remedy}"
        )


def _remedy(family: type[Family]) -> str:
    if "vision" in family.parts:
        return "set packing=tower, which shares the work of the vision tower alone, or packing=none"
    return "set packing=none"
