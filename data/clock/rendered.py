"""Rendered analogue clocks: row i of a split is the same picture on every machine and in every process.

`plain` is one face family with mild variation of colour, size, position and hand length, which a tiny model learns in
minutes. `rich` varies as real clocks do: face shape and colour, numerals, ticks, hand shapes, second hand, tilt,
shading, blur and background.

Columns: id, image, hour (1..12), minute (0..59), level (for a curriculum: 0 where the minute is a multiple
of 30, 1 of 15, 2 of 5, else 3).
"""

from __future__ import annotations

import io
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset
from PIL import Image as PILImage
from PIL import ImageChops, ImageDraw, ImageFilter, ImageFont

from data.clock.schema import FEATURES, level_of
from data.common import backgrounds as background_module
from data.common.backgrounds import NOTHING, Backgrounds, drawing_scale, shade, texture
from data.common.cache import cached_dataset, drawn_rows
from data.common.errors import InvalidOption
from data.common.source import STREAMS, RenderedSource, optional_path

Difficulty = Literal["plain", "rich"]
ROMAN = ["XII", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI"]


class RenderedClocks(RenderedSource):
    """Source of rendered clocks.

    Args:
        rows: split -> how many.
        difficulty: `plain` or `rich`.
        size: pixels of a side.
        seed: each split has its own stream of it.
        backgrounds: a folder of photographs, pieces of which lie behind the pictures; no split has one of another.
        background_share: part of the pictures that have one behind them; null: half.
    """

    def __init__(
        self,
        rows: dict[str, int],
        difficulty: Difficulty = "plain",
        size: int = 48,
        seed: int = 0,
        backgrounds: str | None = None,
        background_share: float | None = None,
    ) -> None:
        super().__init__(rows)
        self.difficulty, self.size, self.seed = difficulty, size, seed
        self.backgrounds, self.background_share = optional_path(backgrounds), background_share

    def rows(self, split: str) -> Dataset:
        return load(
            split,
            rows=self.count(split),
            size=self.size,
            difficulty=self.difficulty,
            seed=self.seed,
            backgrounds=self.backgrounds,
            background_share=self.background_share,
        )

    def check_files(self) -> None:
        Backgrounds.of(self.backgrounds, self.background_share, "train")


def load(
    split: str,
    *,
    rows: int,
    size: int = 48,
    difficulty: Difficulty = "plain",
    seed: int = 0,
    backgrounds: Path | None = None,
    background_share: float | None = None,
) -> Dataset:
    """`rows` rendered clocks of `size` x `size` pixels.

    Args:
        backgrounds: a folder of photographs; `background_share` of the clocks then have a piece of one behind them. The
            same folder gives the same pictures everywhere.

    Raises:
        InvalidOption: unknown split or difficulty, a size or a number of rows below 1, too few photographs.
    """
    if split not in STREAMS:
        raise InvalidOption(f"rendered clocks have the splits {sorted(STREAMS)}, not {split!r}")
    if difficulty not in ("plain", "rich"):
        raise InvalidOption(f"task.source.difficulty must be 'plain' or 'rich', got {difficulty!r}")
    if rows < 1 or size < 16:
        raise InvalidOption(f"rendered clocks need rows >= 1 and size >= 16, got rows={rows}, size={size}")
    behind = Backgrounds.of(backgrounds, background_share, split)
    key = {"split": split, "rows": rows, "size": size, "difficulty": difficulty, "seed": seed, **behind.key()}
    render = partial(_row, split=split, size=size, difficulty=difficulty, seed=seed, behind=behind)

    def build() -> Dataset:
        return drawn_rows(render, rows, FEATURES, f"rendering {split} clocks")

    return cached_dataset(f"clock-{difficulty}-{split}", key, [Path(__file__), Path(background_module.__file__)], build)


def _row(
    row: dict[str, int], *, split: str, size: int, difficulty: Difficulty, seed: int, behind: Backgrounds
) -> dict[str, Any]:
    # The split is part of the seed, so that no two splits share a picture.
    rng = np.random.default_rng([seed, STREAMS[split], row["index"]])
    hour, minute = int(rng.integers(1, 13)), int(rng.integers(0, 60))
    picture = render_clock(hour, minute, rng, size=size, difficulty=difficulty, behind=behind)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    name = f"{difficulty}-{split}-{seed}-{row['index']}"
    image = {"bytes": buffer.getvalue(), "path": None}
    return {"id": name, "image": image, "hour": hour, "minute": minute, "level": level_of(minute)}


def render_clock(
    hour: int,
    minute: int,
    rng: np.random.Generator,
    *,
    size: int,
    difficulty: Difficulty,
    behind: Backgrounds = NOTHING,
) -> PILImage.Image:
    """One clock showing hour:minute, drawn larger and reduced."""
    side = size * drawing_scale(size)
    draw = _plain if difficulty == "plain" else _rich
    drawn = draw(hour, minute, rng, side, behind)
    return drawn.resize((size, size), PILImage.Resampling.BOX)


def _point(centre: tuple[float, float], turn: float, radius: float) -> tuple[float, float]:
    """The point at `turn` (1 = once round, clockwise from twelve)."""
    angle = 2 * math.pi * turn
    return centre[0] + radius * math.sin(angle), centre[1] - radius * math.cos(angle)


def _plain(hour: int, minute: int, rng: np.random.Generator, side: int, behind: Backgrounds) -> PILImage.Image:
    image = behind.piece(rng, side) or PILImage.new("RGB", (side, side), shade(rng, 90, 160))
    draw = ImageDraw.Draw(image)
    radius = side * rng.uniform(0.42, 0.47)
    slack = side / 2 - radius
    centre = (side / 2 + rng.uniform(-slack, slack), side / 2 + rng.uniform(-slack, slack))
    ink = shade(rng, 10, 60)
    box = (centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius)
    draw.ellipse(box, fill=shade(rng, 220, 250, 5), outline=ink, width=max(1, round(side * 0.015)))
    for tick in range(12):
        inner = radius * (0.80 if tick % 3 == 0 else 0.88)
        ends = [_point(centre, tick / 12, inner), _point(centre, tick / 12, radius * 0.96)]
        draw.line(ends, fill=ink, width=max(1, round(side * 0.02)))
    hour_turn, minute_turn = (hour % 12 + minute / 60) / 12, minute / 60
    hands = ((hour_turn, rng.uniform(0.45, 0.55), 0.055), (minute_turn, rng.uniform(0.78, 0.90), 0.03))
    for turn, length, width in hands:
        ends = [centre, _point(centre, turn, radius * length)]
        draw.line(ends, fill=ink, width=max(1, round(side * width)))
    return image


def _rich(hour: int, minute: int, rng: np.random.Generator, side: int, behind: Backgrounds) -> PILImage.Image:
    canvas = behind.piece(rng, side) or texture(rng, side)
    face = PILImage.new("RGBA", (side, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(face)
    centre = (side / 2, side / 2)
    radius = side * rng.uniform(0.30, 0.46)
    dark = rng.random() < 0.25
    paper = shade(rng, 15, 70) if dark else shade(rng, 190, 250)
    ink = shade(rng, 200, 250) if dark else shade(rng, 5, 70)
    _rich_face(draw, rng, centre, radius, paper, shade(rng, 10, 245))
    _rich_marks(draw, rng, centre, radius, ink)
    second = int(rng.integers(0, 60)) if rng.random() < 0.4 else 0
    _rich_hands(draw, rng, centre, radius, ink, hour, minute, second)
    face = _shaded(face, rng, side)
    face = face.rotate(rng.uniform(-8, 8), PILImage.Resampling.BICUBIC)
    slack = side / 2 - radius * 1.05
    shift = (int(rng.uniform(-slack, slack) * 0.8), int(rng.uniform(-slack, slack) * 0.8))
    face = ImageChops.offset(face, *shift)
    canvas.paste(face, (0, 0), face)
    if rng.random() < 0.4:
        canvas = canvas.filter(ImageFilter.GaussianBlur(side / 400 * rng.uniform(0.5, 2.5)))
    return canvas


def _rich_face(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: float,
    paper: tuple[int, int, int],
    frame: tuple[int, int, int],
) -> None:
    x, y = centre
    rim = radius * rng.uniform(1.0, 1.05)
    box = (x - rim, y - rim, x + rim, y + rim)
    width = max(1, round(radius * rng.uniform(0.02, 0.12)))
    shape = rng.choice(["round", "square", "rounded", "octagon"], p=[0.6, 0.15, 0.15, 0.1])
    if shape == "round":
        draw.ellipse(box, fill=paper, outline=frame, width=width)
    elif shape == "octagon":
        corners = [_point(centre, (i + 0.5) / 8, rim * 1.05) for i in range(8)]
        draw.polygon(corners, fill=paper, outline=frame, width=width)
    else:
        corner = 0 if shape == "square" else rim * 0.3
        draw.rounded_rectangle(box, corner, fill=paper, outline=frame, width=width)


def _rich_marks(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: float,
    ink: tuple[int, int, int],
) -> None:
    numerals = rng.choice(["arabic", "roman", "quarters", "none"], p=[0.45, 0.2, 0.15, 0.2])
    ticks = rng.choice(["hours", "minutes", "dots", "none"], p=[0.35, 0.35, 0.15, 0.15])
    if numerals == "none" and ticks == "none":
        ticks = "hours"
    for tick in range(60):
        on_hour = tick % 5 == 0
        if ticks == "none" or (not on_hour and ticks != "minutes"):
            continue
        if ticks == "dots":
            x, y = _point(centre, tick / 60, radius * 0.9)
            dot = radius * 0.025
            draw.ellipse((x - dot, y - dot, x + dot, y + dot), fill=ink)
            continue
        ends = [
            _point(centre, tick / 60, radius * (0.86 if on_hour else 0.91)),
            _point(centre, tick / 60, radius * 0.95),
        ]
        draw.line(ends, fill=ink, width=max(1, round(radius * (0.03 if on_hour else 0.012))))
    if numerals == "none":
        return
    font = ImageFont.load_default(size=max(6.0, radius * rng.uniform(0.16, 0.24)))
    for position in range(12):
        if numerals == "quarters" and position % 3:
            continue
        text = ROMAN[position] if numerals == "roman" else str(position or 12)
        draw.text(_point(centre, position / 12, radius * 0.72), text, fill=ink, font=font, anchor="mm")


def _rich_hands(
    draw: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    centre: tuple[float, float],
    radius: float,
    ink: tuple[int, int, int],
    hour: int,
    minute: int,
    second: int,
) -> None:
    shape = str(rng.choice(["stick", "taper", "leaf"]))
    minutes = minute + second / 60
    hour_width = rng.uniform(0.05, 0.10)
    colour = ink if rng.random() < 0.8 else shade(rng, 0, 120, 60)
    _hand(
        draw,
        centre,
        (hour % 12 + minutes / 60) / 12,
        radius * rng.uniform(0.42, 0.58),
        radius * hour_width,
        shape,
        colour,
    )
    width = radius * hour_width * rng.uniform(0.45, 0.8)
    _hand(draw, centre, minutes / 60, radius * rng.uniform(0.72, 0.92), width, shape, colour)
    if second:
        red = (200, 30, 30) if rng.random() < 0.6 else ink
        ends = [_point(centre, second / 60 + 0.5, radius * 0.15), _point(centre, second / 60, radius * 0.88)]
        draw.line(ends, fill=red, width=max(1, round(radius * 0.012)))
    x, y = centre
    hub = radius * 0.05
    draw.ellipse((x - hub, y - hub, x + hub, y + hub), fill=colour)


def _hand(
    draw: ImageDraw.ImageDraw,
    centre: tuple[float, float],
    turn: float,
    length: float,
    width: float,
    shape: str,
    colour: tuple[int, int, int],
) -> None:
    tail = _point(centre, turn + 0.5, length * 0.15)
    tip = _point(centre, turn, length)
    if shape == "stick":
        draw.line([tail, tip], fill=colour, width=max(1, round(width)))
        return
    belly = centre if shape == "taper" else _point(centre, turn, length * 0.6)
    sides = [_point(belly, turn + quarter, width * 0.6) for quarter in (0.25, 0.75)]
    draw.polygon([tail, sides[0], tip, sides[1]], fill=colour)


def _shaded(face: PILImage.Image, rng: np.random.Generator, side: int) -> PILImage.Image:
    """The face with light falling from a random side."""
    strength = rng.uniform(0, 0.35)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.linspace(-1, 1, side)
    light = 1 - strength * (math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None] + 1) / 2
    pixels = np.asarray(face).astype(np.float32)
    pixels[..., :3] *= light[..., None]
    return PILImage.fromarray(pixels.clip(0, 255).astype(np.uint8), "RGBA")
