"""Tiny checkpoints of the families that cut pictures into tiles, in the layout of their releases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import InternVLConfig, InternVLForConditionalGeneration

INTERNVL_TOKENS = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")


def with_tokens(shared: Path, name: str, folder: Path, tokens: tuple[str, ...], **config: Any) -> dict[str, int]:
    """Write a tokenizer with further special tokens after its last id; all added tokens by their text."""
    source = json.loads((shared / "assets" / "tokenizers" / name / "tokenizer.json").read_text())
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
    ids = with_tokens(shared, base, folder, INTERNVL_TOKENS, **special, **more)
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
