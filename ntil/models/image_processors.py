"""Image processors that several families share."""

from __future__ import annotations

from typing import Any

from transformers import CLIPImageProcessorPil

# Mean and deviation of ImageNet's colours.
COLOURS: dict[str, Any] = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}


def square_processor(side: int, **options: Any) -> CLIPImageProcessorPil:
    """Image processor of square pictures of `side` pixels."""
    edge = {"height": side, "width": side}
    return CLIPImageProcessorPil(size=edge, crop_size=edge, do_center_crop=False, **options)
