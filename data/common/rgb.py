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
    if problem := unfit(picture):
        raise ValueError(f"the picture {problem}; {REMEDY}")
    if picture.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(picture) / 257).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), rgba).convert("RGB")
    return picture.convert("RGB")


def unfit(picture: Image.Image) -> str | None:
    """Why nothing says how a picture's values are shown; None where something does. Decodes those of 32 bits."""
    if picture.mode == "F":
        return RANGELESS
    if picture.mode.startswith("I") and not picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > 65535:
            return f"holds values from {low} to {high}, beyond 16 bits"
    return None
