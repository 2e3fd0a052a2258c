"""Rendered figures: the same row everywhere, no picture shared, and answers that the pictures bear out."""

from typing import Any

import numpy as np
import pytest

from data.mathvista.rendered import COLOURS, KINDS, load


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))


def pixels(row):
    return np.asarray(row["image"]).tobytes()


@pytest.mark.parametrize("difficulty", ["plain", "rich"])
def test_row_i_does_not_depend_on_how_many_are_rendered(difficulty, tmp_path, monkeypatch):
    few = list(load("train", rows=6, difficulty=difficulty))
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "elsewhere"))
    many = list(load("train", rows=12, difficulty=difficulty))[:6]
    assert [pixels(row) for row in few] == [pixels(row) for row in many]
    assert [{**row, "image": 0} for row in few] == [{**row, "image": 0} for row in many]


def test_splits_and_seeds_share_no_picture():
    split_of: dict[bytes, tuple[str, int]] = {}
    for split in ("train", "validation", "test"):
        for seed in (0, 1):
            for row in load(split, rows=60, seed=seed, kinds=["gauge", "ruler"]):
                assert split_of.setdefault(pixels(row), (split, seed)) == (split, seed)


@pytest.mark.parametrize("difficulty", ["plain", "rich"])
def test_answers_have_their_form(difficulty):
    rows = list(load("test", rows=400, difficulty=difficulty))
    assert {row["source"] for row in rows} == {f"rendered {kind}" for kind in KINDS}
    assert {row["question_type"] for row in rows} == {"multi_choice", "free_form"}
    assert {row["answer_type"] for row in rows} == {"text", "integer", "float"}
    assert {row["level"] for row in rows} == {0, 1, 2}
    for row in rows:
        if row["question_type"] == "multi_choice":
            assert row["choices"].count(row["answer"]) == 1
            assert len(set(row["choices"])) == len(row["choices"])
        elif row["answer_type"] == "float":
            assert float(row["target"]) == float(row["answer"])
            assert len(row["target"].partition(".")[2]) == 1
        else:
            assert row["target"] == row["answer"] == str(int(row["answer"]))


def share(row, colour):
    near = np.abs(np.asarray(row["image"]).astype(int) - np.array(COLOURS[colour])).max(axis=2) < 30
    return near


def asked_colour(row):
    return next(word.strip("?,") for word in row["question"].split() if word.strip("?,") in COLOURS)


def value(row):
    return float(row["answer"].rstrip("."))


def test_pie_areas_are_the_percentages():
    rows = [r for r in load("test", rows=60, size=200, kinds=["pie"]) if r["question"].startswith("What percentage")]
    measured = 0
    for row in rows:
        whole = sum(share(row, colour).sum() for colour in COLOURS if colour != "black")
        # Black marks and glyphs round the rim are black too: only slices of other colours are measured.
        black = share(row, "black")[40:160, 40:160].sum()
        if asked_colour(row) != "black" and black == 0:
            measured += 1
            assert share(row, asked_colour(row)).sum() / whole * 100 == pytest.approx(value(row), abs=1.5), row[
                "question"
            ]
    assert measured >= 15


def test_bar_lengths_on_the_ruler_are_the_answers():
    for row in load("test", rows=40, size=200, kinds=["ruler"]):
        if asked_colour(row) == "black":
            continue
        picture = np.asarray(row["image"]).astype(int)
        wood = np.abs(picture - np.array((246, 222, 150))).max(axis=2) < 20
        xs = np.nonzero(share(row, asked_colour(row)).any(axis=0))[0]
        ruler = np.nonzero(wood.any(axis=0))[0]
        # The scale of 5 cm is 0.84 of the 0.94 that the ruler is wide.
        scale = (ruler.max() - ruler.min() + 1) * 0.84 / 0.94 / 5
        assert (xs.max() - xs.min() + 1) / scale == pytest.approx(value(row), abs=0.08), row["question"]


def test_bar_heights_are_the_values():
    for row in load("test", rows=60, size=200, kinds=["bar"]):
        if not row["question"].startswith("What is the value") or asked_colour(row) == "black":
            continue
        bars = {c: share(row, c) for c in COLOURS if c != "black" and share(row, c).sum() > 60}
        heights = {c: np.nonzero(m.any(axis=1))[0] for c, m in bars.items()}
        asked = heights[asked_colour(row)]
        top = 0.79 * 200 * zoom(row) / 10
        assert (asked.max() - asked.min() + 1) / top == pytest.approx(value(row), abs=0.25), row["question"]


def zoom(row):
    """How much the figure was shrunk: the y axis is the longest dark column, 0.79 of the side."""
    dark = np.asarray(row["image"]).max(axis=2) < 60
    return dark.sum(axis=0).max() / (0.79 * 200)


def test_the_gauge_points_at_its_answer():
    for row in load("test", rows=40, size=200, kinds=["gauge"]):
        red = share(row, "red")
        ys, xs = np.nonzero(red)
        hub = np.nonzero(np.asarray(row["image"]).max(axis=2) < 60)
        cy, cx = (hub[0].min() + hub[0].max()) / 2, (hub[1].min() + hub[1].max()) / 2
        far = np.hypot(ys - cy, xs - cx) > 30
        turn = np.arctan2((xs[far] - cx).mean(), -(ys[far] - cy).mean()) / (2 * np.pi)
        high = 1 if row["answer_type"] == "float" or "decimal" in row["question"] else 10
        assert (turn + 0.375) / 0.75 * high == pytest.approx(value(row), abs=0.02 * high), row["question"]


def test_choices_of_one_value_are_on_its_scale():
    for row in load("test", rows=200, kinds=["gauge", "bar", "line"]):
        if row["choices"] and row["level"] < 2:
            assert len(row["choices"]) == 4, row["question"]
            assert all(0 <= float(c) <= 10 for c in row["choices"]), row["question"]


def test_wrong_arguments_name_the_key():
    refused: list[tuple[dict[str, Any], str]] = [
        ({"split": "training"}, "splits"),
        ({"difficulty": "hard"}, r"task\.source\.difficulty"),
        ({"kinds": ["pies"]}, r"task\.source\.kinds: 'pies' is none of bar, line"),
        ({"size": 32}, "size >= 64"),
        ({"rows": 0}, "rows >= 1"),
    ]
    for options, message in refused:
        with pytest.raises(ValueError, match=message):
            load(**{"split": "train", "rows": 1, **options})
