"""Pictures with truth and prediction on them, for contact sheets, galleries and trackers."""

from __future__ import annotations

import textwrap

from PIL import Image, ImageDraw, ImageFont

from data.common.rgb import rgb
from data.common.rows import Row

TRUTH = (0, 230, 70)
PREDICTION = (230, 30, 30)
RIGHT = (0, 120, 40)
WRONG = (190, 20, 20)


def captioned(picture: Image.Image, first: str, second: str, right: bool, side: int = 192) -> Image.Image:
    """The picture in a `side`-wide square over two lines of text, the second green when right and red when not."""
    canvas = Image.new("RGB", (side, side + 40), "white")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    scaled = rgb(picture).resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    canvas.paste(scaled, ((side - size[0]) // 2, (side - size[1]) // 2))
    draw = ImageDraw.Draw(canvas)
    for text, top, fill in ((first, side + 2, (0, 0, 0)), (second, side + 20, RIGHT if right else WRONG)):
        size_of_text = max(8, min(15, int(15 * (side - 8) / max(1.0, ImageFont.load_default(size=15).getlength(text)))))
        draw.text((6, top), text, fill=fill, font=ImageFont.load_default(size=size_of_text))
    return canvas


def wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The text in lines of at most `width` pixels, all of one number of characters; longer words are broken."""
    characters = 80
    while True:
        lines = [line for paragraph in text.splitlines() for line in textwrap.wrap(paragraph, characters)]
        widest = max(lines, key=font.getlength, default="")
        if font.getlength(widest) <= width or characters == 1:
            return lines
        characters = max(1, int(len(widest) * width / font.getlength(widest)))


def text_picture(text: str) -> Image.Image:
    """The text on white, for rows without a picture."""
    canvas, font = Image.new("RGB", (192, 192), "white"), ImageFont.load_default(size=14)
    lines = wrapped(text, font, canvas.width - 8)[:10]
    ImageDraw.Draw(canvas).multiline_text((4, 4), "\n".join(lines), fill="black", font=font)
    return canvas


def picture_of(row: Row) -> Image.Image:
    """The row's picture, or a white one of its size for a row without a picture."""
    return row["image"] or Image.new("RGB", (row["width"], row["height"]), "white")


def enlarged(picture: Image.Image, side: int = 384) -> tuple[Image.Image, float]:
    """A copy whose longer side is `side`, so that lines have one width on all pictures; and the scale."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return rgb(picture).resize(size, Image.Resampling.BICUBIC), scale
