"""Qwen2-VL (Wang et al., 2024): a tower for pictures of any shape, Qwen2 with 3-D positions; the real classes.

A picture keeps its shape: it is scaled to whole 28-pixel cells with `min_pixels` to `max_pixels` pixels in all, one
token a cell. Coordinates are 0..1000 across the picture, `<|box_start|>(x1,y1),(x2,y2)<|box_end|>`.

The family's own processor needs torchvision (transformers 5.23), so inputs are built from its PIL image processor and
its tokenizer: `<|image_pad|>` once per cell, and `mm_token_type_ids` 1 on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoModel,
    AutoTokenizer,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from ntil.compat import without_weights
from ntil.models import nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention, Encoded, Family, OwnPrompt, load_model, torch_dtype
from ntil.models.packaged import local
from ntil.models.pretrained import config_of, fits, must_be_given, reading, same_sizes_of_parts, token_of
from tasks.base import OwnQuestion

IMAGE = "<|image_pad|>"
LARGEST_RATIO = 200  # of a picture's sides, a bound of the family's own preprocessing
# Special tokens of the family's tokenizer, in the order of their ids.
TOKENS = ("im_start", "im_end", "object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end")
VISION_TOKENS = ("vision_start", "vision_end", "image_pad", "video_pad")


class Qwen2VL(Family):
    """Family of Qwen2-VL models.

    Args:
        checkpoint: hub name or folder, or null for a model from scratch.
        min_pixels, max_pixels: bounds of a picture's size after scaling; null: as the checkpoint says.
        patch_size: of the tower from scratch; two by two patches make one token.
        vision, language: `Qwen2VLVisionConfig` and `Qwen2VLTextConfig` fields of the model from scratch.
        system: the system message, or empty for none.
        coords: how boxes are written.
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.
    """

    config_class: ClassVar[Any] = Qwen2VLConfig
    model_class: ClassVar[Any] = Qwen2VLForConditionalGeneration
    title: ClassVar[str] = "Qwen2-VL"
    # Field of the tower's config that holds the width of the language model.
    width_after_tower: ClassVar[str] = "hidden_size"
    # Of the image processor of a model from scratch, where it isn't the class's default.
    processor_options: ClassVar[Mapping[str, Any]] = {}
    patches_per_token: int = 4
    # The projector is the tower's last layer, so the longer prefix is its own.
    parts: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision": "model.visual",
        "projector": "model.visual.merger",
        "language": "model.language_model",
    }
    # The referring expression of arXiv 2409.12191, section 2.1, as what the user says.
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {
        "grounding": OwnPrompt(OwnQuestion("<|object_ref_start|>{expression}<|object_ref_end|>"))
    }
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("qkv", "proj", "fc1", "fc2"),
    }

    answer_start: ClassVar[str] = ""

    def __init__(
        self,
        checkpoint: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        patch_size: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = "You are a helpful assistant.",
        coords: str = "qwen",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        checkpoint = local(checkpoint)
        self.checkpoint, self.dtype, self.attention = checkpoint, torch_dtype(dtype), attn_implementation
        self.allow_pickle = allow_pickle
        self.system, self.coords = system, coords
        pixels: dict[str, Any] = {
            k: v for k, v in (("min_pixels", min_pixels), ("max_pixels", max_pixels)) if v is not None
        }
        if checkpoint is None:
            must_be_given(patch_size=patch_size, vision=vision, language=language)
            assert patch_size
            assert vision
            assert language
            tokens = [f"<|{name}|>" for name in (*TOKENS, *VISION_TOKENS)]
            self.tokenizer = nano_tokenizer.load(tokens, eos_token="<|im_end|>")
            self.config = self._nano_config(patch_size, vision, language)
            self.image_processor = Qwen2VLImageProcessorPil(patch_size=patch_size, **self.processor_options, **pixels)
        else:
            self.config = config_of(self.config_class, checkpoint)
            same_sizes_of_parts(checkpoint, self.config, {"patch_size": patch_size}, vision, language)
            with reading(checkpoint):
                self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
                self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(checkpoint, **pixels)
            fits(self.tokenizer, self.config, checkpoint)
        self._check_pixels()
        self.image_token = token_of(self.tokenizer, self.config.image_token_id, checkpoint)

    def _check_pixels(self) -> None:
        low, high = self.image_processor.size["shortest_edge"], self.image_processor.size["longest_edge"]
        cell = (self.image_processor.patch_size * self.image_processor.merge_size) ** 2
        if not low <= high or high < cell:
            raise ValueError(f"model.min_pixels {low} <= model.max_pixels {high} must hold, and one token is {cell}")

    def _nano_config(self, patch_size: int, vision: dict[str, Any], language: dict[str, Any]) -> Any:
        vocab = self.tokenizer.get_vocab()
        ids = nano_tokenizer.special_ids(self.tokenizer)
        text = {"vocab_size": len(vocab), "max_position_embeddings": 1024, **ids, **language}
        tower = {"patch_size": patch_size, self.width_after_tower: language["hidden_size"], **vision}
        return self.config_class(
            text_config=text,
            vision_config=tower,
            tie_word_embeddings=True,
            image_token_id=vocab[IMAGE],
            video_token_id=vocab["<|video_pad|>"],
            vision_start_token_id=vocab["<|vision_start|>"],
            vision_end_token_id=vocab["<|vision_end|>"],
        )

    def template(self, prompt: str, has_image: bool) -> str:
        picture = "<|vision_start|><image><|vision_end|>" if has_image else ""
        return f"{self._turn('system', self.system)}{self._turn('user', picture + prompt)}<|im_start|>assistant\n"

    def _turn(self, role: str, text: str) -> str:
        return f"<|im_start|>{role}\n{text}<|im_end|>\n" if text else ""

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        if max(size) > LARGEST_RATIO * min(size):
            raise ValueError(
                f"{self.title} takes pictures whose sides differ up to {LARGEST_RATIO} times, and this one is "
                f"{size[0]} x {size[1]}; crop it, or leave the row out"
            )
        bounds = self.image_processor.size
        high, wide = smart_resize(size[1], size[0], self._cell, bounds["shortest_edge"], bounds["longest_edge"])
        return wide, high

    @property
    def _cell(self) -> int:
        """Side in pixels of the square of a picture that becomes one token."""
        return int(self.image_processor.patch_size * self.image_processor.merge_size)

    def picture_tokens(self, size: tuple[int, int]) -> int:
        wide, high = self.resized(size)
        return high // self._cell * (wide // self._cell)

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        self.picture_tokens(image.size)
        inputs = self.image_processor(images=image.convert("RGB"), return_tensors="pt")
        grid = inputs["image_grid_thw"]
        tokens = int(grid.prod()) // self.image_processor.merge_size**2
        return {"pixel_values": inputs["pixel_values"].to(self.dtype), "image_grid_thw": grid}, IMAGE * tokens

    def extra_inputs(self, input_ids: Tensor, attention_mask: Tensor, prompt_lengths: Tensor) -> dict[str, Tensor]:
        return {"mm_token_type_ids": (input_ids == self.config.image_token_id).int()}

    def position_ids(self, encoded: Encoded) -> Tensor:
        ids = torch.tensor([encoded.prompt_ids + encoded.answer_ids])
        kinds = (ids == self.config.image_token_id).int()
        model = without_weights(AutoModel._model_mapping[type(self.config)], self.config)
        return model.get_rope_index(ids, kinds, encoded.features.get("image_grid_thw"))[0][:, 0]

    def split_images(self, inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        grids: Tensor = inputs["image_grid_thw"]
        patches = inputs["pixel_values"].split(grids.prod(-1).tolist())
        return [{"pixel_values": p, "image_grid_thw": g[None]} for p, g in zip(patches, grids, strict=True)]

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        return load_model(self, self.model_class, checkpoint)
