"""Conversion of any picture to RGB on a white background."""

from __future__ import annotations

import numpy as np
from PIL import Image

RANGELESS = "holds floating-point numbers, and nothing says which of them is white"
REMEDY = "store it with 8 or 16 bits per channel"


def rgb(picture: Image.Image) -> Image.Image:
    """The picture in mode RGB: transparent pixels are laid on white, and 16 bits of grey become 8.

    Pillow's own `convert("RGB")` drops alpha (black ink on nothing becomes all black) and cuts grey off at 255 (a
    16-bit scan becomes all white). Pictures without either are converted by Pillow.

    Raises:
        ValueError: floating-point numbers, or whole ones beyond 16 bits.
    """
    if picture.mode == "F":
        raise ValueError(f"the picture {RANGELESS}; {REMEDY}")
    if picture.mode.startswith("I"):
        return _of_16_bits(picture)
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")


def _of_16_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError(f"the picture holds values from {low} to {high}, beyond 16 bits; {REMEDY}")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8)).convert("RGB")
