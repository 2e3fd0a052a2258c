"""What a model of DINOv2 and SmolLM2 is made of; see dino_smol.py."""

from __future__ import annotations

from typing import Any

from transformers import AyaVisionConfig, PreTrainedConfig

DOWNSAMPLE = 2


def joined_config(vision: PreTrainedConfig, text: PreTrainedConfig, image_token_id: int, width: int) -> AyaVisionConfig:
    """The config of a model of these two; `width` is that of the projector's first layer, half of which are gates."""
    further: dict[str, Any] = {
        "alignment_intermediate_size": width,
        "bos_token_id": text.bos_token_id,
        "eos_token_id": text.eos_token_id,
        "pad_token_id": text.pad_token_id,
    }
    return AyaVisionConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        downsample_factor=DOWNSAMPLE,
        image_token_index=image_token_id,
        tie_word_embeddings=True,
        **further,
    )
