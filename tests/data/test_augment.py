"""Pictures and numbers move together: what is drawn, what it does to pixels, and what it does to answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from data.augment.directions import word_of_place, word_of_side
from data.augment.draws import Draw, draw, extent_of, joined, moved
from data.augment.options import AugmentConfig
from data.augment.pictures import augmented
from tasks.answers.coordinates import FORMATS, Coords
from tasks.detection import Detection
from tasks.grounding import Grounding
from tasks.jsonl import PolygonAnswers
from tasks.pointing import Pointing

ALL = AugmentConfig(flip=0.5, crop=0.3, scale=0.4, color_jitter=0.3)
INK = (200, 20, 20)
seeds = st.integers(0, 2**32 - 1)


class Rows:
    """Stands for a source; the tasks here are given their rows."""


@st.composite
def scenes(draw_from):
    """A picture's size and a box of whole pixels in it."""
    width, height = draw_from(st.integers(24, 90)), draw_from(st.integers(24, 90))
    x1, y1 = draw_from(st.integers(0, width - 6)), draw_from(st.integers(0, height - 6))
    x2, y2 = draw_from(st.integers(x1 + 5, width)), draw_from(st.integers(y1 + 5, height))
    return (width, height), [float(x1), float(y1), float(x2), float(y2)]


def drawn_at(size, box, seed, options=ALL):
    extent = (box[0], box[1], box[2], box[3])
    return draw(options, np.random.default_rng(seed), size, extent)


@settings(max_examples=60, deadline=None)
@given(scenes(), seeds)
def test_a_box_stays_on_its_pixels(scene, seed):
    size, (x1, y1, x2, y2) = scene
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).rectangle((x1, y1, x2 - 1, y2 - 1), fill=INK)
    drawn = drawn_at(size, (x1, y1, x2, y2), seed, AugmentConfig(flip=0.5, crop=0.3, scale=0.4))
    result = augmented(picture, drawn)
    row = moved({"box": [x1, y1, x2, y2], "width": size[0], "height": size[1]}, drawn)
    assert result.size == (row["width"], row["height"]) == drawn.size
    ys, xs = np.nonzero(np.asarray(result)[..., 1] < 128)
    seen = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert np.abs(np.subtract(seen, row["box"])).max() <= 1.0


@settings(max_examples=60, deadline=None)
@given(scenes(), seeds)
def test_a_crop_cuts_no_box_and_keeps_its_share(scene, seed):
    (width, height), box = scene
    left, top, right, bottom = drawn_at((width, height), box, seed).crop
    assert 0 <= left <= box[0]
    assert box[2] <= right <= width
    assert 0 <= top <= box[1]
    assert box[3] <= bottom <= height
    assert right - left >= round(0.3 * width) - 1e-9
    assert bottom - top >= round(0.3 * height) - 1e-9


def tasks(coords: Coords):
    source: object = Rows()
    return {
        "box": Grounding(source, coords),  # type: ignore[arg-type]
        "polygon": PolygonAnswers(source, coords),  # type: ignore[arg-type]
        "boxes": Detection(source, coords=coords, named=False),  # type: ignore[arg-type]
        "points": Pointing(source, coords),  # type: ignore[arg-type]
    }


def row_of(size, box):
    x1, y1, x2, y2 = box
    middle = [(x1 + x2) / 2, (y1 + y2) / 2]
    return {
        "id": "0",
        "width": size[0],
        "height": size[1],
        "expression": "it",
        "prompt": "Where?",
        "question": "it",
        "box": box,
        "polygon": [[x1, y1], [x2, y1], middle, [x1, y2]],
        "points": [middle, [x1, y1]],
        "boxes": [box, [x1, y1, *middle]],
        "labels": ["", ""],
        "crowd": [False, False],
        "asked": [],
    }


def numbers(kind, read):
    if kind == "boxes":
        return sorted(list(item.box) for item in read)
    if kind in ("points", "polygon"):
        return sorted(list(getattr(one, "points", [one])[0] if kind == "points" else one) for one in read)
    return list(read)


@pytest.mark.parametrize("name", ["int1000", "unit", "qwen", "loc"])
@pytest.mark.parametrize("kind", ["box", "polygon", "boxes", "points"])
@settings(max_examples=15, deadline=None)
@given(scene=scenes(), seed=seeds)
def test_augment_then_decode_is_decode_then_augment(name, kind, scene, seed):
    size, box = scene
    task, row = tasks(FORMATS[name])[kind], row_of(size, box)
    drawn = drawn_at(size, box, seed)
    after = moved(row, drawn)
    assert (after["width"], after["height"]) == drawn.size
    read_after = task.parse(task.answer(after), after)
    read_before = task.parse(task.answer(row), row)
    values = {"box": "box", "polygon": "polygon", "boxes": "boxes", "points": "points"}
    if kind == "boxes":
        before = {"boxes": [list(item.box) for item in read_before]}
    elif kind == "points":
        before = {"points": [list(getattr(one, "points", [one])[0]) for one in read_before]}
    else:
        before = {values[kind]: list(map(list, read_before)) if kind == "polygon" else list(read_before)}
    expected = moved(before, drawn)[values[kind]]
    expected = sorted(expected) if kind in ("boxes", "points", "polygon") else expected
    # Each reading is within half a step of a thousandth (`loc`: 1/1024) of its picture's side, the first one as scaled.
    zoom = max(drawn.size[0] / (drawn.crop[2] - drawn.crop[0]), drawn.size[1] / (drawn.crop[3] - drawn.crop[1]))
    allowed = (max(drawn.size) + zoom * max(size)) / 999 + 1e-6
    assert np.abs(np.subtract(numbers(kind, read_after), expected)).max() <= allowed


def test_a_mirrored_polygon_keeps_its_sense_and_its_first_corner():
    drawn = Draw((0, 0, 100, 50), True, 0.0, (100, 50), (1.0, 1.0, 1.0))
    clockwise_from_top_left = [[10, 10], [30, 10], [30, 20], [10, 20]]
    assert drawn.polygon(clockwise_from_top_left) == [[70, 10], [90, 10], [90, 20], [70, 20]]


def test_a_turned_picture_is_turned_counterclockwise_by_its_degrees():
    picture = Image.new("RGB", (101, 101), "white")
    picture.paste(INK, (48, 8, 53, 13))  # above the middle, as at twelve
    drawn = Draw((0, 0, 101, 101), False, 15.0, (101, 101), (1.0, 1.0, 1.0))
    ys, xs = np.nonzero(np.asarray(augmented(picture, drawn))[..., 1] < 128)
    angle = np.degrees(np.arctan2(50 - xs.mean(), 50 - ys.mean()))
    assert angle == pytest.approx(15, abs=1)


def test_what_a_turn_uncovers_goes_on_as_the_edge():
    drawn = Draw((0, 0, 60, 40), False, 12.0, (60, 40), (1.0, 1.0, 1.0))
    assert set(augmented(Image.new("RGB", (60, 40), INK), drawn).getdata()) == {INK}


def test_one_option_changes_nothing_of_what_another_draws():
    size, box = (80, 60), (10.0, 10.0, 30.0, 30.0)
    alone, together = drawn_at(size, box, 5, AugmentConfig(crop=0.3)), drawn_at(size, box, 5)
    assert alone.crop == together.crop
    assert drawn_at(size, box, 5, AugmentConfig(flip=0.5)).mirrored == together.mirrored


def test_pictures_may_be_kept_from_mirror_and_crop():
    rng = np.random.default_rng(0)
    drawn = draw(AugmentConfig(flip=1.0, crop=0.3), rng, (80, 60), None, may_crop=False, may_mirror=False)
    assert drawn == Draw((0, 0, 80, 60), False, 0.0, (80, 60), (1.0, 1.0, 1.0))


def test_the_extent_is_that_of_all_that_is_labelled():
    assert extent_of(row_of((90, 90), [5, 6, 40, 50])) == (5, 6, 40, 50)
    assert extent_of({"boxes": [], "points": [], "hour": 3}) is None
    assert joined((1, 2, 3, 4), (0, 3, 2, 9)) == (0, 2, 3, 9)
    assert joined(None, (1, 2, 3, 4)) == (1, 2, 3, 4)


@pytest.mark.parametrize(
    "text",
    [
        "the left dog",
        "RIGHTMOST chair",
        "left-hand side",
        "7 o'clock",
        "der linke Hund",
        "左边的狗",
        "player at 3 o’clock",
        "at two o'clock",
        "ten o clock",
        "the westbound bus",
        "o homem à esquerda",
        "собака слева",
    ],
)
def test_words_of_sides(text):
    assert word_of_side(text)
    assert word_of_place(text)


@pytest.mark.parametrize("text", ["the second dog", "top cup", "man in the middle", "3rd from the back", "the corner"])
def test_words_of_places_matter_to_crops_alone(text):
    assert word_of_place(text)
    assert word_of_side(text) is None


@pytest.mark.parametrize("text", ["the bright light", "a leftover", "a man upright", "stop sign", "[1, 2, 3, 4]"])
def test_other_words(text):
    assert word_of_place(text) is None


@pytest.mark.parametrize("change", [{"flip": 1.5}, {"crop": 0.0}, {"scale": -1}, {"clock_rotation": 16.0}])
def test_values_out_of_range_are_named(change):
    assert next(iter(change)) in (AugmentConfig(**change).problem() or "")
    assert AugmentConfig(flip=1.0, crop=0.5, scale=0.5, color_jitter=0.2, clock_rotation=15).problem() is None
