"""Backgrounds of rendered pictures: pieces of photographs, or random textures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from data.common.errors import InvalidOption

Colour = tuple[int, int, int]


def photos_in(folder: Path) -> list[Path]:
    """All photographs below a folder, in a fixed order.

    Raises:
        InvalidOption: there is none.
    """
    photos = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not photos:
        raise InvalidOption(f"task.source.backgrounds={folder}: no .jpg or .png there")
    return photos


def shade(rng: np.random.Generator, low: int, high: int, spread: int = 25) -> Colour:
    """A colour of a random brightness, each channel at most `spread` from it."""
    base = int(rng.integers(low, high + 1))
    red, green, blue = np.clip(base + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def photo_piece(rng: np.random.Generator, side: int, photos: Sequence[Path]) -> PILImage.Image:
    """A square piece of one of the photographs, at least half of its shorter side."""
    with PILImage.open(photos[int(rng.integers(len(photos)))]) as photo:
        image = photo.convert("RGB")
    edge = round(min(image.size) * rng.uniform(0.5, 1.0))
    x, y = (int(rng.integers(0, length - edge + 1)) for length in image.size)
    return image.resize((side, side), PILImage.Resampling.BILINEAR, box=(x, y, x + edge, y + edge))


def texture(rng: np.random.Generator, side: int) -> PILImage.Image:
    """A plain wall, or a photograph's low frequencies: smooth coloured noise with edges laid over it."""
    if rng.random() < 0.4:
        return PILImage.new("RGB", (side, side), shade(rng, 20, 240, 40))
    coarse = rng.integers(0, 256, (int(rng.integers(3, 9)), int(rng.integers(3, 9)), 3), dtype=np.uint8)
    image = PILImage.fromarray(coarse).resize((side, side), PILImage.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.uniform(-0.2, 1.0, 2) * side
        w, h = rng.uniform(0.1, 0.6, 2) * side
        draw.rectangle((x, y, x + w, y + h), fill=shade(rng, 0, 255, 40))
    return image
