"""Baichuan2-7B (Yang et al., 2023, arXiv 2309.10305) without remote code, as Llama with a normalised output head.

Its checkpoint differs from Llama's in two things: `W_pack` holds q, k and v one below the other, and the logits are
products of a hidden state with the DIRECTION of every row of the head, w / |w|. Transformers splits `W_pack` while it
loads the (sharded) file. The head stays normalised while training, as in Baichuan2's own code; a saved model holds rows
of length one, so that any plain Llama reads it with the same logits.

Baichuan2-13B (ALiBi in place of rotary positions) is not Llama's layout and is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import Chunk, WeightConverter

from ntil.models.causal_lm import CausalLM
from ntil.models.pretrained import CheckpointError, read_weights, write_weights

# Fields of the original configuration; the rest (auto_map, z_loss_weight, ...) has no meaning for Llama.
_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


class NormHead(torch.nn.Linear):
    """Output head [..., H] -> [..., V]: the product with each row of the weight [V, H], divided by the row's length."""

    def forward(self, hidden: Tensor) -> Tensor:
        # Dividing [N, V] by [V] instead of normalising [V, H] spares a copy of the largest matrix in every step.
        return F.linear(hidden, self.weight) / self.weight.norm(dim=1).clamp_min(1e-12)


class Baichuan2ForCausalLM(LlamaForCausalLM):
    """Llama with `NormHead` as its output head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.lm_head = NormHead(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()


register_checkpoint_conversion_mapping(
    "Baichuan2ForCausalLM",
    [
        WeightConverter(
            "self_attn.W_pack.weight",
            [f"self_attn.{name}_proj.weight" for name in "qkv"],
            operations=[Chunk(dim=0)],
        )
    ],
    overwrite=True,
)


class Baichuan2(CausalLM):
    """Family of Baichuan2-7B; arguments as `CausalLM`, `language` holds `LlamaConfig` fields."""

    def read_config(self, source: str | Path) -> PreTrainedConfig:
        published, _ = PreTrainedConfig.get_config_dict(source)
        if published.get("model_type") == "llama":  # as a run saves it
            return LlamaConfig.from_pretrained(source)
        if published.get("model_type") != "baichuan":
            kind = published.get("model_type")
            raise CheckpointError(
                f"model.checkpoint={source} is a {kind!r}, not Baichuan2; take the config of its family"
            )
        if "max_position_embeddings" not in published:
            raise CheckpointError(
                f"model.checkpoint={source} has no max_position_embeddings, so ALiBi positions as Baichuan2-13B has; "
                "only Baichuan2-7B is of Llama's layout"
            )
        return LlamaConfig(**{k: published[k] for k in _FIELDS if k in published}, tie_word_embeddings=False)

    def nano_config(self, language: dict[str, Any]) -> PreTrainedConfig:
        return super().nano_config({**language, "tie_word_embeddings": False})

    def from_scratch(self) -> PreTrainedModel:
        return Baichuan2ForCausalLM._from_config(self.config, dtype=self.dtype, attn_implementation=self.attention)

    def from_checkpoint(self, source: str | Path) -> PreTrainedModel:
        how, config = self.reading_options(), self.read_config(source)
        return read_weights(Baichuan2ForCausalLM, source, allow_pickle=self.allow_pickle, config=config, **how)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Save in Llama's layout with head rows of length one, so that `AutoModelForCausalLM` gives the same logits."""
        with normalised_head(model):
            super().save(model, folder)
        config = LlamaConfig.from_pretrained(folder)
        config.architectures = ["LlamaForCausalLM"]
        config.save_pretrained(folder)


def save_original(model: PreTrainedModel, folder: Path) -> None:
    """Save weights and config.json in Baichuan2's own layout, without its Python files and tokenizer."""
    with normalised_head(model):
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
    config = model.config.to_dict()
    for start in {name.partition("q_proj")[0] for name in weights if "q_proj" in name}:
        packed = [weights.pop(f"{start}{name}_proj.weight") for name in "qkv"]
        weights[f"{start}W_pack.weight"] = torch.cat(packed)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(weights, folder)
    fields = {name: config[name] for name in _FIELDS if name in config}
    fields |= {"model_type": "baichuan", "architectures": ["BaichuanForCausalLM"], "tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(fields, indent=2))


@contextmanager
def normalised_head(model: PreTrainedModel) -> Iterator[None]:
    """Have rows of length one in the output head within the block; the model's logits are the same.

    After it they are what they were: gradients of a head are divided by its rows' lengths, so a training that goes on
    with others is another one.
    """
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        before = weight.detach().clone()
        weight.copy_(F.normalize(weight.float(), dim=1))
    try:
        yield
    finally:
        with torch.no_grad():
            weight.copy_(before)
