"""Rendered words: the same row everywhere, no picture shared between splits, outlines that hold the ink."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from data.text_detection.rendered import RenderedWords, Strip, load, render_words
from tasks.text_detection import TextDetection


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))


def pixels(rows, index):
    return np.asarray(rows[index]["image"]).tobytes()


@pytest.mark.parametrize("difficulty", ["single", "plain", "rich"])
def test_row_i_does_not_depend_on_how_many_are_rendered(difficulty, tmp_path, monkeypatch):
    few = load("train", rows=4, difficulty=difficulty)
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "elsewhere"))
    many = load("train", rows=9, difficulty=difficulty)
    for i in range(4):
        assert pixels(few, i) == pixels(many, i)
        assert {k: v for k, v in few[i].items() if k != "image"} == {k: v for k, v in many[i].items() if k != "image"}


def test_splits_and_seeds_share_no_picture():
    split_of: dict[bytes, tuple[str, int]] = {}
    for split in ("train", "validation", "test"):
        for seed in (0, 1):
            rows = load(split, rows=30, seed=seed)
            for i in range(30):
                assert split_of.setdefault(pixels(rows, i), (split, seed)) == (split, seed)


def test_words_lie_inside_apart_and_on_their_ink():
    levels = set()
    for index in range(60):
        rng = np.random.default_rng(index)
        picture, instances, level = render_words(rng, size=96, difficulty="rich")
        levels.add(level)
        assert picture.size == (96, 96)
        areas = [shapely.Polygon(i.points) for i in instances]
        for place, area in enumerate(areas):
            assert area.is_valid
            assert shapely.box(0, 0, 96, 96).contains(area)
            assert not any(area.intersects(other) for other in areas[:place])
        assert level == 0 or any(len(i.points) == (10 if level == 3 else 4) for i in instances)
    assert levels == {0, 1, 2, 3}


def test_single_is_always_one_level_word():
    for index in range(400):  # some of which get a word too long for the picture at first
        _, instances, level = render_words(np.random.default_rng(index), size=64, difficulty="single")
        assert len(instances) == 1
        assert len(instances[0].points) == 4
        assert level == 0


def test_ink_stays_within_the_outline():
    # The same stream with and without words isn't to be had, so words are compared with their own flat ground.
    for index in range(20):
        picture, instances, _ = render_words(np.random.default_rng(index), size=64, difficulty="plain")
        grey = np.asarray(picture.convert("L"), dtype=float)
        sharp = np.abs(np.diff(grey, axis=1))[:-1] + np.abs(np.diff(grey, axis=0))[:, :-1]
        ys, xs = np.nonzero(sharp > 40)
        points = shapely.points(xs + 1.0, ys + 1.0)
        held = shapely.union_all([shapely.Polygon(i.points).buffer(1.0) for i in instances])
        assert shapely.contains(held, points).all()
        for (
            instance
        ) in instances:  # and it reaches all four edges, within a tenth of its width and a fifth of its height
            area = shapely.Polygon(instance.points)
            ink = [(p.x, p.y) for p in points[shapely.contains(area.buffer(1.0), points)]]
            x1, y1, x2, y2 = area.bounds
            left, top = np.min(ink, axis=0)
            right, bottom = np.max(ink, axis=0)
            wide, high = (x2 - x1) * 0.12 + 1, (y2 - y1) * 0.25 + 1
            assert left - x1 < wide
            assert x2 - right < wide
            assert top - y1 < high
            assert y2 - bottom < high


@given(
    st.floats(10, 90), st.floats(5, 20), st.floats(-0.8, 0.8), st.floats(-2, 2).filter(lambda b: b == 0 or abs(b) > 0.1)
)
def test_finding_is_the_inverse_of_placing(width, height, turn, bend):
    bend = float(np.clip(bend, -width / height, width / height))
    strip = Strip(width, height, (50.0, 60.0), turn, bend)
    u, v = np.meshgrid(np.linspace(0, width, 7), np.linspace(0, height, 5))
    found = strip.find(*strip.place(u, v))
    assert np.allclose(found[0], u, atol=1e-6)
    assert np.allclose(found[1], v, atol=1e-6)
    top = strip.outline(50)[:50]
    if bend:
        middle, ends = np.array(top[24]), (np.array(top[0]) + np.array(top[-1])) / 2
        up = np.array([np.sin(turn), -np.cos(turn)])
        assert np.sign((middle - ends) @ up) == np.sign(bend)


@pytest.mark.parametrize("difficulty", ["single", "plain", "rich"])
def test_photographs_lie_behind_words(walls, difficulty):
    rows = load("test", rows=24, difficulty=difficulty, backgrounds=walls)
    green = sum((np.asarray(rows[i]["image"])[0, 0] == (1, 254, 3)).all() for i in range(24))
    assert 4 < green < 20


def test_rows_have_what_the_task_needs():
    task = TextDetection(RenderedWords(rows={"train": 40}, difficulty="rich"), shape="polygon")
    texts = 0
    for row in task.rows("train"):
        record = task.record(task.answer(row), row)
        assert record["failure"] is None
        assert record["scores"]["acc_0.5"] == 1
        assert all(text == "###" for text, ignore in zip(row["texts"], row["ignore"], strict=True) if ignore)
        texts += len(row["texts"])
    assert texts > 60


def test_wrong_arguments_name_the_key():
    with pytest.raises(ValueError, match="splits"):
        load("val", rows=1)
    with pytest.raises(ValueError, match=r"task\.source\.difficulty"):
        load("train", rows=1, difficulty="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows >= 1"):
        load("train", rows=0)
    with pytest.raises(ValueError, match=r"backgrounds=.*no \.jpg"):
        load("train", rows=1, backgrounds=Path("/nothing/there"))
