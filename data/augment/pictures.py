"""Pixels of augmented pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageEnhance

from data.augment.draws import Draw
from data.common.rgb import rgb

_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


def augmented(picture: Image.Image, drawn: Draw) -> Image.Image:
    """The picture after what was drawn, in RGB."""
    picture = rgb(picture)
    if drawn.crop != (0, 0, *picture.size):
        picture = picture.crop(drawn.crop)
    if drawn.mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if drawn.turn:
        picture = _turned(picture, drawn.turn)
    if drawn.size != picture.size:
        picture = picture.resize(drawn.size, Image.Resampling.BICUBIC)
    for enhancer, factor in zip(_ENHANCERS, drawn.colours, strict=True):
        if factor != 1.0:
            picture = enhancer(picture).enhance(factor)
    return picture


def _turned(picture: Image.Image, degrees: float) -> Image.Image:
    """The picture turned about its middle; the corners are filled as its edge goes on."""
    wide, high = picture.width // 2 + 1, picture.height // 2 + 1
    padded = np.pad(np.asarray(picture), ((high, high), (wide, wide), (0, 0)), mode="edge")
    turned = Image.fromarray(padded).rotate(degrees, Image.Resampling.BICUBIC)
    return turned.crop((wide, high, wide + picture.width, high + picture.height))
