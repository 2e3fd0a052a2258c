"""Tiny checkpoints of the families that cut pictures into tiles, in the layout of their releases."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

INTERNVL_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")


# The 128 tokens that SmolVLM2 adds to SmolLM2's, in the order of their ids.
SMOLVLM_TOKENS = (
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    *(f"<|reserved_special_token_{i}|>" for i in range(88)),
    "<end_of_utterance>",
)
HALF = [0.5, 0.5, 0.5]


def with_tokens(
    shared: Path, name: str, folder: Path, tokens: tuple[str, ...], config: dict[str, Any], last: float = math.inf
) -> dict[str, int]:
    """Write a tokenizer with further special tokens after its last id, or after `last`; added tokens by their text."""
    source = json.loads((shared / "assets" / "tokenizers" / name / "tokenizer.json").read_text())
    source["added_tokens"] = [token for token in source["added_tokens"] if token["id"] <= last]
    first = max(*source["model"]["vocab"].values(), *(token["id"] for token in source["added_tokens"])) + 1
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    source["added_tokens"] += [{"id": first + i, "content": token, **flags} for i, token in enumerate(tokens)]
    (folder / "tokenizer.json").write_text(json.dumps(source))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return {token["content"]: token["id"] for token in source["added_tokens"]}


def internvl(shared: Path, folder: Path, kind: str, rows: int) -> None:
    """InternVL3 (`qwen2`) or 3.5 (`qwen3`) in the Hugging Face format."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None}
    base = {"qwen2": "qwen2_5", "qwen3": "qwen3"}[kind]
    more = {"tokenizer_class": "Qwen2Tokenizer", "extra_special_tokens": named, "add_prefix_space": False}
    ids = with_tokens(shared, base, folder, INTERNVL_TOKENS, {**special, **more})
    text: dict[str, Any] = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": rows}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "eos_token_id": 151645, "bos_token_id": 151643}
    text |= {"model_type": kind, "tie_word_embeddings": False, **({"head_dim": 12} if kind == "qwen3" else {})}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = InternVLConfig(
        text_config=text,
        vision_config={**vision, "image_size": 56, "patch_size": 14, "attention_bias": True},
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    InternVLForConditionalGeneration(config).save_pretrained(folder)
    processor = {"image_processor_type": "GotOcr2ImageProcessor", "crop_to_patches": False, "resample": 3}
    processor |= {"size": {"height": 56, "width": 56}, "max_patches": 12, "min_patches": 1}
    colours = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor | colours))


def smolvlm(shared: Path, folder: Path) -> None:
    """SmolVLM2: SmolLM2's tokenizer and 128 tokens; the padding id at the top of its config, 128002, is of no token."""
    names = {"end_of_utterance_token": "<end_of_utterance>", "fake_image_token": "<fake_token_around_image>"}
    names |= {"global_image_token": "<global-img>", "image_token": "<image>"}
    special = {"bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|im_end|>"}
    special |= {"unk_token": "<|endoftext|>", "tokenizer_class": "GPT2Tokenizer"}
    ids = with_tokens(shared, "smollm2", folder, SMOLVLM_TOKENS, {**special, "extra_special_tokens": names})
    text: dict[str, Any] = {"model_type": "llama", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 49280, "pad_token_id": 2}
    text |= {"bos_token_id": 1, "eos_token_id": ids["<end_of_utterance>"], "tie_word_embeddings": False}
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = SmolVLMConfig(
        text_config=text,
        vision_config={**vision, "image_size": 64, "patch_size": 16},
        scale_factor=2,
        image_token_id=ids["<image>"],
        tie_word_embeddings=False,
    )
    SmolVLMForConditionalGeneration(config).save_pretrained(folder)
    processor: dict[str, Any] = {"image_processor_type": "SmolVLMImageProcessor", "do_image_splitting": True}
    processor |= {"size": {"longest_edge": 256}, "max_image_size": {"longest_edge": 64}, "resample": 1}
    processor |= {"image_mean": HALF, "image_std": HALF, "do_pad": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))


def llava_onevision(shared: Path, folder: Path) -> None:
    """LLaVA-OneVision: Qwen2's tokens up to the end of a turn, then two; a head tied to the embedding, as in 0.5B."""
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None}
    more = {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": False}
    ids = with_tokens(shared, "qwen2_5", folder, ("<image>", "<video>"), {**special, **more}, last=151645)
    text: dict[str, Any] = {"model_type": "qwen2", "hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 152000, "tie_word_embeddings": True}
    text |= {"eos_token_id": 151645, "bos_token_id": 151643}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "vision_use_head": False}
    vision |= {"num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 56, "patch_size": 14}
    grids = [[56 * high, 56 * wide] for high in range(1, 5) for wide in range(1, 5)]
    config = LlavaOnevisionConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        image_grid_pinpoints=grids,
        tie_word_embeddings=True,
    )
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    processor: dict[str, Any] = {"image_processor_type": "LlavaOnevisionImageProcessor", "resample": 3}
    processor |= {"size": {"height": 56, "width": 56}, "image_grid_pinpoints": grids}
    processor |= {"image_mean": HALF, "image_std": HALF}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
