"""Rendered scenes: every expression fits exactly one shape (by brute force), and its box is where the pixels are."""

import re

import numpy as np
import pytest

from data.common.source import STREAMS
from data.grounding import rendered
from data.grounding.rendered import CLEAR, COLOURS, box_of

SCENES = 3000
SIDES = {
    "leftmost": lambda t: -t.x,
    "rightmost": lambda t: t.x,
    "topmost": lambda t: -t.y,
    "lowest": lambda t: t.y,
    "left of": lambda t: -t.x,
    "right of": lambda t: t.x,
    "above": lambda t: -t.y,
    "below": lambda t: t.y,
}


def named(words, things):
    """Shapes that the words describe by size, colour and shape."""
    *attributes, shape = words.split()
    size = next((a for a in attributes if a in ("small", "large")), None)
    colour = next((a for a in attributes if a in COLOURS), None)
    assert len(attributes) == (size is not None) + (colour is not None)
    return [
        t
        for t in things
        if t.shape == shape and colour in (None, t.colour) and (size is None or t.small == (size == "small"))
    ]


def fitting(expression, things, slack=0.0):
    """All shapes the expression fits, read as a person would; `slack` lets nearly fitting ones in."""
    words = expression.removeprefix("the ")
    relation = re.fullmatch(r"(\w+) (left of|right of|above|below) the (.+)", words)
    if relation:
        (anchor,) = named(relation[3], things)
        by = SIDES[relation[2]]
        return [t for t in named(relation[1], things) if t is not anchor and by(t) - by(anchor) > -slack]
    first, _, rest = words.partition(" ")
    if first in SIDES:
        by, same = SIDES[first], named(rest, things)
        return [t for t in same if by(t) >= max(map(by, same)) - slack]
    return named(words, things)


@pytest.mark.parametrize("difficulty", ["single", "plain", "rich"])
def test_photographs_lie_behind_shapes(walls, difficulty):
    rows = rendered.load("test", rows=24, difficulty=difficulty, backgrounds=walls)
    bare = rendered.load("test", rows=24, difficulty=difficulty)
    green = 0
    for row, same in zip(rows, bare, strict=True):
        assert (row["expression"], row["box"]) == (same["expression"], same["box"])
        picture = np.asarray(row["image"])
        green += bool((picture == (1, 254, 3)).all(axis=2).mean() > 0.3)
    assert 4 < green < 20


@pytest.mark.parametrize("difficulty", ["plain", "rich"])
def test_every_expression_fits_exactly_one_shape_and_none_nearly(difficulty):
    rng, kinds = np.random.default_rng(1), {0: 0, 1: 0, 2: 0}
    for _ in range(SCENES):
        things = rendered.scene(rng, difficulty)
        for expression, meant, level in rendered._expressions(things, difficulty):
            assert fitting(expression, things) == [things[meant]], (expression, things)
            assert fitting(expression, things, slack=CLEAR * 0.99) == [things[meant]], (expression, things)
            kinds[level] += 1
    assert kinds[0] > SCENES / 2
    assert (min(kinds.values()) > SCENES / 4) == (difficulty == "rich")


@pytest.mark.parametrize("difficulty", ["single", "plain", "rich"])
def test_the_row_is_of_its_scene_and_its_box_holds_just_the_shapes_pixels(difficulty):
    for index in range(60):
        row = rendered._row({"index": index}, split="test", size=96, difficulty=difficulty, seed=3)
        rng = np.random.default_rng([3, STREAMS["test"], index])
        while not (said := rendered._expressions(things := rendered.scene(rng, difficulty), difficulty)):
            pass
        thing = things[next(meant for expression, meant, _ in said if expression == row["expression"])]
        assert row["box"] == pytest.approx([v * 96 for v in box_of(thing)])
        last = [t for t in things if t is not thing] + [thing]
        with_it = np.asarray(rendered.render(last, np.random.default_rng(0), 96, difficulty)).astype(int)
        without = np.asarray(rendered.render(last[:-1], np.random.default_rng(0), 96, difficulty)).astype(int)
        rows, columns = np.nonzero(np.abs(with_it - without).sum(axis=2) > 20)
        around = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert np.abs(np.array(around) - row["box"]).max() <= 1.5
        assert min(row["box"]) >= 0
        assert max(row["box"]) <= 96


def test_single_is_one_shape_large_enough_to_be_measured():
    for seed in range(100):
        (thing,) = rendered.scene(np.random.default_rng(seed), "single")
        assert 0.12 <= thing.radius <= 0.3
        assert rendered._expressions([thing], "single") == [(f"the {thing.shape}", 0, 0)]


def test_rows_are_the_same_everywhere_and_splits_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    rows = rendered.load("test", rows=5, size=48, difficulty="rich")
    more = rendered.load("test", rows=8, size=48, difficulty="rich")
    other = rendered.load("train", rows=8, size=48, difficulty="rich")
    columns = ("expression", "box", "level")
    assert [[r[c] for c in columns] for r in rows] == [[r[c] for c in columns] for r in more.select(range(5))]
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(rows, more, strict=False))
    assert more["box"] != other["box"]
    assert len(set(more["id"]) | set(other["id"])) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "val"}, "splits"),
        ({"rows": 0}, "rows >= 1"),
        ({"size": 16}, "size >= 32"),
        ({"difficulty": "hard"}, r"task\.source\.difficulty"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        rendered.load(**{"split": "train", "rows": 1, **arguments})
