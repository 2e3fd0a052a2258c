"""Tiny checkpoints of the multimodal families in the layout of their releases, each with its real tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from benchmarks.tiled_checkpoints import internvl, llava_onevision, smolvlm

CLIP: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 14,
}
LLAMA: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
YI_TOWER = "vit/clip-vit-H-14-laion2B-s32B-b79K-yi-vl-6B-448"


def tokenizer(shared: Path, name: str, folder: Path, **config: Any) -> None:
    shutil.copy(shared / "assets" / "tokenizers" / name / "tokenizer.json", folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def paligemma(shared: Path, folder: Path, kind: str = "gemma") -> None:
    """PaliGemma (`gemma`) or PaliGemma 2 (`gemma2`), which have the same tokenizer."""
    source = json.loads((shared / "assets/tokenizers/paligemma/tokenizer.json").read_text())
    keys = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    added = {str(t["id"]): {k: t[k] for k in keys} for t in source["added_tokens"]}
    shipped = json.loads((shared / "assets/tokenizers/paligemma/tokenizer_config.json").read_text())
    tokenizer(shared, "paligemma", folder, **{**shipped, "added_tokens_decoder": added})
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_hidden_layers": 2}
    text: dict[str, Any] = {
        **heads,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "hidden_size": 16,
        "intermediate_size": 32,
    }
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            **heads, hidden_size=24, intermediate_size=48, patch_size=14, image_size=56, vision_use_head=False
        ),
        text_config=AutoConfig.for_model(
            kind, vocab_size=257216, pad_token_id=0, bos_token_id=2, eos_token_id=1, **text
        ),
        image_token_index=257152,
        projection_dim=16,
        hidden_size=16,
    )
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 56, "width": 56}).save_pretrained(folder)


def gemma3(shared: Path, folder: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(shared / "assets" / "tokenizers" / "gemma3" / file, folder)
    heads: dict[str, Any] = {"num_attention_heads": 2, "num_hidden_layers": 2}
    text: dict[str, Any] = {"vocab_size": 262208, "hidden_size": 16, "intermediate_size": 32, "head_dim": 8}
    text |= {"num_key_value_heads": 1, "query_pre_attn_scalar": 8, "sliding_window": 16}
    vision = {"model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 48, "image_size": 56}
    ids: dict[str, Any] = {"eos_token_id": [1, 106]}
    config = Gemma3Config(
        text_config={**heads, **text, "layer_types": ["sliding_attention", "full_attention"]},
        vision_config={**heads, **vision, "patch_size": 14, "vision_use_head": False},
        mm_tokens_per_image=4,
        **ids,
    )
    Gemma3ForConditionalGeneration(config).save_pretrained(folder)
    Gemma3ImageProcessorPil(size={"height": 56, "width": 56}, image_seq_length=4).save_pretrained(folder)


LLAMA_TOKENIZER = {
    "tokenizer_class": "LlamaTokenizer",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "pad_token": "<pad>",
    "add_bos_token": True,
    "legacy": False,
    "extra_special_tokens": {"image_token": "<image>"},
}


def llava(shared: Path, folder: Path) -> None:
    tokenizer(shared, "llava15", folder, **LLAMA_TOKENIZER)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=56, **CLIP),
        text_config=LlamaConfig(vocab_size=32064, pad_token_id=32001, **LLAMA),
        image_token_index=32000,
        image_seq_length=16,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    edge = {"height": 56, "width": 56}
    CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=edge).save_pretrained(folder)


QWEN_TOKENS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None, "unk_token": None}
QWEN_IDS: dict[str, Any] = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}
QWEN_TEXT: dict[str, Any] = {
    "vocab_size": 151936,
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
}


def qwen_processor(folder: Path, **config: Any) -> None:
    written = {"image_processor_type": "Qwen2VLImageProcessor", "temporal_patch_size": 2, "merge_size": 2, **config}
    (folder / "preprocessor_config.json").write_text(json.dumps(written))


def flat_qwen(folder: Path, classes: tuple[Any, Any], vision: dict[str, Any]) -> None:
    """Qwen2-VL's and Qwen2.5-VL's config.json, which has the text model's fields at the top."""
    config_class, model_class = classes
    flat = {
        "architectures": [model_class.__name__],
        "model_type": config_class.model_type,
        **QWEN_TEXT,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]},
        "tie_word_embeddings": True,
        **QWEN_IDS,
        "vision_token_id": 151654,
        "vision_config": vision,
    }
    (folder / "config.json").write_text(json.dumps(flat))
    model_class(config_class.from_pretrained(folder)).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(flat))
    qwen_processor(folder, min_pixels=3136, max_pixels=12845056, patch_size=14)


def qwen2_vl(shared: Path, folder: Path) -> None:
    tokenizer(shared, "qwen2_vl", folder, tokenizer_class="Qwen2Tokenizer", add_prefix_space=False, **QWEN_TOKENS)
    vision = {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "in_chans": 3, "hidden_size": 24}
    vision |= {"patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}
    flat_qwen(folder, (Qwen2VLConfig, Qwen2VLForConditionalGeneration), vision)


def qwen2_5_vl(shared: Path, folder: Path) -> None:
    tokenizer(shared, "qwen2_5", folder, tokenizer_class="Qwen2Tokenizer", add_prefix_space=False, **QWEN_TOKENS)
    vision = {"model_type": "qwen2_5_vl", "depth": 2, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2}
    vision |= {"out_hidden_size": 24, "in_chans": 3, "spatial_patch_size": 14, "fullatt_block_indexes": [1]}
    vision |= {"window_size": 56, "patch_size": 14, "spatial_merge_size": 2, "tokens_per_second": 2}
    flat_qwen(folder, (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration), vision)


def qwen3_vl(shared: Path, folder: Path) -> None:
    tokenizer(shared, "qwen3", folder, tokenizer_class="Qwen2Tokenizer", add_prefix_space=False, **QWEN_TOKENS)
    rope = {"rope_scaling": {"mrope_interleaved": True, "mrope_section": [2, 2, 2], "rope_type": "default"}}
    vision: dict[str, Any] = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 16}
    vision |= {"out_hidden_size": 24, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    config = Qwen3VLConfig(
        # A layer more than deepstack has: what it adds to the last one reaches no answer.
        text_config={**QWEN_TEXT, **rope, "head_dim": 12, "num_hidden_layers": 3},
        vision_config=vision,
        tie_word_embeddings=True,
        **QWEN_IDS,
    )
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    size = {"shortest_edge": 65536, "longest_edge": 16777216}
    qwen_processor(folder, size=size, patch_size=16, image_mean=half, image_std=half)


def yi_vl(shared: Path, folder: Path) -> None:
    """Written weight by weight: transformers has no such class to save it with."""
    shipped = json.loads((shared / "assets/tokenizers/yi/tokenizer_config.json").read_text())
    tokenizer(shared, "yi", folder, **shipped)
    tower = folder / YI_TOWER
    vision = CLIPVisionConfig(image_size=56, hidden_act="gelu", **CLIP)
    CLIPVisionModel(vision).save_pretrained(tower)
    # Releases of that time have `vision_model.` before every name, and pickled weights.
    weights = {
        f"vision_model.{k.removeprefix('vision_model.')}": v for k, v in load_file(tower / "model.safetensors").items()
    }
    torch.save(weights, tower / "pytorch_model.bin")
    (tower / "model.safetensors").unlink()
    edge = {"height": 56, "width": 56}
    CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=edge).save_pretrained(tower)
    width, inner, head = 16, 32, 8
    shapes = {"model.embed_tokens": (64000, width), "lm_head": (64000, width), "model.norm": (width,)}
    for i in range(2):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.self_attn.{k}_proj": (width, width) for k in "qo"}
        shapes |= {f"{at}.self_attn.{k}_proj": (head, width) for k in "kv"}
        shapes |= {f"{at}.mlp.{k}_proj": (inner, width) for k in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj": (width, inner)}
        shapes |= {f"{at}.{k}_layernorm": (width,) for k in ("input", "post_attention")}
    shapes |= {"model.mm_projector.0": (width, 24), "model.mm_projector.3": (width, width)}
    shapes |= {"model.mm_projector.1": (width,), "model.mm_projector.4": (width,)}
    noise = torch.Generator().manual_seed(0)
    state = {f"{k}.weight": 0.3 * torch.randn(s, generator=noise) for k, s in shapes.items()}
    state |= {f"model.mm_projector.{i}.bias": 0.3 * torch.randn(width, generator=noise) for i in (0, 1, 3, 4)}
    torch.save(state, folder / "pytorch_model.bin")
    config = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        **LLAMA,
        "num_key_value_heads": 1,
        "vocab_size": 64000,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000000.0,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "image_aspect_ratio": "pad",
        "mm_hidden_size": 24,
        "mm_projector_type": "mlp2x_gelu_Norm",
        "mm_use_im_start_end": False,
        "mm_vision_select_layer": -2,
        "mm_vision_tower": f"./{YI_TOWER}",
        "use_cache": True,
        "use_mm_proj": True,
    }
    (folder / "config.json").write_text(json.dumps(config))


# Config of conf/model -> what writes its checkpoint.
WRITERS: dict[str, Callable[[Path, Path], None]] = {
    "paligemma_3b": paligemma,
    "paligemma2_3b": partial(paligemma, kind="gemma2"),
    "llava15_7b": llava,
    "yi_vl_6b": yi_vl,
    "qwen2_vl_2b": qwen2_vl,
    "qwen2_5_vl_3b": qwen2_5_vl,
    "qwen3_vl_2b": qwen3_vl,
    "gemma3_4b": gemma3,
    "internvl3_1b": partial(internvl, kind="qwen2", rows=151674),
    "internvl3_5_1b": partial(internvl, kind="qwen3", rows=151936),
    "smolvlm2_256m": smolvlm,
    "llava_ov_0_5b": llava_onevision,
}
NAMES = list(WRITERS)


def write(name: str, shared: Path, folder: Path) -> Path:
    """The checkpoint of that config of conf/model, random weights from a fixed seed.

    Args:
        shared: the folder with the assets, where the real tokenizers are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    WRITERS[name](shared, folder)
    return folder
