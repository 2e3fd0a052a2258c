"""Rendered scenes of coloured shapes with expressions that mean exactly one of them.

`single`: one large shape that only has to be measured: what a tiny model learns in minutes.
`plain`: 2 to 4 shapes, each to be found by its own attributes ("the red circle"). `rich`: 3 to 7 shapes on a textured
ground, where attributes, order and relations are needed ("the leftmost star", "the circle above the blue square").
Every expression is checked against the whole scene: one shape fits it clearly, and no other comes near to fitting.

Columns: as of data.grounding_rows; `level` is 0 for attributes, 1 for an order, 2 for a relation.
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

from data.cache import cached_dataset
from data.grounding_rows import FEATURES
from data.pictures import png

Difficulty = Literal["single", "plain", "rich"]
SPLITS = {"train": 0, "validation": 1, "test": 2}
SUPERSAMPLE = 4
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
CLEAR = 0.08  # of the picture's side: how far apart "left of" must be to be said, or denied


class Thing(NamedTuple):
    shape: str
    colour: str
    small: bool
    x: float  # of the centre; all lengths as parts of the picture's side
    y: float
    radius: float


def load(split: str, *, rows: int, size: int = 64, difficulty: Difficulty = "plain", seed: int = 0) -> Dataset:
    """`rows` scenes of `size` x `size` pixels; row i is the same everywhere.

    Raises:
        ValueError: unknown split or difficulty, or a size or a number of rows that is too small.
    """
    if split not in SPLITS:
        raise ValueError(f"rendered scenes have the splits {sorted(SPLITS)}, not {split!r}")
    if difficulty not in get_args(Difficulty):
        raise ValueError(f"task.difficulty must be one of {', '.join(get_args(Difficulty))}, got {difficulty!r}")
    if rows < 1 or size < 32:
        raise ValueError(f"rendered scenes need rows >= 1 and size >= 32, got rows={rows}, size={size}")
    key = {"split": split, "rows": rows, "size": size, "difficulty": difficulty, "seed": seed}
    render = partial(_row, split=split, size=size, difficulty=difficulty, seed=seed)

    def build() -> Dataset:
        index = Dataset.from_dict({"index": list(range(rows))})
        workers = 2 if rows >= 2000 else None
        title = f"rendering {split} scenes"
        return index.map(render, remove_columns=["index"], features=FEATURES, num_proc=workers, desc=title)

    return cached_dataset(f"grounding-{difficulty}-{split}", key, [Path(__file__)], build)


def _row(row: dict[str, int], *, split: str, size: int, difficulty: Difficulty, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, SPLITS[split], row["index"]])
    while True:  # nearly every scene of several shapes has something to say; a few have not
        things = _scene(rng, difficulty)
        said = _expressions(things, difficulty)
        if said:
            break
    # First the kind, then one of that kind, or relations, which are many, would crowd out the rest.
    level = int(rng.choice(sorted({level for _, _, level in said})))
    expression, meant, level = [s for s in said if s[2] == level][int(rng.integers(sum(s[2] == level for s in said)))]
    return {
        "id": f"{difficulty}-{split}-{seed}-{row['index']}",
        "image": png(_render(things, rng, size, difficulty)),
        "width": size,
        "height": size,
        "expression": expression,
        "box": [v * size for v in box_of(things[meant])],
        "split": split,
        "level": level,
    }


def _scene(rng: np.random.Generator, difficulty: Difficulty) -> list[Thing]:
    """Shapes that don't overlap. Rich scenes use few kinds and colours, so that shapes are told apart by place."""
    few = difficulty == "rich"
    fewest, most = {"single": (1, 1), "plain": (2, 4), "rich": (3, 7)}[difficulty]
    wanted = int(rng.integers(fewest, most + 1))
    shapes = rng.choice(SHAPES, 2, replace=False) if few else SHAPES
    colours = rng.choice(list(COLOURS), 3, replace=False) if few else list(COLOURS)
    larger = 2.0 if difficulty == "single" else 1.0
    things: list[Thing] = []
    for _ in range(200):
        small = bool(rng.random() < 0.5)
        radius = larger * (rng.uniform(0.06, 0.08) if small else rng.uniform(0.12, 0.15))
        x, y = rng.uniform(radius + 0.01, 0.99 - radius, 2)
        if all(math.hypot(x - t.x, y - t.y) > (radius + t.radius) * 1.1 for t in things):
            things.append(Thing(str(rng.choice(shapes)), str(rng.choice(colours)), small, x, y, radius))
        if len(things) == wanted:
            break
    return things


def _expressions(things: list[Thing], difficulty: Difficulty) -> list[tuple[str, int, int]]:
    """(expression, index of the shape meant, level), all that hold."""
    said = [(f"the {_name(things, i)}", i, 0) for i in range(len(things)) if _name(things, i)]
    if difficulty != "rich":
        return said
    return said + _by_order(things) + _by_relation(things)


def _name(things: list[Thing], meant: int) -> str | None:
    """The shortest description by attributes that fits no other shape: star, red star, small star, small red star."""
    forms: list[Callable[[Thing], str]] = [
        lambda t: t.shape,
        lambda t: f"{t.colour} {t.shape}",
        lambda t: f"{'small' if t.small else 'large'} {t.shape}",
        lambda t: f"{'small' if t.small else 'large'} {t.colour} {t.shape}",
    ]
    names = ([form(t) for t in things] for form in forms)
    return next((n[meant] for n in names if n.count(n[meant]) == 1), None)


def _by_order(things: list[Thing]) -> list[tuple[str, int, int]]:
    said = []
    for shape in {t.shape: None for t in things}:
        same = [i for i, t in enumerate(things) if t.shape == shape]
        orders: dict[str, Callable[[int], float]] = {
            "leftmost": lambda i: -things[i].x,
            "rightmost": lambda i: things[i].x,
            "topmost": lambda i: -things[i].y,
            "lowest": lambda i: things[i].y,
        }
        for word, key in orders.items():
            ranked = sorted(same, key=key, reverse=True)
            if len(ranked) > 1 and key(ranked[0]) - key(ranked[1]) >= CLEAR:
                said.append((f"the {word} {shape}", ranked[0], 1))
    return said


def _by_relation(things: list[Thing]) -> list[tuple[str, int, int]]:
    """Shapes that share their kind with others and alone stand on one side of a shape that has a name."""
    said = []
    sides: dict[str, Callable[[Thing, Thing], float]] = {
        "left of": lambda t, anchor: anchor.x - t.x,
        "right of": lambda t, anchor: t.x - anchor.x,
        "above": lambda t, anchor: anchor.y - t.y,
        "below": lambda t, anchor: t.y - anchor.y,
    }
    for place, anchor in enumerate(things):
        name = _name(things, place)
        for shape in {t.shape: None for t in things} if name else {}:
            rivals = [i for i, t in enumerate(things) if t.shape == shape and i != place]
            for words, by in sides.items():
                far = [by(things[i], anchor) for i in rivals]
                fits = [i for i, distance in zip(rivals, far, strict=True) if distance >= CLEAR]
                unclear = any(-CLEAR < distance < CLEAR for distance in far)
                if len(rivals) > 1 and len(fits) == 1 and not unclear:
                    said.append((f"the {shape} {words} the {name}", fits[0], 2))
    return said


def box_of(thing: Thing) -> tuple[float, float, float, float]:
    """The box that just holds the shape as drawn, as parts of the picture's side."""
    xs, ys = zip(*_outline(thing), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _outline(thing: Thing) -> list[tuple[float, float]]:
    def at(turn: float, reach: float = 1.0) -> tuple[float, float]:
        angle = 2 * math.pi * turn
        return thing.x + thing.radius * reach * math.sin(angle), thing.y - thing.radius * reach * math.cos(angle)

    if thing.shape == "circle":
        return [at(i / 72) for i in range(72)]
    if thing.shape == "star":
        return [at(i / 10, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
    if thing.shape == "cross":
        arm = 0.32
        steps = [(-arm, -1), (arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm)]
        steps += [(arm, 1), (-arm, 1), (-arm, arm), (-1, arm), (-1, -arm), (-arm, -arm)]
        return [(thing.x + thing.radius * dx, thing.y + thing.radius * dy) for dx, dy in steps]
    if thing.shape == "square":
        return [at((i + 0.5) / 4) for i in range(4)]
    return [at(i / (3 if thing.shape == "triangle" else 4)) for i in range(3 if thing.shape == "triangle" else 4)]


def _render(things: list[Thing], rng: np.random.Generator, size: int, difficulty: Difficulty) -> PILImage.Image:
    side = size * SUPERSAMPLE
    # Greys between the colours of the shapes, so that black and white shapes both stand out.
    low, high = (115, 185) if difficulty == "rich" else (135, 165)
    coarse = rng.integers(low, high, (4, 4, 1), dtype=np.uint8) + rng.integers(0, 12, (4, 4, 3), dtype=np.uint8)
    canvas = PILImage.fromarray(coarse).resize((side, side), PILImage.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    for thing in things:
        colour = tuple(int(v) for v in np.clip(np.array(COLOURS[thing.colour]) + rng.integers(-12, 13, 3), 0, 255))
        draw.polygon([(x * side, y * side) for x, y in _outline(thing)], fill=colour)
    return canvas.resize((size, size), PILImage.Resampling.BOX)
