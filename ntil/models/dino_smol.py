"""DINOv2 and SmolLM2 joined as in LLaVA (ours), of real pre-trained weights; `AyaVisionForConditionalGeneration`.

DINOv2 sees 16 x 16 patches of a square picture; the projector joins four neighbours (pixel shuffle), and two layers
with a gate make a token of them, so that a picture of 224 pixels has 64 tokens. The frame of a conversation is
SmolLM2's ChatML. The projector is new, so the model knows nothing of pictures before it is trained.

`checkpoint=package:dino_smol` takes tower and language model from Python packages, see packaged.py. Pictures are padded
to a square as in llava.py, with the mean colour of DINOv2's training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    Dinov2Config,
    LlamaConfig,
    PreTrainedConfig,
)

from ntil.models import chatml, nano_tokenizer
from ntil.models.base import LLAMA_LINEAR, Attention
from ntil.models.dino_smol_config import DOWNSAMPLE, joined_config
from ntil.models.image_processors import COLOURS
from ntil.models.llava import Llava


class DinoSmol(Llava):
    """Family of DINOv2 with SmolLM2.

    Args:
        checkpoint: `package:dino_smol`, a hub name or folder, or null for a model from scratch.
        image_size, patch_size: of the vision tower from scratch, in pixels.
        vision, language: `Dinov2Config` and `LlamaConfig` fields of the model from scratch.
        system: the system message, or empty for none.
        coords: how boxes are written; ours, whole numbers 0..1000 of the padded square.
        dtype: of the weights. attn_implementation: `sdpa`, `eager`, `flash_attention_2`.
        allow_pickle: read .bin files of a checkpoint that has no safetensors.

    Raises:
        ValueError: an image size whose patches don't join in squares of two.
    """

    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"),
    }
    patches_per_token: int = DOWNSAMPLE**2
    own_prompts: ClassVar[dict[str, Any]] = {}
    answer_start: ClassVar[str] = ""
    answer_end: ClassVar[str | None] = chatml.END
    model_class: ClassVar[Any] = AyaVisionForConditionalGeneration
    config_class: ClassVar[Any] = AyaVisionConfig
    nano_tokens: ClassVar[Sequence[str]] = chatml.TOKENS
    nano_special: ClassVar[Mapping[str, str]] = {"eos_token": chatml.END}
    colours: ClassVar[Mapping[str, Any]] = COLOURS  # DINOv2's, too

    def __init__(
        self,
        checkpoint: str | None = None,
        image_size: int | None = None,
        patch_size: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = "",
        coords: str = "int1000",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        sizes = (image_size, patch_size, vision, language)
        super().__init__(checkpoint, *sizes, system, coords, dtype, attn_implementation, allow_pickle)
        side = self.image_processor.size["height"] // self.config.vision_config.patch_size
        if side % DOWNSAMPLE:
            raise ValueError(f"model.image_size must be an even number of patches, not {side} of them")
        self.image_tokens = (side // DOWNSAMPLE) ** 2

    def _nano_config(
        self, image_size: int, patch_size: int, vision: dict[str, Any], language: dict[str, Any]
    ) -> PreTrainedConfig:
        ids = nano_tokenizer.special_ids(self.tokenizer)
        text = LlamaConfig(
            vocab_size=len(self.tokenizer), max_position_embeddings=1024, tie_word_embeddings=True, **ids, **language
        )
        tower = Dinov2Config(image_size=image_size, patch_size=patch_size, **vision)
        image_token_id = self.tokenizer.get_vocab()[nano_tokenizer.IMAGE]
        return joined_config(tower, text, image_token_id, 4 * text.hidden_size)

    def template(self, prompt: str, has_image: bool) -> str:
        return chatml.prompt(f"<image>\n{prompt}" if has_image else prompt, self.system)

    def project(
        self,
        model: Any,
        projectors: Sequence[Callable[[Tensor], Tensor]],
        features: Sequence[Tensor],
        images: Sequence[dict[str, Tensor]],
    ) -> dict[str, Any]:
        # The projector gives a grid of tokens, of which the model makes a row.
        grids = super().project(model, projectors, features, images)["pooler_output"]
        return {"pooler_output": [grid.reshape(len(grid), -1, grid.shape[-1]) for grid in grids]}
