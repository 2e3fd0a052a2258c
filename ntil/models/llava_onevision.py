"""LLaVA-OneVision (Li et al., 2024): SigLIP, two-layer projector, Qwen2; the real class of transformers.

A picture is seen twice: stretched to one square, and scaled with its shape kept into the grid of squares that wastes
least, where it is centred on black. Features of the padding are cut off after the projector, a learnt newline ends each
row of the rest, and grids of more than 9 squares are scaled down there. So a picture has several rows of
`pixel_values`, and `image_sizes` [pictures, 2] (height, width) tell how many. Boxes are LLaVA's fractions; whether of
the picture or of a padded square is disputed, here they are of the picture.

The family's own processor needs torchvision (transformers 5.23), so inputs are built from its PIL image processor and
its tokenizer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessorPil,
    PreTrainedModel,
)
from transformers.image_processing_utils import get_patch_output_size, select_best_resolution
from transformers.image_utils import ChannelDimension
from transformers.models.llava_onevision.modeling_llava_onevision import unpad_image

from ntil.models import chatml, nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention, Family, load_model, torch_dtype
from ntil.models.packaged import local
from ntil.models.pretrained import config_of, fits, must_be_given, reading, same_sizes_of_parts, token_of

TOKENS = (*chatml.TOKENS, "<video>")
HALF = (0.5, 0.5, 0.5)  # mean and deviation of SigLIP's colours


class LlavaOnevision(Family):
    """Family of LLaVA-OneVision models.

    Args:
        checkpoint: hub name or folder, or null for a model from scratch.
        image_size, patch_size: of the vision tower from scratch, in pixels; `image_size` is the side of a square.
        max_side: squares across and down the largest grid; null: as the checkpoint says, 6 in the releases.
        vision, language: `SiglipVisionConfig` and `Qwen2Config` fields of the model from scratch.
        system: the system message, or empty for none.
        coords: how boxes are written.
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.

    Raises:
        ValueError: an `image_size` that isn't of whole patches, or a `max_side` below 1.
    """

    # The newline belongs to no module of its own; under adapters it stays.
    parts: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision": "model.vision_tower",
        "projector": "model.multi_modal_projector",
        "language": ("model.language_model", "model.image_newline"),
    }
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    }

    answer_start: ClassVar[str] = ""
    answer_end: ClassVar[str | None] = chatml.END

    def __init__(
        self,
        checkpoint: str | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        max_side: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = "",
        coords: str = "unit",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        checkpoint = local(checkpoint)
        self.checkpoint, self.dtype, self.attention = checkpoint, torch_dtype(dtype), attn_implementation
        self.allow_pickle, self.system, self.coords = allow_pickle, system, coords
        sizes = {"image_size": image_size, "patch_size": patch_size}
        if checkpoint is None:
            must_be_given(**sizes, max_side=max_side, vision=vision, language=language)
            assert image_size
            assert patch_size
            assert max_side
            assert vision
            assert language
            if image_size % patch_size:
                raise ValueError(f"model.image_size {image_size} is no multiple of model.patch_size {patch_size}")
            self.tokenizer = nano_tokenizer.load(TOKENS, eos_token=chatml.END)
            self.config = self._nano_config(image_size, patch_size, max_side, vision, language)
            self._limit_grids(max_side)
            square = {"height": image_size, "width": image_size}
            colours: dict[str, Any] = {"image_mean": HALF, "image_std": HALF}
            self.image_processor = LlavaOnevisionImageProcessorPil(size=square, **colours, **self.grids)
        else:
            self.config = config_of(LlavaOnevisionConfig, checkpoint)
            same_sizes_of_parts(checkpoint, self.config, sizes, vision, language)
            self._limit_grids(max_side)
            with reading(checkpoint):
                self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
                self.image_processor = LlavaOnevisionImageProcessorPil.from_pretrained(checkpoint, **self.grids)
            fits(self.tokenizer, self.config, checkpoint)
        tower: Any = self.config.vision_config
        self.tile, self.side = int(tower.image_size), int(tower.image_size // tower.patch_size)
        self.image_token = token_of(self.tokenizer, self.config.image_token_id, checkpoint)

    def _limit_grids(self, max_side: int | None) -> None:
        """Set the grids of the config, by which a model reads features, and keep them for its processor."""
        tower: Any = self.config.vision_config
        grids = [list(grid) for grid in self.config.image_grid_pinpoints]
        if max_side is not None:
            grids = [grid for grid in grids if max(grid) <= max_side * tower.image_size]
        if not grids:
            raise ValueError(f"model.max_side {max_side} leaves no grid of squares; it must be at least 1")
        self.config.image_grid_pinpoints = grids
        self.grids: dict[str, Any] = {"image_grid_pinpoints": grids}

    def _nano_config(
        self, image_size: int, patch_size: int, max_side: int, vision: dict[str, Any], language: dict[str, Any]
    ) -> LlavaOnevisionConfig:
        vocab = self.tokenizer.get_vocab()
        ids = nano_tokenizer.special_ids(self.tokenizer)
        tower = {"model_type": "siglip_vision_model", "image_size": image_size, "patch_size": patch_size}
        sides = [image_size * n for n in range(1, max_side + 1)]
        return LlavaOnevisionConfig(
            text_config={"model_type": "qwen2", "vocab_size": len(vocab), "max_position_embeddings": 1024}
            | {**ids, "tie_word_embeddings": True, **language},
            vision_config={**tower, "vision_use_head": False, **vision},
            image_token_index=vocab[nano_tokenizer.IMAGE],
            video_token_index=vocab["<video>"],
            image_grid_pinpoints=[[high, wide] for high in sides for wide in sides],
            tie_word_embeddings=True,
        )

    def template(self, prompt: str, has_image: bool) -> str:
        picture = "<image>\n" if has_image else ""
        return chatml.prompt(f"{picture}{prompt}", self.system)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Height and width in pixels of the grid for a picture of (width, height)."""
        high, wide = select_best_resolution((size[1], size[0]), self.config.image_grid_pinpoints)
        return int(high), int(wide)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        shape = np.broadcast_to(np.uint8(0), (3, size[1], size[0]))
        high, wide = get_patch_output_size(shape, self._grid(size), ChannelDimension.FIRST)
        return int(wide), int(high)

    def picture_tokens(self, size: tuple[int, int]) -> int:
        high, wide = (pixels // self.tile * self.side for pixels in self._grid(size))
        _, rows, columns = unpad_image(torch.empty(1, high, wide, device="meta"), (size[1], size[0])).shape
        most = int(self.config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(rows * columns / (most * self.side**2))
        if ratio > 1.1:  # as in the model's `pack_image_features`
            rows, columns = int(rows // ratio), int(columns // ratio)
        return self.side**2 + rows * (columns + 1)

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        inputs = self.image_processor(images=[image.convert("RGB")], return_tensors="pt")
        features = {"pixel_values": inputs["pixel_values"][0].to(self.dtype), "image_sizes": inputs["image_sizes"]}
        return features, str(self.image_token) * self.picture_tokens(image.size)

    def split_images(self, inputs: dict[str, Tensor]) -> list[dict[str, Tensor]]:
        sizes = inputs["image_sizes"]
        grids = [self._grid((wide, high)) for high, wide in sizes.tolist()]
        tiles = inputs["pixel_values"].split([1 + high * wide // self.tile**2 for high, wide in grids])
        return [{"pixel_values": p, "image_sizes": s[None]} for p, s in zip(tiles, sizes, strict=True)]

    def project(
        self,
        model: Any,
        projectors: Sequence[Callable[[Tensor], Tensor]],
        features: Sequence[Tensor],
        images: Sequence[dict[str, Tensor]],
    ) -> dict[str, Any]:
        projected = super().project(model, projectors, features, images)["pooler_output"]
        inner, sizes = model.base_model, torch.cat([image["image_sizes"] for image in images])
        packed, _ = inner.pack_image_features(
            projected, sizes, inner.image_newline, vision_aspect_ratio=self.config.vision_aspect_ratio
        )
        return {"pooler_output": packed}

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        model = load_model(self, LlavaOnevisionForConditionalGeneration, checkpoint)
        model.config.image_grid_pinpoints = self.config.image_grid_pinpoints
        return model
