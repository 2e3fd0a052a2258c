"""SmolVLM2 (Marafioti et al., 2025): SigLIP, pixel shuffle, a Llama; the real `SmolVLMForConditionalGeneration`.

A picture is scaled so that its long side has `longest_edge` pixels, small ones too, then stretched to whole square
tiles. Where these are several, each is announced by its row and column, and the picture squeezed into one tile follows;
so a picture has several rows of `pixel_values`, and a tower sees each by itself. The authors state no format of boxes;
digits, 0..999 across the picture, are this project's choice.

The family's own processor needs torchvision and num2words (transformers 5.23), so inputs are built from its PIL image
processor, its text of a picture, and its tokenizer. That text is expanded before it is tokenised, since two newlines
that meet in it are one token.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor
from transformers import (
    AutoTokenizer,
    PreTrainedModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessorPil,
)
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from ntil.models import nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention, Family, load_model, torch_dtype
from ntil.models.packaged import local
from ntil.models.pretrained import config_of, fits, must_be_given, reading, same_sizes, same_sizes_of_parts, token_of

END = "<end_of_utterance>"
FAKE, GLOBAL = "<fake_token_around_image>", "<global-img>"
MOST = 6  # rows and columns of tiles that the tokenizer has names for
LARGEST = 4096  # pixels of a side, a bound of the family's own preprocessing
TILES = tuple(f"<row_{row}_col_{column}>" for row in range(1, MOST + 1) for column in range(1, MOST + 1))
TOKENS = ("<|im_start|>", GLOBAL, *TILES, FAKE, END)


class SmolVLM(Family):
    """Family of SmolVLM2 models.

    Args:
        checkpoint: hub name or folder, or null for a model from scratch.
        longest_edge: pixels to which the long side of every picture is scaled, a multiple of a tile's side; null: as
            the checkpoint says. Lower values make fewer tiles, for small pictures.
        image_size, patch_size: of the vision tower from scratch, in pixels; `image_size` is the side of a tile.
        scale_factor: of the model from scratch; as many patches, squared, make one token.
        vision, language: `SmolVLMVisionConfig` and `LlamaConfig` fields of the model from scratch.
        system: the system message, or empty for none.
        coords: how boxes are written.
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.

    Raises:
        ValueError: a `longest_edge` that isn't of whole tiles, or a tower whose patches don't fill a tile.
    """

    parts: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision": "model.vision_model",
        "projector": "model.connector",
        "language": "model.text_model",
    }
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    }
    # Of 256M and 500M; 2.2B has 9.
    patches_per_token: int = 16

    answer_end: ClassVar[str | None] = END

    def __init__(
        self,
        checkpoint: str | None = None,
        longest_edge: int | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        scale_factor: int | None = None,
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
        scaled: dict[str, Any] = {} if longest_edge is None else {"size": {"longest_edge": longest_edge}}
        if checkpoint is None:
            must_be_given(
                **sizes, longest_edge=longest_edge, scale_factor=scale_factor, vision=vision, language=language
            )
            assert image_size
            assert scale_factor
            assert vision
            assert language
            self.tokenizer = nano_tokenizer.load(TOKENS, eos_token=END)
            self.config = self._nano_config(sizes, scale_factor, vision, language)
            self.image_processor = SmolVLMImageProcessorPil(max_image_size={"longest_edge": image_size}, **scaled)
        else:
            self.config = config_of(SmolVLMConfig, checkpoint)
            same_sizes_of_parts(checkpoint, self.config, sizes, vision, language)
            same_sizes(checkpoint, self.config, {"scale_factor": scale_factor})
            with reading(checkpoint):
                self.tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
                self.image_processor = SmolVLMImageProcessorPil.from_pretrained(checkpoint, **scaled)
            fits(self.tokenizer, self.config, checkpoint)
        self._check_tiles()
        self.image_token = token_of(self.tokenizer, self.config.image_token_id, checkpoint)

    def _check_tiles(self) -> None:
        tower: Any = self.config.vision_config
        side, edge = int(self.image_processor.max_image_size["longest_edge"]), self.image_processor.size["longest_edge"]
        cell = tower.patch_size * self.config.scale_factor
        if tower.image_size != side or side // tower.patch_size % self.config.scale_factor:
            raise ValueError(
                f"a tile of {side} pixels must be model.image_size {tower.image_size}, and whole cells of {cell} pixels"
            )
        if not edge or edge % side or edge // side > MOST or edge > LARGEST:
            most = min(MOST * side, LARGEST // side * side)
            raise ValueError(f"model.longest_edge {edge} must be a multiple of a tile's {side} pixels, at most {most}")
        self.tile, self.patches_per_token = side, int(self.config.scale_factor) ** 2
        self.tile_tokens = (side // tower.patch_size) ** 2 // self.patches_per_token

    def _nano_config(
        self, sizes: dict[str, Any], scale_factor: int, vision: dict[str, Any], language: dict[str, Any]
    ) -> SmolVLMConfig:
        ids = nano_tokenizer.special_ids(self.tokenizer)
        text = {"model_type": "llama", "vocab_size": len(self.tokenizer), "max_position_embeddings": 2048, **ids}
        return SmolVLMConfig(
            text_config={**text, **language},
            vision_config={**sizes, **vision},
            scale_factor=scale_factor,
            image_token_id=self.tokenizer.get_vocab()[nano_tokenizer.IMAGE],
            tie_word_embeddings=False,
        )

    def template(self, prompt: str, has_image: bool) -> str:
        system = f"System: {self.system}{END}\n" if self.system else ""
        return f"<|im_start|>{system}User:{'<image>' if has_image else ' '}{prompt}{END}\nAssistant:"

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Columns and rows of tiles; 0 and 0 where the picture is one tile."""
        _, rows, columns = self.image_processor.get_number_of_image_patches(size[1], size[0])
        return columns, rows

    def resized(self, size: tuple[int, int]) -> tuple[int, int]:
        columns, rows = self._grid(size)
        return max(columns, 1) * self.tile, max(rows, 1) * self.tile

    def picture_tokens(self, size: tuple[int, int]) -> int:
        columns, rows = self._grid(size)
        return self.tile_tokens * (columns * rows + 1)

    def picture_length(self, size: tuple[int, int]) -> int:
        return len(self._tokenize(self._expansion(*self._grid(size)))) - len(self._tokenize(""))

    def _expansion(self, columns: int, rows: int) -> str:
        text = get_image_prompt_string(rows, columns, self.tile_tokens, FAKE, self.image_token, GLOBAL)
        return str(text)

    def picture(self, image: Image.Image) -> tuple[dict[str, Tensor], str]:
        inputs = self.image_processor(images=[image.convert("RGB")], return_tensors="pt", return_row_col_info=True)
        # Tiles of a batch's pictures in one row each, since pictures differ in their number.
        tiles = inputs["pixel_values"][0].unsqueeze(1).to(self.dtype)
        return {"pixel_values": tiles}, self._expansion(inputs["cols"][0][0], inputs["rows"][0][0])

    def load(self, checkpoint: Path | None = None) -> PreTrainedModel:
        return load_model(self, SmolVLMForConditionalGeneration, checkpoint)
