"""Rendered words with their outlines: row i of a split is the same picture on every machine and in every process.

`single`: one level word on a smooth ground. `plain`: one or two of them. `rich`: up to four words, level, turned or
bent along an arc, in many fonts, on textures or photographs, some on plates; a few pictures without any text, and a few
with text too small to be read, which is a don't-care region.

Columns: as of data.text_detection.schema. Level and turned words have 4 points, bent ones 10, clockwise from where the
word begins. `level`: 0 one level word or none, 1 more of them, 2 where a word is turned, 3 where one is bent.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import matplotlib
import numpy as np
import shapely
from datasets import Dataset
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFilter, ImageFont

from data.common import backgrounds as background_module
from data.common.backgrounds import NOTHING, Backgrounds, Colour, drawing_scale, shade, texture
from data.common.cache import cached_dataset, drawn_rows
from data.common.errors import InvalidOption
from data.common.images import png
from data.common.source import STREAMS, RenderedSource, optional_path
from data.text_detection.ground_truth import DONT_CARE, Instance
from data.text_detection.schema import FEATURES

Difficulty = Literal["single", "plain", "rich"]
# All are shipped with matplotlib, so that every machine draws the same letters.
FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSansMono-Bold", "STIXGeneralBol")
WORDS = """
    bar cafe exit open taxi bank sale shop park hotel stop menu free book tea wine pizza bus gate room hall art film
    music beer fish bread milk fruit nuts toys shoes hair spa gym wood stone lake hill king queen star moon sun blue
    green red gold one two ten north south east west left right way road lane
""".split()  # noqa: SIM905
PAD = 0.08  # of a word's height, between the ink and its outline


class Strip(NamedTuple):
    """A word as a level strip of `width` x `height`, and its place: turned about `centre`, bent by `bend` radians.

    Bent words lie on an arc as long as the strip; `bend` above 0 arches upwards, below 0 sags.
    """

    width: float
    height: float
    centre: tuple[float, float]
    turn: float = 0.0
    bend: float = 0.0

    def place(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points of the strip (u from its left, v from its top) to the picture."""
        across, down = u - self.width / 2, v - self.height / 2
        if self.bend:
            radius, sign = self.width / abs(self.bend), math.copysign(1, self.bend)
            reach = radius - sign * down
            across, down = reach * np.sin(across / radius), sign * (radius - reach * np.cos(across / radius))
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return self.centre[0] + cos * across - sin * down, self.centre[1] + sin * across + cos * down

    def find(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Map points of the picture to the strip: the inverse of `place`."""
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        dx, dy = x - self.centre[0], y - self.centre[1]
        across, down = cos * dx + sin * dy, cos * dy - sin * dx
        if self.bend:
            radius, sign = self.width / abs(self.bend), math.copysign(1, self.bend)
            depth = radius - sign * down
            across, down = radius * np.arctan2(across, depth), sign * (radius - np.hypot(across, depth))
        return across + self.width / 2, down + self.height / 2

    def outline(self, points: int) -> list[tuple[float, float]]:
        """Outline of `points` points along the top from left to right, then as many along the bottom back."""
        u = np.linspace(0, self.width, points)
        xs, ys = self.place(np.concatenate([u, u[::-1]]), np.repeat([0.0, self.height], points))
        return list(zip(xs.tolist(), ys.tolist(), strict=True))


class RenderedWords(RenderedSource):
    """Source of rendered words.

    Args:
        rows: split -> how many.
        difficulty: `single` (one level word), `plain` (one or two) or `rich` (up to four, turned or bent too).
        size: pixels of a side.
        seed: each split has its own stream of it.
        backgrounds: a folder of photographs, pieces of which lie behind the pictures; no split has one of another.
        background_share: part of the pictures that have one behind them; null: half.
    """

    def __init__(
        self,
        rows: dict[str, int],
        difficulty: Difficulty = "plain",
        size: int = 64,
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
    size: int = 64,
    difficulty: Difficulty = "plain",
    seed: int = 0,
    backgrounds: Path | None = None,
    background_share: float | None = None,
) -> Dataset:
    """`rows` pictures of `size` x `size` pixels.

    Args:
        backgrounds: a folder of photographs; `background_share` of the pictures then show a piece of one behind the
            words. The same folder gives the same pictures everywhere.

    Raises:
        InvalidOption: unknown split or difficulty, a size or a number of rows that is too small, too few photographs.
    """
    if split not in STREAMS:
        raise InvalidOption(f"rendered words have the splits {sorted(STREAMS)}, not {split!r}")
    if difficulty not in get_args(Difficulty):
        raise InvalidOption(
            f"task.source.difficulty must be one of {', '.join(get_args(Difficulty))}, got {difficulty!r}"
        )
    if rows < 1 or size < 32:
        raise InvalidOption(f"rendered words need rows >= 1 and size >= 32, got rows={rows}, size={size}")
    behind = Backgrounds.of(backgrounds, background_share, split)
    key = {"split": split, "rows": rows, "size": size, "difficulty": difficulty, "seed": seed, **behind.key()}
    render = partial(_row, split=split, size=size, difficulty=difficulty, seed=seed, behind=behind)

    def build() -> Dataset:
        return drawn_rows(render, rows, FEATURES, f"rendering {split} words")

    return cached_dataset(f"text-{difficulty}-{split}", key, [Path(__file__), Path(background_module.__file__)], build)


def _row(
    row: dict[str, int], *, split: str, size: int, difficulty: Difficulty, seed: int, behind: Backgrounds
) -> dict[str, Any]:
    # The split is part of the seed, so that no two splits share a picture.
    rng = np.random.default_rng([seed, STREAMS[split], row["index"]])
    picture, instances, level = render_words(rng, size=size, difficulty=difficulty, behind=behind)
    return {
        "id": f"{difficulty}-{split}-{seed}-{row['index']}",
        "image": png(picture),
        "width": size,
        "height": size,
        "polygons": [i.points for i in instances],
        "ignore": [i.ignore for i in instances],
        "texts": [i.text for i in instances],
        "split": split,
        "level": level,
    }


def render_words(
    rng: np.random.Generator, *, size: int, difficulty: Difficulty, behind: Backgrounds = NOTHING
) -> tuple[PILImage.Image, list[Instance], int]:
    """One picture, its words with their outlines in pixels of it, and its level; drawn larger and reduced."""
    scale = drawing_scale(size)
    side = size * scale
    plain = difficulty != "rich"
    canvas = behind.piece(rng, side) or _ground(rng, side, plain)
    if plain:
        count = 1 if difficulty == "single" else int(rng.integers(1, 3))
    else:
        count = int(rng.choice([0, 1, 2, 3, 4], p=[0.04, 0.24, 0.28, 0.24, 0.2]))
    occupied: list[shapely.Polygon] = []
    instances: list[Instance] = []
    levels = [0]
    for index in range(count + (not plain and rng.random() < 0.15)):
        small = index == count
        text = _word(rng)
        ink = _ink(text, rng, side, plain, small)
        strip = _free_strip(rng, ink.size, side, plain, small, occupied)
        if strip is None:  # no room for this word; a picture may end with fewer
            continue
        _write(canvas, ink, strip, rng, plain)
        corners = [(x / scale, y / scale) for x, y in strip.outline(5 if strip.bend else 2)]
        instances.append(Instance(corners, DONT_CARE if small else text, ignore=small))
        levels.append(0 if small else 3 if strip.bend else 2 if strip.turn else min(len(instances) - 1, 1))
    if difficulty == "single" and not instances:  # a word too long for the picture
        return render_words(rng, size=size, difficulty=difficulty, behind=behind)
    if not plain and rng.random() < 0.3:
        canvas = canvas.filter(ImageFilter.GaussianBlur(scale * rng.uniform(0.1, 0.4)))
    return canvas.resize((size, size), PILImage.Resampling.BOX), instances, max(levels)


def _ground(rng: np.random.Generator, side: int, plain: bool) -> PILImage.Image:
    if not plain:
        return texture(rng, side)
    low = int(rng.integers(0, 206))
    coarse = rng.integers(low, low + 50, (4, 4, 1), dtype=np.uint8).repeat(3, axis=2)
    return PILImage.fromarray(coarse).resize((side, side), PILImage.Resampling.BICUBIC)


def _word(rng: np.random.Generator) -> str:
    if rng.random() < 0.12:
        return str(int(rng.integers(10, 10000)))
    word = str(rng.choice(WORDS))
    return [word, word.upper(), word.capitalize()][int(rng.integers(3))]


@lru_cache(maxsize=256)
def _font(name: str, height: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", f"{name}.ttf"), height)


def _ink(text: str, rng: np.random.Generator, side: int, plain: bool, small: bool) -> PILImage.Image:
    """The word's coverage (L) on a strip just larger than its ink."""
    height = rng.uniform(0.05, 0.07) if small else rng.uniform(0.18, 0.26) if plain else rng.uniform(0.15, 0.26)
    font = _font("DejaVuSans-Bold" if plain else str(rng.choice(FONTS)), round(side * height))
    left, top, right, bottom = font.getbbox(text)
    pad = PAD * (bottom - top)
    ink = PILImage.new("L", (math.ceil(right - left + 2 * pad), math.ceil(bottom - top + 2 * pad)), 0)
    ImageDraw.Draw(ink).text((pad - left, pad - top), text, fill=255, font=font)
    return ink


def _free_strip(
    rng: np.random.Generator,
    size: tuple[int, int],
    side: int,
    plain: bool,
    small: bool,
    occupied: list[shapely.Polygon],
) -> Strip | None:
    """Random free place for a word, added to `occupied`; None if 40 tries found none."""
    width, height = size
    inside = shapely.box(1, 1, side - 1, side - 1)
    kind = "level" if plain or small else str(rng.choice(["level", "turned", "bent"], p=[0.3, 0.35, 0.35]))
    for _ in range(40):
        turn = bend = 0.0
        if kind != "level":
            turn = rng.uniform(0.1, 0.8 if kind == "turned" else 0.3) * rng.choice([-1, 1])
        if kind == "bent":
            # At most so strongly that the inner edge keeps a third of the outer edge's length.
            bend = min(rng.uniform(0.7, 2.2), width / height) * rng.choice([-1, 1])
        centre = (rng.uniform(0, side), rng.uniform(0, side))
        strip = Strip(float(width), float(height), centre, float(turn), float(bend))
        ground = shapely.Polygon(strip.outline(17))
        if inside.contains(ground) and not any(ground.distance(other) < height * 0.15 for other in occupied):
            occupied.append(ground)
            return strip
    return None


def _write(canvas: PILImage.Image, ink: PILImage.Image, strip: Strip, rng: np.random.Generator, plain: bool) -> None:
    """Draw the word on the canvas, in a colour that contrasts with the background."""
    xs, ys = np.array(strip.outline(17)).T
    # The outline's chords cut off a little of a bent edge, hence the margin.
    left, top = (max(0, math.floor(v.min() - strip.height / 4)) for v in (xs, ys))
    right, bottom = (min(canvas.width, math.ceil(v.max() + strip.height / 4)) for v in (xs, ys))
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    u, v = strip.find(x, y)
    on_strip = (u >= 0) & (u < strip.width) & (v >= 0) & (v < strip.height)
    coverage = np.zeros(on_strip.shape, dtype=np.float32)
    coverage[on_strip] = np.asarray(ink)[v[on_strip].astype(int), u[on_strip].astype(int)] / 255.0
    pixels = np.asarray(canvas.crop((left, top, right, bottom)), dtype=np.float32)
    if not plain and rng.random() < 0.3:
        pixels = np.where(on_strip[..., None], np.array(shade(rng, 0, 255, 40), np.float32), pixels)
    colour = _contrast(rng, float(pixels[on_strip].mean()))
    mixed = pixels + coverage[..., None] * (np.array(colour, np.float32) - pixels)
    canvas.paste(PILImage.fromarray(mixed.round().clip(0, 255).astype(np.uint8)), (left, top))


def _contrast(rng: np.random.Generator, brightness: float) -> Colour:
    """A colour at least about 100 steps brighter or darker."""
    brighter = brightness < 105 or (brightness < 150 and rng.random() < 0.5)
    low, high = (min(int(brightness) + 105, 245), 250) if brighter else (5, max(int(brightness) - 105, 10))
    return shade(rng, low, max(low, high), 20)
