"""Qwen2.5-VL (Bai et al., 2025): Qwen2-VL's prompt and inputs, a tower with attention in windows; the real classes.

The tower puts the cells of a picture in the order of its windows, and back again after the projector: kept features are
in the order of windows. Boxes are JSON, in pixels of the picture as the processor scales it, so `min_pixels` and
`max_pixels` of training and test must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from transformers.vision_utils import get_vision_window_index

from ntil.models.base import LLAMA_LINEAR, Attention, OwnPrompt
from ntil.models.qwen2_vl import Qwen2VL
from tasks.base import OwnQuestion


class Qwen25VL(Qwen2VL):
    """Family of Qwen2.5-VL models; the options are those of `Qwen2VL`."""

    config_class: ClassVar[Any] = Qwen2_5_VLConfig
    model_class: ClassVar[Any] = Qwen2_5_VLForConditionalGeneration
    title: ClassVar[str] = "Qwen2.5-VL"
    width_after_tower: ClassVar[str] = "out_hidden_size"
    # The example of a row with a box in QwenLM/Qwen3-VL, qwen-vl-finetune/README.md.
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {
        "grounding": OwnPrompt(
            OwnQuestion("Locate {expression} in this image and output the bbox coordinates in JSON format.")
        )
    }
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("qkv", "proj", "gate_proj", "up_proj", "down_proj"),
    }

    def __init__(
        self,
        checkpoint: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        patch_size: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = "You are a helpful assistant.",
        coords: str = "json_pixels",
        dtype: str = "float32",
        attn_implementation: Attention = "sdpa",
        allow_pickle: bool = False,
    ) -> None:
        sizes = (min_pixels, max_pixels, patch_size, vision, language)
        super().__init__(checkpoint, *sizes, system, coords, dtype, attn_implementation, allow_pickle)

    def project(
        self,
        model: Any,
        projectors: Sequence[Callable[[Tensor], Tensor]],
        features: Sequence[Tensor],
        images: Sequence[dict[str, Tensor]],
    ) -> dict[str, Any]:
        by_window = super().project(model, projectors, features, images)["pooler_output"]
        tower: Any = self.config.vision_config
        sizes = tower.spatial_merge_size, tower.window_size, tower.patch_size
        orders = [get_vision_window_index(image["image_grid_thw"], *sizes)[0] for image in images]
        back = [torch.argsort(order).to(cells.device) for order, cells in zip(orders, by_window, strict=True)]
        return {"pooler_output": [cells[order] for order, cells in zip(back, by_window, strict=True)]}
