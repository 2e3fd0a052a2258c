"""Rendered figures with a question and an exact answer: bar, line and pie charts, functions, rulers, gauges, counting.

Every answer can be read off exactly: values lie on marks, or halfway between two. `plain` has one scale and one
question form per figure; `rich` has more scales, series, colours and questions that need two readings. A quarter of the
questions gives four choices. Row i of a split is the same picture on every machine.

Columns: as of data.mathvista.schema. `level`: 0 one value on a mark, 1 one value between marks, below zero or with
decimals, 2 more than one reading (a difference, a sum, a comparison).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image as PILImage
from PIL import ImageDraw, ImageFont

from data.common.cache import cached_dataset, drawn_rows
from data.common.errors import InvalidOption
from data.common.images import png
from data.common.source import STREAMS, RenderedSource
from data.mathvista import schema
from data.mathvista.schema import FEATURES, checked

Difficulty = Literal["plain", "rich"]
COLOURS = {
    "red": (214, 48, 49),
    "green": (39, 150, 70),
    "blue": (45, 90, 215),
    "orange": (243, 140, 30),
    "purple": (145, 65, 175),
    "black": (30, 30, 30),
}
INK = (25, 25, 25)
GRID = (200, 200, 200)


class Asked(NamedTuple):
    """Question about a figure; the answer is a number, or the name of a colour."""

    question: str
    answer: Decimal | str
    level: int
    others: Sequence[Decimal | str] = ()  # wrong choices, the near ones first
    decimals: int = 0
    unit: str | None = None


class RenderedFigures(RenderedSource):
    """Source of rendered figures.

    Args:
        rows: split -> how many.
        kinds: of bar, line, pie, function, ruler, gauge, count; null: all.
        difficulty: `plain` or `rich`.
        size: pixels of a side, 64 and more.
        seed: each split has its own stream of it.
    """

    def __init__(
        self,
        rows: dict[str, int],
        kinds: list[str] | None = None,
        difficulty: Difficulty = "plain",
        size: int = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(rows)
        self.kinds, self.difficulty, self.size, self.seed = kinds, difficulty, size, seed

    def rows(self, split: str) -> Dataset:
        return load(
            split,
            rows=self.count(split),
            size=self.size,
            difficulty=self.difficulty,
            seed=self.seed,
            kinds=self.kinds,
        )


def load(
    split: str,
    *,
    rows: int,
    size: int = 64,
    difficulty: Difficulty = "plain",
    seed: int = 0,
    kinds: Sequence[str] | None = None,
) -> Dataset:
    """`rows` figures of `size` x `size` pixels, of the given kinds (all).

    Raises:
        InvalidOption: an unknown split, difficulty or kind, or a size or a number of rows that is too small.
    """
    if split not in STREAMS:
        raise InvalidOption(f"rendered figures have the splits {sorted(STREAMS)}, not {split!r}")
    if difficulty not in ("plain", "rich"):
        raise InvalidOption(f"task.source.difficulty must be 'plain' or 'rich', got {difficulty!r}")
    chosen = list(kinds or KINDS)
    if unknown := [kind for kind in chosen if kind not in KINDS]:
        raise InvalidOption(f"task.source.kinds: {unknown[0]!r} is none of {', '.join(KINDS)}")
    if rows < 1 or size < 64:
        raise InvalidOption(f"rendered figures need rows >= 1 and size >= 64, got rows={rows}, size={size}")
    key = {"split": split, "rows": rows, "size": size, "difficulty": difficulty, "seed": seed, "kinds": chosen}
    render = partial(_row, split=split, size=size, difficulty=difficulty, seed=seed, kinds=chosen)

    def build() -> Dataset:
        return drawn_rows(render, rows, FEATURES, f"rendering {split} figures")

    sources = [Path(__file__), Path(schema.__file__)]
    return cached_dataset(f"figures-{difficulty}-{split}", key, sources, build)


class Sheet:
    """A square picture in lengths of its side, drawn larger and reduced; text is set at the final size, so it is crisp.

    Everything is shrunk and moved a little at random, so that no two figures of the same values are the same picture.
    """

    def __init__(self, size: int, ground: tuple[int, int, int], rng: np.random.Generator) -> None:
        self.zoom = rng.uniform(0.92, 1.0)
        self.shift = rng.uniform(0, 1 - self.zoom, 2)
        self.size, self.side = size, size * (4 if size <= 128 else 2)
        self.image = PILImage.new("RGB", (self.side, self.side), ground)
        self.pen = ImageDraw.Draw(self.image)
        self.texts: list[tuple[float, float, str, str]] = []

    def line(self, points: Sequence[tuple[float, float]], ink: tuple[int, int, int], width: float = 0.012) -> None:
        self.pen.line([self._at(p) for p in points], fill=ink, width=max(1, round(width * self.side)), joint="curve")

    def box(self, x1: float, y1: float, x2: float, y2: float, fill: tuple[int, int, int]) -> None:
        self.pen.rectangle([*self._at((x1, y1)), *self._at((x2, y2))], fill=fill)

    def shape(self, points: Sequence[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        self.pen.polygon([self._at(p) for p in points], fill=fill)

    def dot(self, x: float, y: float, radius: float, fill: tuple[int, int, int]) -> None:
        self.pen.ellipse([*self._at((x - radius, y - radius)), *self._at((x + radius, y + radius))], fill=fill)

    def sector(self, x: float, y: float, radius: float, start: float, end: float, fill: tuple[int, int, int]) -> None:
        """Turns from twelve o'clock, clockwise."""
        box = [*self._at((x - radius, y - radius)), *self._at((x + radius, y + radius))]
        self.pen.pieslice(box, start * 360 - 90, end * 360 - 90, fill=fill)

    def text(self, x: float, y: float, text: str, anchor: str = "mm") -> None:
        self.texts.append((x, y, text, anchor))

    def finished(self) -> PILImage.Image:
        image = self.image.resize((self.size, self.size), PILImage.Resampling.BOX)
        pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=max(8.0, self.size / 11))
        for x, y, text, anchor in self.texts:
            x, y = (float(v) / self.side * self.size for v in self._at((x, y)))
            pen.text((x, y), text, fill=INK, font=font, anchor=anchor)
        return image

    def _at(self, point: tuple[float, float]) -> tuple[float, float]:
        x, y = (v * self.zoom + shift for v, shift in zip(point, self.shift, strict=True))
        return x * self.side, y * self.side


def _row(
    row: dict[str, int], *, split: str, size: int, difficulty: Difficulty, seed: int, kinds: Sequence[str]
) -> dict[str, Any]:
    rng = np.random.default_rng([seed, STREAMS[split], row["index"]])
    kind = kinds[int(rng.integers(len(kinds)))]
    rich = difficulty == "rich"
    ground = tuple(int(v) for v in rng.integers(222 if rich else 244, 256, 3))
    sheet = Sheet(size, ground, rng)  # type: ignore[arg-type]
    question = KINDS[kind](sheet, rng, rich)
    name = f"{difficulty}-{split}-{seed}-{row['index']}"
    metadata = {"task": TASK_OF[kind], "context": CONTEXT_OF[kind], "skills": [SKILL_OF[kind]]}
    return checked(
        {
            "id": name,
            "image": png(sheet.finished()),
            "question": question.question,
            "unit": question.unit,
            "level": question.level,
            "source": f"rendered {kind}",
            "category": "rendered",
            "language": "english",
            "grade": "not applicable",
            **metadata,
            **_answer(question, rng),
        },
        name,
    )


def _answer(question: Asked, rng: np.random.Generator) -> dict[str, Any]:
    """Columns of the answer: a choice where it is a name, and at random in a quarter of others; else a number."""
    answer = _written(question.answer, question.decimals)
    distractors = list(dict.fromkeys(_written(other, question.decimals) for other in question.others))
    distractors = [other for other in distractors if other != answer][:3]
    if isinstance(question.answer, str) or (len(distractors) == 3 and rng.random() < 0.25):
        choices = [answer, *distractors]
        order = rng.permutation(len(choices))
        choices = [choices[i] for i in order]
        return {"choices": choices, "answer": answer, "question_type": "multi_choice", "answer_type": "text"}
    kind = "float" if question.decimals else "integer"
    precision = question.decimals or None
    # The taught text has all its decimals; the compared one is written by Python, as in the official scoring.
    compared = str(round(float(answer), question.decimals)) if question.decimals else answer
    return {
        "answer": compared,
        "target": answer,
        "precision": precision,
        "question_type": "free_form",
        "answer_type": kind,
    }


def _written(answer: Decimal | str, decimals: int) -> str:
    return answer if isinstance(answer, str) else f"{answer:.{decimals}f}"


def _pick(rng: np.random.Generator, items: Sequence[Any], count: int) -> list[Any]:
    return [items[int(i)] for i in rng.permutation(len(items))[:count]]


def _near(
    value: Decimal,
    step: Decimal,
    rng: np.random.Generator,
    lowest: Decimal | None = None,
    highest: Decimal | None = None,
) -> list[Decimal]:
    """Values a step or two away that the figure could show, in any order."""
    near = [value + step * k for k in (-2, -1, 1, 2, 3, 4, -3, -4)]
    in_range = [v for v in near if (lowest is None or v >= lowest) and (highest is None or v <= highest)][:4]
    return _pick(rng, in_range, len(in_range))


class Axis(NamedTuple):
    """A scale drawn from `low` to `high` with a mark every `step` and a number at every `label`-th mark."""

    low: int
    high: int
    step: int
    label: int


def _axis(rng: np.random.Generator, rich: bool) -> Axis:
    axes = (
        [Axis(0, 10, 2, 1), Axis(0, 20, 4, 1), Axis(0, 50, 10, 1), Axis(0, 100, 20, 1)] if rich else [Axis(0, 10, 2, 1)]
    )
    return axes[int(rng.integers(len(axes)))]


LEFT, RIGHT, TOP, BOTTOM = 0.22, 0.97, 0.07, 0.86


def _height(value: float, axis: Axis) -> float:
    return BOTTOM - (value - axis.low) / (axis.high - axis.low) * (BOTTOM - TOP)


def _frame(sheet: Sheet, axis: Axis) -> None:
    for number, value in enumerate(range(axis.low, axis.high + 1, axis.step)):
        y = _height(value, axis)
        sheet.line([(LEFT, y), (RIGHT, y)], GRID, 0.008)
        sheet.line([(LEFT - 0.02, y), (LEFT, y)], INK)
        if number % axis.label == 0:
            sheet.text(LEFT - 0.04, y, str(value), "rm")
    sheet.line([(LEFT, TOP), (LEFT, BOTTOM), (RIGHT, BOTTOM)], INK)


def _values(rng: np.random.Generator, axis: Axis, count: int) -> list[int]:
    """Different values on marks or halfway between them, none of them zero."""
    half = axis.step // 2
    return [int(v) * half for v in rng.permutation(np.arange(1, (axis.high - axis.low) // half + 1))[:count]]


def _bar(sheet: Sheet, rng: np.random.Generator, rich: bool) -> Asked:
    axis, count = _axis(rng, rich), int(rng.integers(3, 6))
    colours, values = _pick(rng, list(COLOURS), count), _values(rng, axis, count)
    _frame(sheet, axis)
    slot = (RIGHT - LEFT) / count
    for index, (colour, value) in enumerate(zip(colours, values, strict=True)):
        x = LEFT + slot * (index + 0.18)
        sheet.box(x, _height(value, axis), x + slot * 0.64, BOTTOM, COLOURS[colour])
    return _of_series(colours, values, axis, "bar", rng, rich)


def _of_series(
    names: Sequence[str], values: Sequence[int], axis: Axis, word: str, rng: np.random.Generator, rich: bool
) -> Asked:
    """A question about named values: one of them, the largest or smallest one, or two together."""
    form = rng.choice(["value", "extreme", "difference", "sum"], p=[0.5, 0.2, 0.15, 0.15] if rich else [0.8, 0.2, 0, 0])
    half = Decimal(axis.step) / 2
    if form == "extreme":
        best, say = (max, "largest") if rng.random() < 0.5 else (min, "smallest")
        right = names[values.index(best(values))]
        return Asked(f"Which {word} is the {say}?", right, 2, [n for n in names if n != right])
    first, second = (int(i) for i in rng.permutation(len(values))[:2])
    if form == "value":
        value = Decimal(values[first])
        on_mark = values[first] % axis.step == 0
        return Asked(
            f"What is the value of the {names[first]} {word}?",
            value,
            int(not on_mark),
            _near(value, half, rng, half, Decimal(axis.high)),
        )
    if form == "sum":
        value = Decimal(values[first] + values[second])
        question = f"What is the sum of the {names[first]} and the {names[second]} {word}?"
        return Asked(question, value, 2, _near(value, half, rng, half))
    low, high = sorted((first, second), key=lambda i: values[i])
    value = Decimal(values[high] - values[low])
    question = f"How much larger is the {names[high]} {word} than the {names[low]} {word}?"
    return Asked(question, value, 2, _near(value, half, rng, half))


def _line(sheet: Sheet, rng: np.random.Generator, rich: bool) -> Asked:
    axis, count = _axis(rng, rich), 5
    _frame(sheet, axis)
    xs = [LEFT + (RIGHT - LEFT) * (index + 0.5) / count for index in range(count)]
    for index, x in enumerate(xs):
        sheet.line([(x, BOTTOM), (x, BOTTOM + 0.02)], INK)
        sheet.line([(x, TOP), (x, BOTTOM)], GRID, 0.006)
        sheet.text(x, BOTTOM + 0.08, str(index + 1))
    colours = _pick(rng, list(COLOURS), 2 if rich and rng.random() < 0.5 else 1)
    series = [_values(rng, axis, count) for _ in colours]
    for colour, values in zip(colours, series, strict=True):
        points = [(x, _height(v, axis)) for x, v in zip(xs, values, strict=True)]
        sheet.line(points, COLOURS[colour], 0.02)
        for x, y in points:
            sheet.dot(x, y, 0.028, COLOURS[colour])
    chosen, index = int(rng.integers(len(colours))), int(rng.integers(count))
    values, of_line = series[chosen], f" of the {colours[chosen]} line" if len(colours) > 1 else ""
    half = Decimal(axis.step) / 2
    if rich and rng.random() < 0.3:
        value = Decimal(max(values) - min(values))
        return Asked(f"What is the largest minus the smallest value{of_line}?", value, 2, _near(value, half, rng, half))
    if rng.random() < 0.2:
        best, word = (max, "largest") if rng.random() < 0.5 else (min, "smallest")
        where = Decimal(values.index(best(values)) + 1)
        distractors = [Decimal(p + 1) for p in range(count)]
        return Asked(f"At which x is the value{of_line} {word}?", where, 2, _pick(rng, distractors, count))
    value, on_mark = Decimal(values[index]), values[index] % axis.step == 0
    return Asked(
        f"What is the value{of_line} at x = {index + 1}?",
        value,
        int(not on_mark),
        _near(value, half, rng, half, Decimal(axis.high)),
    )


def _pie(sheet: Sheet, rng: np.random.Generator, rich: bool) -> Asked:
    """Slices in whole tenths (rich: twentieths), with a mark round the rim for every tenth."""
    count, grain = int(rng.integers(3, 6 if rich else 5)), 20 if rich else 10
    cuts = sorted(int(c) for c in rng.choice(np.arange(1, grain), count - 1, replace=False))
    parts = [b - a for a, b in zip([0, *cuts], [*cuts, grain], strict=True)]
    colours = _pick(rng, list(COLOURS), count)
    centre, radius, turn = 0.5, 0.40, 0.0
    for colour, part in zip(colours, parts, strict=True):
        sheet.sector(centre, centre, radius, turn, turn + part / grain, COLOURS[colour])
        turn += part / grain
    for mark in range(10):
        ends = [_around(mark / 10, reach, centre) for reach in (radius + 0.015, radius + (0.06 if mark % 5 else 0.09))]
        sheet.line(ends, INK, 0.015)
    percents = [part * 100 // grain for part in parts]
    if rich and rng.random() < 0.3:
        first, second = (int(i) for i in rng.permutation(count)[:2])
        value = Decimal(percents[first] + percents[second])
        question = f"What percentage are {colours[first]} and {colours[second]} together?"
        return Asked(question, value, 2, _near(value, Decimal(5), rng, Decimal(5)))
    if rng.random() < 0.15 and len(set(percents)) == count:
        right = colours[percents.index(max(percents))]
        return Asked("Which slice is the largest?", right, 2, [c for c in colours if c != right])
    index = int(rng.integers(count))
    value = Decimal(percents[index])
    near = _near(value, Decimal(100) / grain, rng, Decimal(5))
    return Asked(f"What percentage is {colours[index]}?", value, int(percents[index] % 10 != 0), near)


def _around(turn: float, reach: float, centre: float = 0.5, middle: float | None = None) -> tuple[float, float]:
    angle = 2 * math.pi * turn
    return centre + reach * math.sin(angle), (centre if middle is None else middle) - reach * math.cos(angle)


def _function(sheet: Sheet, rng: np.random.Generator, rich: bool) -> Asked:
    """A straight line or (rich) a parabola through grid points of -4..4."""
    scale = 0.105

    def at(x: float, y: float) -> tuple[float, float]:
        return 0.5 + x * scale, 0.5 - y * scale

    for tick in range(-4, 5):
        for ends in (((tick, -4), (tick, 4)), ((-4, tick), (4, tick))):
            sheet.line([at(*p) for p in ends], INK if tick == 0 else GRID, 0.014 if tick == 0 else 0.007)
    for tick in (-4, -2, 2, 4):
        sheet.text(*_moved(at(tick, 0), 0, 0.055), str(tick))
        sheet.text(*_moved(at(0, tick), -0.03, 0), str(tick), "rm")
    curve, integer_points, question_of = _curve(rng, rich)
    xs = [x for x in np.linspace(-4, 4, 161) if -4 <= curve(x) <= 4]
    colour = COLOURS[str(rng.choice(["red", "blue", "green", "purple"]))]
    sheet.line([at(x, curve(x)) for x in xs], colour, 0.022)
    if question_of is not None and rng.random() < 0.4:
        question, answer, distractors = question_of
        return Asked(question, answer, 2, distractors)
    x = integer_points[int(rng.integers(len(integer_points)))]
    value = Decimal(round(curve(x)))
    return Asked(f"What is y at x = {x}?", value, int(value < 0 or x < 0), _near(value, Decimal(1), rng))


def _curve(
    rng: np.random.Generator, rich: bool
) -> tuple[Callable[[float], float], list[int], tuple[str, Decimal, list[Decimal]] | None]:
    """A function, the whole x where its value is whole and on the grid, and a question about its form."""
    if rich and rng.random() < 0.5:
        top, x0, sign = int(rng.integers(-3, 4)), int(rng.integers(-2, 3)), int(rng.choice([-1, 1]))
        top = -abs(top) if sign > 0 else abs(top)  # leaves room for its arms

        def parabola(x: float) -> float:
            return top + sign * (x - x0) ** 2

        word = "smallest" if sign > 0 else "largest"
        question = (f"What is the {word} value of y?", Decimal(top), _near(Decimal(top), Decimal(1), rng))
        return parabola, [x for x in range(-4, 5) if -4 <= parabola(x) <= 4], question
    while True:
        slope, rise = int(rng.choice([-2, -1, 1, 2])), int(rng.integers(-3, 4))
        integer_points = [x for x in range(-4, 5) if -4 <= slope * x + rise <= 4]
        if len(integer_points) >= 3:
            break
    question = ("What is the slope of the line?", Decimal(slope), [Decimal(s) for s in (-2, -1, 1, 2, 3)])
    return (lambda x: slope * x + rise), integer_points, question if rich else None


def _moved(point: tuple[float, float], dx: float, dy: float) -> tuple[float, float]:
    return point[0] + dx, point[1] + dy


def _ruler(sheet: Sheet, rng: np.random.Generator, rich: bool) -> Asked:
    """A bar over a ruler: halves of a centimetre, or (rich) fifths, and not always starting at zero."""
    length, parts = (5, 2) if not rich else (4, 5)
    left, unit = 0.08, 0.84 / length
    sheet.box(left - 0.05, 0.50, left + 0.84 + 0.05, 0.86, (246, 222, 150))
    for mark in range(length * parts + 1):
        x = left + mark * unit / parts
        sheet.line([(x, 0.50), (x, 0.66 if mark % parts == 0 else 0.57)], INK, 0.012)
        if mark % parts == 0:
            sheet.text(x, 0.76, str(mark // parts))
    start = int(rng.integers(0, length * parts // 2)) if rich else 0
    marks = int(rng.integers(1, length * parts + 1 - start))
    name = str(rng.choice(list(COLOURS)))
    thick = rng.uniform(0.12, 0.22)
    sheet.box(left + start * unit / parts, 0.47 - thick, left + (start + marks) * unit / parts, 0.47, COLOURS[name])
    value = Decimal(marks) / parts
    question = f"How long is the {name} bar, to one decimal place?"
    level = 2 if start else int(marks % parts != 0)
    step = Decimal(1) / parts
    return Asked(question, value, level, _near(value, step, rng, step), decimals=1, unit="cm")


def _gauge(sheet: Sheet, rng: np.random.Generator, rich: bool) -> Asked:
    """A dial of three quarters of a turn with its pointer on a mark or halfway between two."""
    scales = [(Decimal(10), 0), (Decimal(1), 1), (Decimal(100), 0), (Decimal(20), 0), (Decimal(5), 1)]
    high, decimals = scales[int(rng.integers(len(scales)))] if rich else scales[int(rng.integers(2))]
    marks = 10
    fine = 2 if high != 1 and (rich or high == 10) and high / marks / 2 % 1 == 0 else 1
    steps = int(rng.integers(0, marks * fine + 1))
    value = high * steps / (marks * fine)
    centre, middle, radius = 0.5, 0.53, 0.40
    sheet.dot(centre, middle, radius + 0.04, INK)
    sheet.dot(centre, middle, radius + 0.015, (252, 252, 252))

    def turn(part: float) -> float:
        return -0.375 + 0.75 * part

    for mark in range(marks + 1):
        reach = 0.30 if mark % 5 == 0 else 0.34
        ends = [_around(turn(mark / marks), r, centre, middle) for r in (reach, radius - 0.01)]
        sheet.line(ends, INK, 0.022 if mark % 5 == 0 else 0.014)
        if mark % 5 == 0:
            sheet.text(*_around(turn(mark / marks), 0.20, centre, middle), _written(high * mark / marks, decimals))
    pointer = turn(steps / (marks * fine))
    colour = COLOURS["red"] if not rich else COLOURS[str(rng.choice(["red", "blue", "green"]))]
    sheet.line([(centre, middle), _around(pointer, 0.37, centre, middle)], colour, 0.028)
    sheet.dot(centre, middle, 0.045, colour)
    where = " to one decimal place" if decimals else ""
    step = high / (marks * fine)
    level = int(steps % fine != 0 or decimals > 0)
    question = f"What does the gauge read{',' + where if where else ''}?"
    return Asked(question, value, level, _near(value, step, rng, Decimal(0), high), decimals=decimals)


def _count(sheet: Sheet, rng: np.random.Generator, rich: bool) -> Asked:
    """Circles, squares and triangles on a jittered grid, so that none hides another."""
    across = 4 if rich else 3
    total = int(rng.integers(4, across * across + 1 - (3 if rich else 0)))
    cells = [divmod(int(c), across) for c in rng.permutation(across * across)[:total]]
    colours, shapes = _pick(rng, ["red", "green", "blue", "black"], 3 if rich else 2), ["circle", "square", "triangle"]
    shapes = shapes if rich else shapes[:2]
    shapes_drawn = [(str(rng.choice(colours)), str(rng.choice(shapes))) for _ in cells]
    radius = 0.30 / across
    for (colour, shape), (row, column) in zip(shapes_drawn, cells, strict=True):
        jitter = rng.uniform(-0.12, 0.12, 2) / across
        x, y = (column + 0.5) / across + jitter[0], (row + 0.5) / across + jitter[1]
        if shape == "circle":
            sheet.dot(x, y, radius, COLOURS[colour])
        elif shape == "square":
            sheet.box(x - radius * 0.9, y - radius * 0.9, x + radius * 0.9, y + radius * 0.9, COLOURS[colour])
        else:
            sheet.shape([_around(k / 3, radius * 1.2, x, y) for k in range(3)], COLOURS[colour])
    colour, shape = shapes_drawn[int(rng.integers(total))]
    form = rng.choice(["all", "colour", "both", "difference"], p=[0.15, 0.35, 0.3, 0.2] if rich else [0.4, 0.4, 0.2, 0])
    of_colour = sum(c == colour for c, _ in shapes_drawn)
    if form == "difference":
        other = next(c for c in colours if c != colour)
        remaining = sum(c == other for c, _ in shapes_drawn)
        more, less = (colour, other) if of_colour >= remaining else (other, colour)
        question, value, level = f"How many more {more} than {less} shapes are there?", abs(of_colour - remaining), 2
    elif form == "all":
        question, value, level = "How many shapes are there?", total, 0
    elif form == "colour":
        question, value, level = f"How many {colour} shapes are there?", of_colour, 0
    else:
        question, value, level = f"How many {colour} {shape}s are there?", shapes_drawn.count((colour, shape)), 1
    return Asked(question, Decimal(value), level, _near(Decimal(value), Decimal(1), rng, Decimal(0)))


KINDS: dict[str, Callable[[Sheet, np.random.Generator, bool], Asked]] = {
    "bar": _bar,
    "line": _line,
    "pie": _pie,
    "function": _function,
    "ruler": _ruler,
    "gauge": _gauge,
    "count": _count,
}
TASK_OF = dict.fromkeys(KINDS, "figure question answering") | {"count": "visual question answering"}
CONTEXT_OF = {
    "bar": "bar chart",
    "line": "line plot",
    "pie": "pie chart",
    "function": "function plot",
    "ruler": "scientific figure",
    "gauge": "scientific figure",
    "count": "synthetic scene",
}
SKILL_OF = dict.fromkeys(KINDS, "statistical reasoning") | {
    "function": "algebraic reasoning",
    "ruler": "scientific reasoning",
    "gauge": "scientific reasoning",
    "count": "arithmetic reasoning",
}
