"""Backgrounds of rendered pictures: pieces of photographs, or random textures."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage
from PIL import ImageDraw

from data.common.errors import InvalidData, InvalidOption
from data.common.files import is_hidden
from data.common.images import check_picture
from data.common.rgb import rgb
from data.common.source import STREAMS

Colour = tuple[int, int, int]


HELD_OUT = 0.15  # of the photographs, behind the pictures of validation, and as many behind those of test
USUAL_SHARE = 0.5
SPLITS = tuple(STREAMS)
SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class Backgrounds:
    """What lies behind rendered pictures: a piece of a photograph in part of them, else what the renderer draws.

    Attributes:
        photos: of one split. share: part of the pictures that have one behind them.
    """

    photos: Sequence[Path] = ()
    share: float = 0.0

    @classmethod
    def of(cls, folder: Path | None, share: float | None, split: str) -> Backgrounds:
        """Those of a split; without a folder none.

        Raises:
            InvalidOption: see `photos_in`; or a share that is none.
        """
        share = USUAL_SHARE if share is None else share
        if not 0 <= share <= 1:
            raise InvalidOption(f"task.source.background_share must be from 0 to 1, got {share}")
        return cls(photos_in(folder, split), share) if folder else cls()

    def piece(self, rng: np.random.Generator, side: int) -> PILImage.Image | None:
        """A piece of a photograph of `side` x `side` pixels, or None where the picture has none behind it."""
        return photo_piece(rng, side, self.photos) if self.photos and rng.random() < self.share else None

    def key(self) -> dict[str, Any]:
        """What a cache of the pictures has to know of them; nothing where there are no photographs."""
        if not self.photos:
            return {}
        return {"photos": [(photo.name, photo.stat().st_size) for photo in self.photos], "share": self.share}


NOTHING = Backgrounds()


def photos_in(folder: Path, split: str) -> list[Path]:
    """The photographs below a folder that are a split's alone, in a fixed order.

    Which these are follows from a hash of their paths below the folder, so that neighbours come apart. Hidden files and
    folders, those that macOS puts beside pictures among them, are left out.

    Raises:
        InvalidOption: there are fewer than one a split, or one that can't be read.
    """
    photos = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not is_hidden(p.relative_to(folder))]
    if len(photos) < len(SPLITS):
        raise InvalidOption(
            f"task.source.backgrounds={folder}: {len(photos) or 'no'} .jpg or .png there, and no split shares one with "
            f"another: give it at least {len(SPLITS)}"
        )
    names = {photo: photo.relative_to(folder).as_posix() for photo in photos}
    drawn = sorted(photos, key=lambda photo: hashlib.sha256(names[photo].encode()).digest())
    held_out = max(1, round(HELD_OUT * len(drawn)))
    bounds = {"validation": (0, held_out), "test": (held_out, 2 * held_out), "train": (2 * held_out, len(drawn))}
    for photo in drawn:
        _check(photo, photo.stat().st_mtime_ns)
    return sorted(drawn[slice(*bounds[split])])


@cache
def _check(photo: Path, _changed: int) -> None:
    """Check that a photograph is whole, once in a process.

    Raises:
        InvalidOption: it isn't.
    """
    try:
        check_picture(photo, str(photo))
    except InvalidData as error:
        reason = error.__cause__ or "no picture of 8 or 16 bits per channel"
        problem = f"{photo} can't be used ({reason}): replace it, or take it out of the folder"
        raise InvalidOption(f"task.source.backgrounds: {problem}") from error


def drawing_scale(size: int) -> int:
    """How many times as large a picture of `size` pixels is drawn before it is reduced: larger ones need less."""
    return 4 if size <= 96 else 2


def shade(rng: np.random.Generator, low: int, high: int, spread: int = 25) -> Colour:
    """A colour of a random brightness, each channel at most `spread` from it."""
    base = int(rng.integers(low, high + 1))
    red, green, blue = np.clip(base + rng.integers(-spread, spread + 1, 3), 0, 255).tolist()
    return red, green, blue


def photo_piece(rng: np.random.Generator, side: int, photos: Sequence[Path]) -> PILImage.Image:
    """A square piece of one of the photographs, at least half of its shorter side."""
    with PILImage.open(photos[int(rng.integers(len(photos)))]) as photo:
        image = rgb(photo)
    edge = max(1, round(min(image.size) * rng.uniform(0.5, 1.0)))
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
