"""LLaVA-1.5 (Liu et al., 2023): CLIP tower, two-layer projector, Llama; the real `LlavaForConditionalGeneration`.

With `checkpoint` (a hub name or folder such as llava-hf/llava-1.5-7b-hf) everything comes from there; without, `vision`
and `language` describe a nano model from scratch with the tokenizer of nano_tokenizer.py. Pictures are padded to a
square with the mean colour, as in LLaVA-1.5's own training (the Hugging Face processor crops the centre instead).

The square of a picture of 30000 x 300 has a hundred times its pixels. Where it is that much larger, the long side is
scaled before the short one is padded: the tower sees the same picture, and the memory is the picture's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
)

from ntil.models import nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention, Family, OwnPrompt, load_model, torch_dtype
from ntil.models.image_processors import square_processor
from ntil.models.packaged import local
from ntil.models.pretrained import config_of, fits, must_be_given, reading, same_sizes_of_parts, token_of
from tasks.base import OwnQuestion

# A picture is narrow where its square has more pixels than this, and its sides this ratio or more.
LARGE_SQUARE, NARROW = 1 << 24, 3
# Name -> text before the first turn. vicuna_v1: conv_vicuna_v1 of haotian-liu/LLaVA, llava/conversation.py, which
# `--version v1` of the training scripts takes.
SYSTEMS = {
    "vicuna_v1": (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )
}


class Llava(Family):
    """Family of LLaVA-1.5 models.

    Args:
        checkpoint: hub name or folder, or null for a model from scratch.
        image_size, patch_size: of the vision tower from scratch, in pixels.
        vision, language: `CLIPVisionConfig` and `LlamaConfig` fields of the model from scratch.
        system: the text before the first turn; null for none, as in the Hugging Face template; `vicuna_v1` for the one
            that LLaVA-1.5 was trained with (`SYSTEMS`).
        coords: how boxes are written; LLaVA-1.5 has learnt fractions of the padded square (two decimals, here three).
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
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
    # The rows of RefCOCO and Visual Genome in LLaVA-1.5's training data, llava_v1_5_mix665k.json.
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {
        "grounding": OwnPrompt(
            OwnQuestion(
                "Please provide the bounding box coordinate of the region this sentence describes: {expression}"
            )
        )
    }
    model_class: ClassVar[Any] = LlavaForConditionalGeneration
    config_class: ClassVar[Any] = LlavaConfig
    nano_tokens: ClassVar[Sequence[str]] = ()
    nano_special: ClassVar[Mapping[str, str]] = {}  # of the nano tokenizer, where they aren't its usual ones
    colours: ClassVar[Mapping[str, Any]] = {}  # mean and deviation from scratch, where they aren't CLIP's

    def __init__(
        self,
        checkpoint: str | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str | None = None,
        coords: str = "unit",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        self.coords, self.system = coords, SYSTEMS.get(system or "", system or "")
        checkpoint = local(checkpoint)
        self.checkpoint, self.dtype, self.attention = checkpoint, torch_dtype(dtype), attn_implementation
        self.allow_pickle = allow_pickle
        sizes = {"image_size": image_size, "patch_size": patch_size}
        if checkpoint is None:
            must_be_given(**sizes, vision=vision, language=language)
            assert image_size
            assert patch_size
            assert vision
            assert language
            self._from_scratch(image_size, patch_size, vision, language)
        else:
            self._from_checkpoint(checkpoint)
            same_sizes_of_parts(checkpoint, self.config, sizes, vision, language)
        tower: Any = self.config.vision_config
        self.image_tokens = (tower.image_size // tower.patch_size) ** 2
        self.image_token = token_of(self.tokenizer, self.config.image_token_id, checkpoint)
        self._fill = tuple(int(255 * mean) for mean in self.image_processor.image_mean)

    def _from_checkpoint(self, checkpoint: str) -> None:
        self.config = config_of(self.config_class, checkpoint)
        with reading(checkpoint):
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
            self.image_processor = CLIPImageProcessorPil.from_pretrained(checkpoint)
        fits(self.tokenizer, self.config, checkpoint)

    def _from_scratch(self, image_size: int, patch_size: int, vision: dict[str, Any], language: dict[str, Any]) -> None:
        if image_size % patch_size:
            raise ValueError(f"model.image_size {image_size} is no multiple of model.patch_size {patch_size}")
        self.tokenizer = nano_tokenizer.load(self.nano_tokens, **self.nano_special)
        self.config = self._nano_config(image_size, patch_size, vision, language)
        self.image_processor = square_processor(image_size, **self.colours)

    def _nano_config(
        self, image_size: int, patch_size: int, vision: dict[str, Any], language: dict[str, Any]
    ) -> PreTrainedConfig:
        ids = nano_tokenizer.special_ids(self.tokenizer)
        text = LlamaConfig(
            vocab_size=len(self.tokenizer), max_position_embeddings=1024, tie_word_embeddings=True, **ids, **language
        )
        return LlavaConfig(
            vision_config=CLIPVisionConfig(image_size=image_size, patch_size=patch_size, **vision),
            text_config=text,
            image_token_index=self.tokenizer.get_vocab()[nano_tokenizer.IMAGE],
            image_seq_length=(image_size // patch_size) ** 2,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
            **ids,
        )

    def template(self, prompt: str, has_image: bool) -> str:
        start = "" if self._adds_bos else str(self.tokenizer.bos_token)
        start += f"{self.system} " if self.system else ""
        return f"{start}USER: <image>\n{prompt} ASSISTANT:" if has_image else f"{start}USER: {prompt} ASSISTANT:"

    @property
    def _adds_bos(self) -> bool:
        return self._tokenize("")[:1] == (self.tokenizer.bos_token_id,)

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        inputs = self.image_processor(images=self._square(image), return_tensors="pt")
        return {"pixel_values": inputs["pixel_values"].to(self.dtype)}, str(self.image_token) * self.image_tokens

    def picture_tokens(self, size: tuple[int, int]) -> int:
        return self.image_tokens

    def _square(self, image: Image.Image) -> Image.Image:
        image = image.convert("RGB")
        if image.width == image.height:
            return image
        side, _, left, top = map(int, self.frame(image.size))
        scaled = self._scaled_side()
        if scaled and side * side > LARGE_SQUARE and side >= NARROW * min(image.size):
            return self._scaled_square(image, side, scaled)
        return self._padded(image, (side, side), left, top)

    def _padded(self, image: Image.Image, size: tuple[int, int], left: int, top: int) -> Image.Image:
        canvas = Image.new("RGB", size, self._fill)
        canvas.paste(image, (left, top))
        return canvas

    def _scaled_square(self, image: Image.Image, side: int, scaled: int) -> Image.Image:
        """The padded square of `side` pixels, scaled to `scaled`; the large square is never made.

        Pillow scales the rows of a picture first, then its columns. Of a wide picture this is the same computation, bit
        for bit; of a high one the order is the other, which may round a value to its neighbour.
        """
        _, _, left, top = map(int, self.frame(image.size))
        resample = self.image_processor.resample
        if image.width == side:
            rows = image.resize((scaled, image.height), resample)
            strip = self._padded(rows, (scaled, side), 0, top)
        else:
            columns = image.resize((image.width, scaled), resample)
            strip = self._padded(columns, (side, scaled), left, 0)
        return strip.resize((scaled, scaled), resample)

    def _scaled_side(self) -> int | None:
        """Side in pixels to which the processor scales a square; None where it doesn't scale it to a square."""
        processor, names = self.image_processor, ("shortest_edge", "longest_edge", "height", "width")
        sides = {name: processor.size.get(name) for name in names if processor.size.get(name) is not None}
        square = set(sides) in ({"shortest_edge"}, {"height", "width"}) and len(set(sides.values())) == 1
        return int(max(sides.values())) if processor.do_resize and square else None

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        side = self._scaled_side()
        return (side, side) if side else super().resized(size)

    @staticmethod
    def frame(size: tuple[int, int]) -> tuple[float, float, float, float]:
        side = max(size)
        return side, side, (side - size[0]) // 2, (side - size[1]) // 2

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        return load_model(self, self.model_class, checkpoint)
