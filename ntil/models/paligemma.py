"""PaliGemma (Beyer et al., 2024), PaliGemma 2 (Steiner et al., 2024): SigLIP tower, linear projector, Gemma or Gemma 2.

The prompt is a prefix with bidirectional attention, the answer a causal suffix; `token_type_ids` tell them apart (0 and
1). Pictures are stretched to a square, so coordinates are fractions of the picture itself; boxes are written with the
model's own 1,024 location tokens, `<loc0012>`, y before x. `coords: int1000` writes them with digits instead. Both are
the class `PaliGemmaForConditionalGeneration`; which language model it is, the config says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PreTrainedModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from ntil.models import nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention, Family, OwnPrompt, load_model, torch_dtype
from ntil.models.packaged import local
from ntil.models.pretrained import config_of, fits, must_be_given, reading, same_sizes_of_parts, token_of
from ntil.numbers.vocab import NumberVocab
from tasks.base import OwnQuestion

LOCATIONS = [f"<loc{i:04d}>" for i in range(1024)]
SEGMENTS = [f"<seg{i:03d}>" for i in range(128)]


class PaliGemma(Family):
    """Family of PaliGemma models.

    Args:
        checkpoint: hub name or folder, or null for a model from scratch.
        image_size, patch_size: of the vision tower from scratch, in pixels.
        vision, language: `SiglipVisionConfig` and `GemmaConfig` fields of the model from scratch; `Gemma2Config`'s with
            `model_type: gemma2`.
        prefix: the prompt's frame, with `{prompt}`. Pre-training has `answer en {prompt}` for questions and
            `detect {prompt}` for boxes of a thing named in a few words.
        coords: how boxes are written.
        dtype: of the weights. attn_implementation: `sdpa` or `eager` (flash attention has no bidirectional prefix).
            Gemma 2 caps its attention scores, which `sdpa` can't: there its language model is `eager`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.

    Raises:
        ValueError: a prefix without `{prompt}`.
    """

    parts: ClassVar[dict[str, str]] = {
        "vision": "model.vision_tower",
        "projector": "model.multi_modal_projector",
        "language": "model.language_model",
    }
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    }

    any_size: ClassVar[bool] = True
    causal: ClassVar[bool] = False
    # As in pre-training (ai.google.dev/gemma/docs/paligemma, task syntax), which is what the checkpoint knows. In
    # big_vision's own transfer to RefCOCO the prompt is the bare sentence (pp/proj/paligemma/segmentation.py).
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {
        "grounding": OwnPrompt(OwnQuestion("detect {expression}"), {"prefix": "{prompt}"}),
        "detection": OwnPrompt(OwnQuestion("detect {names}", " ; "), {"prefix": "{prompt}"}),
    }

    answer_start: ClassVar[str] = ""

    def __init__(
        self,
        checkpoint: str | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        prefix: str = "answer en {prompt}",
        coords: str = "loc",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        if "{prompt}" not in prefix:
            raise ValueError(f"model.prefix must hold {{prompt}}, got {prefix!r}")
        checkpoint = local(checkpoint)
        self.checkpoint, self.dtype, self.allow_pickle = checkpoint, torch_dtype(dtype), allow_pickle
        self.prefix, self.coords = prefix, coords
        if checkpoint is None:
            must_be_given(image_size=image_size, patch_size=patch_size, vision=vision, language=language)
            assert image_size
            assert patch_size
            assert vision
            assert language
            self.tokenizer = nano_tokenizer.load(LOCATIONS)
            self.config = self._nano_config(image_size, patch_size, vision, language)
            self.image_processor = SiglipImageProcessorPil(size={"height": image_size, "width": image_size})
        else:
            self.config = config_of(PaliGemmaConfig, checkpoint)
            sizes = {"image_size": image_size, "patch_size": patch_size}
            same_sizes_of_parts(checkpoint, self.config, sizes, vision, language)
            with reading(checkpoint):
                tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
                self.image_processor = SiglipImageProcessorPil.from_pretrained(checkpoint)
            # As in PaliGemma's own processor: `template` writes <bos>, and the tokens below are added (a nano model has
            # no rows for segments).
            tokenizer.add_bos_token = False
            tokenizer.add_tokens([*LOCATIONS])
            if len({*tokenizer.get_vocab(), *SEGMENTS}) <= self.config.get_text_config().vocab_size:
                tokenizer.add_tokens([*SEGMENTS])
            self.tokenizer = tokenizer
            fits(tokenizer, self.config, checkpoint)
        self.attention = attn_implementation
        if attn_implementation == "sdpa" and self.config.text_config.model_type == "gemma2":
            self.attention = {"": "sdpa", "vision_config": "sdpa", "text_config": "eager"}
        tower: Any = self.config.vision_config
        self.image_tokens = (tower.image_size // tower.patch_size) ** 2
        self.image_token = token_of(self.tokenizer, self.config.image_token_id, checkpoint)

    def _nano_config(
        self, image_size: int, patch_size: int, vision: dict[str, Any], language: dict[str, Any]
    ) -> PaliGemmaConfig:
        if image_size % patch_size:
            raise ValueError(f"model.image_size {image_size} is no multiple of model.patch_size {patch_size}")
        ids = nano_tokenizer.special_ids(self.tokenizer)
        sizes = {"model_type": "gemma", "vocab_size": len(self.tokenizer), "max_position_embeddings": 1024}
        text = AutoConfig.for_model(**{**sizes, **ids, **language})
        return PaliGemmaConfig(
            vision_config=SiglipVisionConfig(
                image_size=image_size, patch_size=patch_size, vision_use_head=False, **vision
            ),
            text_config=text,
            image_token_index=self.tokenizer.get_vocab()[nano_tokenizer.IMAGE],
            vocab_size=len(self.tokenizer),
            projection_dim=text.hidden_size,
            hidden_size=text.hidden_size,
            **ids,
        )

    def template(self, prompt: str, has_image: bool) -> str:
        start = f"<image>{self.tokenizer.bos_token}" if has_image else str(self.tokenizer.bos_token)
        return f"{start}{self.prefix.replace('{prompt}', prompt)}\n"

    def number_vocab(self, coordinates: bool) -> NumberVocab:
        if coordinates and self.coords == "loc":
            return NumberVocab.from_loc(self.tokenizer)
        return super().number_vocab(coordinates)

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        inputs = self.image_processor(images=image.convert("RGB"), return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"].to(self.dtype)}, str(self.image_token) * self.image_tokens

    def picture_tokens(self, size: tuple[int, int]) -> int:
        return self.image_tokens

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.image_processor.size["width"], self.image_processor.size["height"]

    def extra_inputs(self, input_ids: Tensor, attention_mask: Tensor, prompt_lengths: Tensor) -> dict[str, Tensor]:
        # Padding may count as either: the attention mask hides it from every other token.
        return {"token_type_ids": (torch.arange(input_ids.shape[1]) >= prompt_lengths[:, None]).long()}

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        return load_model(self, PaliGemmaForConditionalGeneration, checkpoint)
