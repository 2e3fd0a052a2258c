"""Gemma 3 with a vision tower (Gemma Team, 2025): SigLIP, pooled features, Gemma 3; `Gemma3ForConditionalGeneration`.

The tokens of a picture attend to each other both ways, everything else looks back only; `token_type_ids` say which are
which (1 and 0). Pictures are stretched to a square (the release's pan-and-scan is off), so coordinates are fractions of
the picture itself. Google states no format of boxes; digits, 0..999 across the picture, are this project's choice. The
text models (270M, 1B) are `CausalLM`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    PreTrainedModel,
)

from ntil.models import nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention, Family, load_model, torch_dtype
from ntil.models.packaged import local
from ntil.models.pretrained import config_of, fits, must_be_given, reading, same_sizes_of_parts, token_of

TOKENS = ("<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>")
END = "<end_of_turn>"


class Gemma3(Family):
    """Family of Gemma 3 models with a vision tower.

    Args:
        checkpoint: hub name or folder, or null for a model from scratch.
        image_size, patch_size: of the vision tower from scratch, in pixels.
        mm_tokens_per_image: image tokens of a picture of the model from scratch, a square number.
        vision, language: `SiglipVisionConfig` and `Gemma3TextConfig` fields of the model from scratch.
        system: a text before the question, in the same turn, as the chat template has it.
        coords: how boxes are written.
        dtype: of the weights. attn_implementation: `sdpa` or `eager` (flash attention can't look both ways in a block).
        allow_pickle: read .bin files of a checkpoint that has no safetensors.
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
    # A picture's tokens look at the later ones of the same picture: a plain causal mask would be wrong.
    causal: ClassVar[bool] = False
    # Of the releases; the tower's 4,096 patches are pooled to 256 tokens.
    patches_per_token: int = 16

    answer_start: ClassVar[str] = ""

    def __init__(
        self,
        checkpoint: str | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        mm_tokens_per_image: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = "",
        coords: str = "int1000",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        checkpoint = local(checkpoint)
        self.checkpoint, self.dtype, self.attention = checkpoint, torch_dtype(dtype), attn_implementation
        self.allow_pickle, self.system, self.coords = allow_pickle, system, coords
        sizes = {"image_size": image_size, "patch_size": patch_size}
        if checkpoint is None:
            must_be_given(**sizes, mm_tokens_per_image=mm_tokens_per_image, vision=vision, language=language)
            assert image_size
            assert vision
            assert language
            self.tokenizer = nano_tokenizer.load(TOKENS, eos_token=END)
            self.config = self._nano_config(sizes, mm_tokens_per_image, vision, language)
            self.image_processor = Gemma3ImageProcessorPil(size={"height": image_size, "width": image_size})
        else:
            self.config = config_of(Gemma3Config, checkpoint)
            same_sizes_of_parts(checkpoint, self.config, sizes, vision, language)
            with reading(checkpoint):
                tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
                self.image_processor = Gemma3ImageProcessorPil.from_pretrained(checkpoint)
            tokenizer.add_bos_token = False  # `template` writes it
            tokenizer.eos_token = END  # <eos> in some releases, which ends no answer
            self.tokenizer = tokenizer
            fits(tokenizer, self.config, checkpoint)
        tower: Any = self.config.vision_config
        self.image_tokens = int(self.config.mm_tokens_per_image)
        self.patches_per_token = (tower.image_size // tower.patch_size) ** 2 // self.image_tokens
        self.image_token = token_of(self.tokenizer, self.config.image_token_id, checkpoint)

    def _nano_config(
        self, sizes: dict[str, Any], tokens: int | None, vision: dict[str, Any], language: dict[str, Any]
    ) -> Gemma3Config:
        side, patch = sizes["image_size"], sizes["patch_size"]
        rows = round((tokens or 0) ** 0.5)
        if side % patch or rows**2 != tokens or (side // patch) % rows:
            raise ValueError(
                f"model.image_size {side} must be a multiple of model.patch_size {patch}, and their ratio one of the "
                f"square root of model.mm_tokens_per_image {tokens}"
            )
        vocab = self.tokenizer.get_vocab()
        ids = nano_tokenizer.special_ids(self.tokenizer)
        return Gemma3Config(
            text_config={"vocab_size": len(vocab), "max_position_embeddings": 1024, **ids, **language},
            vision_config={"model_type": "siglip_vision_model", "vision_use_head": False, **sizes, **vision},
            mm_tokens_per_image=tokens,
            boi_token_index=vocab["<start_of_image>"],
            eoi_token_index=vocab["<end_of_image>"],
            image_token_index=vocab[nano_tokenizer.IMAGE],
            **ids,
        )

    def template(self, prompt: str, has_image: bool) -> str:
        system = f"{self.system}\n\n" if self.system else ""
        picture = "\n\n<start_of_image><image><end_of_image>\n\n" if has_image else ""
        turn = f"<start_of_turn>user\n{system}{picture}{prompt.strip()}{END}\n"
        return f"{self.tokenizer.bos_token}{turn}<start_of_turn>model\n"

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        inputs = self.image_processor(images=image.convert("RGB"), return_tensors="pt", do_pan_and_scan=False)
        return {"pixel_values": inputs["pixel_values"].to(self.dtype)}, str(self.image_token) * self.image_tokens

    def picture_tokens(self, size: tuple[int, int]) -> int:
        return self.image_tokens

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        return self.image_processor.size["width"], self.image_processor.size["height"]

    def extra_inputs(self, input_ids: Tensor, attention_mask: Tensor, prompt_lengths: Tensor) -> dict[str, Tensor]:
        return {"token_type_ids": (input_ids == self.config.image_token_id).long()}

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        return load_model(self, Gemma3ForConditionalGeneration, checkpoint)
