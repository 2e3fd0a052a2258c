"""Rendered clocks: the same row everywhere, no picture shared between splits, readable hands."""

from pathlib import Path

import numpy as np
import pytest

from data.clock import rendered
from data.clock.rendered import load, render_clock
from data.clock.schema import level_of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))


def pixels(rows, index):
    return np.asarray(rows[index]["image"]).tobytes()


@pytest.mark.parametrize("difficulty", ["plain", "rich"])
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
            rows = load(split, rows=40, seed=seed)
            for i in range(40):
                assert split_of.setdefault(pixels(rows, i), (split, seed)) == (split, seed)


def test_level_is_how_fine_the_minute_is():
    assert [level_of(m) for m in (0, 30, 15, 45, 5, 55, 1, 59)] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_minute_hand_points_at_the_minute():
    # Dark pixels in a ring that only the minute hand reaches, between the hour hand's tip and the ticks.
    for minute in range(0, 60, 7):
        image = np.asarray(render_clock(12, minute, np.random.default_rng(minute), size=200, difficulty="plain"))
        face = image.min(axis=2) > 200
        ys, xs = np.nonzero(face)
        cy, cx, radius = (ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2, (xs.max() - xs.min()) / 2
        angles = np.arange(720) / 720 * 2 * np.pi
        x, y = cx + 0.68 * radius * np.sin(angles), cy - 0.68 * radius * np.cos(angles)
        ring = image[y.round().astype(int), x.round().astype(int)].mean(axis=1)
        dark = np.exp(1j * angles)[ring < 130].mean()
        found = np.angle(dark) / (2 * np.pi) * 60 % 60
        assert min(abs(found - minute), 60 - abs(found - minute)) < 0.7, (minute, found)


@pytest.mark.parametrize("difficulty", ["plain", "rich"])
def test_photographs_hang_behind_clocks(walls, difficulty):
    rows = load("test", rows=24, difficulty=difficulty, backgrounds=walls)
    green = sum((np.asarray(rows[i]["image"])[0, 0] == (1, 254, 3)).all() for i in range(24))
    assert 4 < green < 20
    with pytest.raises(ValueError, match=r"backgrounds=.*no \.jpg"):
        load("test", rows=1, difficulty=difficulty, backgrounds=walls / "nothing")


def test_wrong_arguments_name_the_key():
    with pytest.raises(ValueError, match="splits"):
        load("training", rows=1)
    with pytest.raises(ValueError, match=r"task\.source\.difficulty"):
        load("train", rows=1, difficulty="hard")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="rows >= 1"):
        load("train", rows=0)


def test_editing_the_renderer_makes_old_pictures_stale(tmp_path, monkeypatch):
    load("test", rows=2)
    before = {p.name for p in (tmp_path / "datasets").iterdir()}
    load("test", rows=2)
    assert {p.name for p in (tmp_path / "datasets").iterdir()} == before
    changed = tmp_path / "clock_rendered.py"
    changed.write_text(Path(rendered.__file__).read_text() + "\n# changed\n")
    monkeypatch.setattr(rendered, "__file__", str(changed))
    load("test", rows=2)
    assert len(list((tmp_path / "datasets").iterdir())) == 2
