"""InternVL3 and 3.5 in the Hugging Face format (Zhu et al., 2025): InternViT, pixel shuffle, Qwen2 or Qwen3.

A picture is stretched to a grid of `min_tiles` to `max_tiles` square tiles whose shape is nearest its own; where there
are several, the whole picture follows as one more tile. So a picture has several rows of `pixel_values`, and a tower
sees each by itself. Coordinates are 0..1000 of the whole picture, `<box>[[x1, y1, x2, y2]]</box>`.

The family's own processor needs torchvision (transformers 5.23), so inputs are built from its PIL image processor and
its tokenizer. The processor switches tiling on, not the image processor's own default.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GotOcr2ImageProcessorPil,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedModel,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from ntil.models import chatml, nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention, Family, OwnPrompt, load_model, torch_dtype
from ntil.models.image_processors import COLOURS
from ntil.models.packaged import local
from ntil.models.pretrained import config_of, fits, must_be_given, reading, same_sizes, token_of
from tasks.base import OwnQuestion

TOKENS = (*chatml.TOKENS, "<img>", "</img>", "<IMG_CONTEXT>", "<ref>", "</ref>", "<box>", "</box>")


class InternVL(Family):
    """Family of InternVL3 and InternVL3.5 models in the Hugging Face format.

    Args:
        checkpoint: hub name or folder, or null for a model from scratch.
        image_size, patch_size: of the vision tower from scratch, in pixels; `image_size` is the side of a tile.
        min_tiles, max_tiles: how many tiles a picture may be cut into, without the one of the whole picture.
        vision, language: `InternVLVisionConfig` fields, and `model_type` and config fields of the language model.
        system: the system message, or empty for none.
        coords: how boxes are written.
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.

    Raises:
        ValueError: bounds of tiles that leave none, or a tower whose patches don't fill a tile in pairs.
    """

    parts: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision": "model.vision_tower",
        "projector": "model.multi_modal_projector",
        "language": "model.language_model",
    }
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("q_proj", "k_proj", "v_proj", "projection_layer", "fc1", "fc2"),
    }
    patches_per_token: int = 4
    # OpenGVLab/InternVL, internvl_chat/eval/refcoco/evaluate_grounding.py.
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {
        "grounding": OwnPrompt(
            OwnQuestion(
                "Please provide the bounding box coordinate of the region this sentence describes: "
                "<ref>{expression}</ref>"
            )
        )
    }

    answer_start: ClassVar[str] = ""
    answer_end: ClassVar[str | None] = chatml.END

    def __init__(
        self,
        checkpoint: str | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        min_tiles: int = 1,
        max_tiles: int = 12,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = "",
        coords: str = "tags",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        if not 1 <= min_tiles <= max_tiles:
            raise ValueError(f"1 <= model.min_tiles {min_tiles} <= model.max_tiles {max_tiles} must hold")
        checkpoint = local(checkpoint)
        self.checkpoint, self.dtype, self.attention = checkpoint, torch_dtype(dtype), attn_implementation
        self.allow_pickle = allow_pickle
        self.system, self.coords = system, coords
        sizes = {"image_size": image_size, "patch_size": patch_size}
        if checkpoint is None:
            must_be_given(**sizes, vision=vision, language=language)
            assert image_size
            assert patch_size
            assert vision
            assert language
            self.tokenizer = nano_tokenizer.load(TOKENS, eos_token=chatml.END)
            self.config = self._nano_config(image_size, patch_size, vision, language)
        else:
            self.config = config_of(InternVLConfig, checkpoint)
            tower: Any = self.config.vision_config
            square = SimpleNamespace(image_size=tower.image_size[0], patch_size=tower.patch_size[0])
            same_sizes(checkpoint, square, sizes)
            same_sizes(checkpoint, tower, vision, "vision.")
            same_sizes(checkpoint, self.config.text_config, language, "language.")
            with reading(checkpoint):
                self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
            fits(self.tokenizer, self.config, checkpoint)
        self._prepare_pictures(
            checkpoint, {"crop_to_patches": True, "min_patches": min_tiles, "max_patches": max_tiles}
        )
        self.image_token = token_of(self.tokenizer, self.config.image_token_id, checkpoint)

    def _prepare_pictures(self, checkpoint: str | None, tiles: dict[str, Any]) -> None:
        tower: Any = self.config.vision_config
        side, patch = tower.image_size[0], tower.patch_size[0]
        if side % patch or side // patch * self.config.downsample_ratio % 1:
            raise ValueError(f"model.image_size {side} must be an even number of patches of {patch} pixels")
        self.tile, self.tile_tokens = side, int(side // patch * self.config.downsample_ratio) ** 2
        if checkpoint is None:
            size = {"height": side, "width": side}
            self.image_processor = GotOcr2ImageProcessorPil(size=size, **COLOURS, **tiles)
            return
        with reading(checkpoint):
            self.image_processor = GotOcr2ImageProcessorPil.from_pretrained(checkpoint, **tiles)

    def _nano_config(
        self, image_size: int, patch_size: int, vision: dict[str, Any], language: dict[str, Any]
    ) -> InternVLConfig:
        ids = nano_tokenizer.special_ids(self.tokenizer)
        text = {"vocab_size": len(self.tokenizer), "max_position_embeddings": 1024, **ids, **language}
        return InternVLConfig(
            text_config=text,
            vision_config={"image_size": image_size, "patch_size": patch_size, **vision},
            image_token_id=self.tokenizer.get_vocab()["<IMG_CONTEXT>"],
            image_seq_length=(image_size // patch_size // 2) ** 2,
            tie_word_embeddings=True,
        )

    def template(self, prompt: str, has_image: bool) -> str:
        picture = "<img><image></img>\n" if has_image else ""
        return chatml.prompt(f"{picture}{prompt}", self.system)

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        columns, rows = self._grid(size)
        return columns * self.tile, rows * self.tile

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        processor, tile = self.image_processor, (self.tile, self.tile)
        return get_optimal_tiled_canvas((size[1], size[0]), tile, processor.min_patches, processor.max_patches)

    def picture_tokens(self, size: tuple[int, int]) -> int:
        columns, rows = self._grid(size)
        tiles = columns * rows
        return self.tile_tokens * (tiles + (tiles > 1))

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        inputs = self.image_processor(images=image.convert("RGB"), return_tensors="pt")
        tiles = inputs["pixel_values"].to(self.dtype)
        return {"pixel_values": tiles}, str(self.image_token) * (self.tile_tokens * len(tiles))

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        return load_model(self, InternVLForConditionalGeneration, checkpoint)
