"""Rendered scenes of coloured shapes with expressions that mean exactly one of them.

`single`: one large shape, which only has to be measured; a tiny model learns it in minutes.
`plain`: 2 to 4 shapes, each to be found by its own attributes ("the red circle"). `rich`: 3 to 7 shapes on a textured
ground, where attributes, order and relations are needed ("the leftmost star", "the circle above the blue square").
Every expression is checked against the whole scene: one shape fits it clearly, and no other comes near to fitting.

Columns: as of data.grounding.schema; `level` is 0 for attributes, 1 for an order, 2 for a relation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from datasets import Dataset
from PIL import Image as PILImage
from PIL import ImageDraw

from data.common import backgrounds as background_module
from data.common.backgrounds import NOTHING, Backgrounds, drawing_scale
from data.common.cache import cached_dataset, drawn_rows
from data.common.errors import InvalidOption
from data.common.images import png
from data.common.source import STREAMS, RenderedSource, optional_path
from data.grounding.schema import FEATURES

Difficulty = Literal["single", "plain", "rich"]
COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 150, 60),
    "blue": (45, 80, 210),
    "yellow": (235, 205, 40),
    "purple": (140, 60, 170),
    "orange": (240, 130, 30),
    "black": (25, 25, 25),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
CLEAR = 0.08  # of the picture's side: least distance at which a relation such as "left of" holds or doesn't


class DrawnShape(NamedTuple):
    """Shape of a scene."""

    shape: str
    colour: str
    small: bool
    x: float  # of the centre; all lengths as parts of the picture's side
    y: float
    radius: float


class RenderedScenes(RenderedSource):
    """Source of rendered scenes.

    Args:
        rows: split -> how many.
        difficulty: `single` (one large shape), `plain` (several, meant by attributes) or `rich` (order and relations).
        size: pixels of a side.
        seed: each split has its own stream of it.
        questions: about each scene, in rows that follow each other; they may be alike. null: one.
        backgrounds: a folder of photographs, pieces of which lie behind the shapes; no split has one of another.
        background_share: part of the scenes that have one behind them; null: half.
    """

    def __init__(
        self,
        rows: dict[str, int],
        difficulty: Difficulty = "plain",
        size: int = 64,
        seed: int = 0,
        questions: int | None = None,
        backgrounds: str | None = None,
        background_share: float | None = None,
    ) -> None:
        super().__init__(rows)
        self.backgrounds, self.background_share = optional_path(backgrounds), background_share
        self.difficulty, self.size, self.seed, self.questions = difficulty, size, seed, questions

    def expected_rows_per_picture(self, split: str) -> float | None:
        return float(self.questions or 1)

    def rows(self, split: str) -> Dataset:
        return load(
            split,
            rows=self.count(split),
            size=self.size,
            difficulty=self.difficulty,
            seed=self.seed,
            questions=self.questions,
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
    questions: int | None = None,
    backgrounds: Path | None = None,
    background_share: float | None = None,
) -> Dataset:
    """`rows` questions about scenes of `size` x `size` pixels; row i is the same everywhere.

    Args:
        backgrounds: a folder of photographs; `background_share` of the scenes then have a piece of one behind them.

    Raises:
        InvalidOption: unknown split or difficulty, a size or a number of rows that is too small, too few photographs.
    """
    if split not in STREAMS:
        raise InvalidOption(f"rendered scenes have the splits {sorted(STREAMS)}, not {split!r}")
    if difficulty not in get_args(Difficulty):
        raise InvalidOption(
            f"task.source.difficulty must be one of {', '.join(get_args(Difficulty))}, got {difficulty!r}"
        )
    if rows < 1 or size < 32:
        raise InvalidOption(f"rendered scenes need rows >= 1 and size >= 32, got rows={rows}, size={size}")
    if questions is not None and questions < 1:
        raise InvalidOption(f"task.source.questions must be at least 1, got {questions}")
    asked = questions or 1
    key = {"split": split, "rows": rows, "size": size, "difficulty": difficulty, "seed": seed, "questions": asked}
    behind = Backgrounds.of(backgrounds, background_share, split)
    key |= behind.key()
    render = partial(_row, split=split, size=size, difficulty=difficulty, seed=seed, questions=asked, behind=behind)

    def build() -> Dataset:
        return drawn_rows(render, rows, FEATURES, f"rendering {split} scenes")

    return cached_dataset(
        f"grounding-{difficulty}-{split}", key, [Path(__file__), Path(background_module.__file__)], build
    )


def _row(
    row: dict[str, int],
    *,
    split: str,
    size: int,
    difficulty: Difficulty,
    seed: int,
    questions: int = 1,
    behind: Backgrounds = NOTHING,
) -> dict[str, Any]:
    number, question = divmod(row["index"], questions)
    rng = np.random.default_rng([seed, STREAMS[split], number])
    while True:  # a few scenes of several shapes have no unambiguous expression
        shapes = scene(rng, difficulty)
        expressions = _expressions(shapes, difficulty)
        if expressions:
            break
    # Of several questions each has a stream of its own, so that the picture is the same.
    asks = rng if questions == 1 else np.random.default_rng([seed, STREAMS[split], number, question])
    # The level is drawn first: relations are many and would otherwise dominate.
    level = int(asks.choice(sorted({level for _, _, level in expressions})))
    expression, target, level = [s for s in expressions if s[2] == level][
        int(asks.integers(sum(s[2] == level for s in expressions)))
    ]
    return {
        "id": f"{difficulty}-{split}-{seed}-{row['index']}",
        "image": png(render(shapes, rng, size, difficulty, behind)),
        "width": size,
        "height": size,
        "expression": expression,
        "box": [v * size for v in box_of(shapes[target])],
        "split": split,
        "level": level,
    }


def scene(rng: np.random.Generator, difficulty: Difficulty) -> list[DrawnShape]:
    """Draw shapes that don't overlap. Rich scenes use few kinds and colours, so that places must distinguish them."""
    few = difficulty == "rich"
    fewest, most = {"single": (1, 1), "plain": (2, 4), "rich": (3, 7)}[difficulty]
    count = int(rng.integers(fewest, most + 1))
    shapes = rng.choice(SHAPES, 2, replace=False) if few else SHAPES
    colours = rng.choice(list(COLOURS), 3, replace=False) if few else list(COLOURS)
    larger = 2.0 if difficulty == "single" else 1.0
    placed: list[DrawnShape] = []
    for _ in range(200):
        small = bool(rng.random() < 0.5)
        radius = larger * (rng.uniform(0.06, 0.08) if small else rng.uniform(0.12, 0.15))
        x, y = rng.uniform(radius + 0.01, 0.99 - radius, 2)
        if all(math.hypot(x - t.x, y - t.y) > (radius + t.radius) * 1.1 for t in placed):
            placed.append(DrawnShape(str(rng.choice(shapes)), str(rng.choice(colours)), small, x, y, radius))
        if len(placed) == count:
            break
    return placed


def _expressions(shapes: list[DrawnShape], difficulty: Difficulty) -> list[tuple[str, int, int]]:
    """(expression, index of the shape meant, level), all that hold."""
    expressions = [(f"the {_name(shapes, i)}", i, 0) for i in range(len(shapes)) if _name(shapes, i)]
    if difficulty != "rich":
        return expressions
    return expressions + _by_order(shapes) + _by_relation(shapes)


def _name(shapes: list[DrawnShape], target: int) -> str | None:
    """The shortest description by attributes that fits no other shape: star, red star, small star, small red star."""
    forms: list[Callable[[DrawnShape], str]] = [
        lambda t: t.shape,
        lambda t: f"{t.colour} {t.shape}",
        lambda t: f"{'small' if t.small else 'large'} {t.shape}",
        lambda t: f"{'small' if t.small else 'large'} {t.colour} {t.shape}",
    ]
    names = ([form(t) for t in shapes] for form in forms)
    return next((n[target] for n in names if n.count(n[target]) == 1), None)


def _by_order(shapes: list[DrawnShape]) -> list[tuple[str, int, int]]:
    expressions = []
    for shape in {t.shape: None for t in shapes}:
        same = [i for i, t in enumerate(shapes) if t.shape == shape]
        orders: dict[str, Callable[[int], float]] = {
            "leftmost": lambda i: -shapes[i].x,
            "rightmost": lambda i: shapes[i].x,
            "topmost": lambda i: -shapes[i].y,
            "lowest": lambda i: shapes[i].y,
        }
        for word, key in orders.items():
            ranked = sorted(same, key=key, reverse=True)
            if len(ranked) > 1 and key(ranked[0]) - key(ranked[1]) >= CLEAR:
                expressions.append((f"the {word} {shape}", ranked[0], 1))
    return expressions


def _by_relation(shapes: list[DrawnShape]) -> list[tuple[str, int, int]]:
    """Expressions (as in `_expressions`) for the only shape of its kind on one side of a shape that has a name."""
    expressions = []
    sides: dict[str, Callable[[DrawnShape, DrawnShape], float]] = {
        "left of": lambda t, anchor: anchor.x - t.x,
        "right of": lambda t, anchor: t.x - anchor.x,
        "above": lambda t, anchor: anchor.y - t.y,
        "below": lambda t, anchor: t.y - anchor.y,
    }
    for index, anchor in enumerate(shapes):
        name = _name(shapes, index)
        for shape in {t.shape: None for t in shapes} if name else {}:
            others = [i for i, t in enumerate(shapes) if t.shape == shape and i != index]
            for relation, by in sides.items():
                far = [by(shapes[i], anchor) for i in others]
                fits = [i for i, distance in zip(others, far, strict=True) if distance >= CLEAR]
                unclear = any(-CLEAR < distance < CLEAR for distance in far)
                if len(others) > 1 and len(fits) == 1 and not unclear:
                    expressions.append((f"the {shape} {relation} the {name}", fits[0], 2))
    return expressions


def box_of(shape: DrawnShape) -> tuple[float, float, float, float]:
    """Smallest box around the shape as drawn, in parts of the picture's side."""
    xs, ys = zip(*_outline(shape), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _outline(shape: DrawnShape) -> list[tuple[float, float]]:
    def at(turn: float, reach: float = 1.0) -> tuple[float, float]:
        angle = 2 * math.pi * turn
        return shape.x + shape.radius * reach * math.sin(angle), shape.y - shape.radius * reach * math.cos(angle)

    if shape.shape == "circle":
        return [at(i / 72) for i in range(72)]
    if shape.shape == "star":
        return [at(i / 10, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
    if shape.shape == "cross":
        arm = 0.32
        steps = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
        steps += [(arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm)]
        return [(shape.x + shape.radius * dx, shape.y + shape.radius * dy) for dx, dy in steps]
    if shape.shape == "square":
        return [at((i + 0.5) / 4) for i in range(4)]
    return [at(i / (3 if shape.shape == "triangle" else 4)) for i in range(3 if shape.shape == "triangle" else 4)]


def render(
    shapes: list[DrawnShape],
    rng: np.random.Generator,
    size: int,
    difficulty: Difficulty,
    behind: Backgrounds = NOTHING,
) -> PILImage.Image:
    """The picture of a scene, of `size` pixels a side, on a ground drawn from `rng`."""
    side = size * drawing_scale(size)
    canvas = behind.piece(rng, side) or _ground(rng, side, difficulty)
    draw = ImageDraw.Draw(canvas)
    for shape in shapes:
        colour = tuple(int(v) for v in np.clip(np.array(COLOURS[shape.colour]) + rng.integers(-12, 13, 3), 0, 255))
        draw.polygon([(x * side, y * side) for x, y in _outline(shape)], fill=colour)
    return canvas.resize((size, size), PILImage.Resampling.BOX)


def _ground(rng: np.random.Generator, side: int, difficulty: Difficulty) -> PILImage.Image:
    """Greys between the colours of the shapes, so that black and white shapes both stand out."""
    low, high = (115, 185) if difficulty == "rich" else (135, 165)
    coarse = rng.integers(low, high, (4, 4, 1), dtype=np.uint8) + rng.integers(0, 12, (4, 4, 3), dtype=np.uint8)
    return PILImage.fromarray(coarse).resize((side, side), PILImage.Resampling.BICUBIC)
