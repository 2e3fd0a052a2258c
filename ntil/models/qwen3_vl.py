"""Qwen3-VL (2025): Qwen2-VL's inputs with cells of 32 pixels, Qwen3 with interleaved 3-D positions; the real classes.

Besides the projector there are further ones (deepstack), whose outputs are added to the first language layers; they
count as projector. There is no default system message. Boxes are JSON, 0..1000 across the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from ntil.models.base import LLAMA_LINEAR, Attention, OwnPrompt
from ntil.models.qwen2_vl import Qwen2VL
from tasks.base import OwnQuestion

HALF = (0.5, 0.5, 0.5)


class Qwen3VL(Qwen2VL):
    """Family of Qwen3-VL models; the options are those of `Qwen2VL`."""

    config_class: ClassVar[Any] = Qwen3VLConfig
    model_class: ClassVar[Any] = Qwen3VLForConditionalGeneration
    title: ClassVar[str] = "Qwen3-VL"
    width_after_tower: ClassVar[str] = "out_hidden_size"
    processor_options: ClassVar[Mapping[str, Any]] = {"image_mean": HALF, "image_std": HALF}
    parts: ClassVar[Mapping[str, str | tuple[str, ...]]] = {
        "vision": "model.visual",
        "projector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
        "language": "model.language_model",
    }
    # RefCOCO as a maintainer evaluates it, QwenLM/Qwen3-VL#1721; detection: evaluation/ODinW-13/dataset_utils.py there.
    own_prompts: ClassVar[Mapping[str, OwnPrompt]] = {
        "grounding": OwnPrompt(
            OwnQuestion(
                'Locate every object that matches the description "{expression}" in the image. '
                "Report bbox coordinates in JSON format."
            )
        ),
        "detection": OwnPrompt(
            OwnQuestion(
                "Locate every instance that belongs to the following categories: '{names}'. "
                "Report bbox coordinates in JSON format."
            )
        ),
    }
    lora_targets: ClassVar[dict[str, tuple[str, ...]]] = {
        "language": LLAMA_LINEAR,
        "vision": ("qkv", "proj", "linear_fc1", "linear_fc2"),
    }

    def __init__(
        self,
        checkpoint: str | None = None,
        min_pixels: int | None = None,
        max_pixels: int | None = None,
        patch_size: int | None = None,
        vision: dict[str, Any] | None = None,
        language: dict[str, Any] | None = None,
        system: str = "",
        coords: str = "json1000",
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
        # What entered the merger, then what entered each deepstack merger, side by side.
        entered = zip(*(entry.chunk(len(projectors), -1) for entry in features), strict=True)
        merged = [
            super(Qwen3VL, self).project(model, [projector], inputs, images)["pooler_output"]
            for projector, inputs in zip(projectors, entered, strict=True)
        ]
        return {"pooler_output": merged[0], "deepstack_features": merged[1:]}
