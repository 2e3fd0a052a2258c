"""Photographs behind rendered pictures: each split has its own, in as many pictures as asked for."""

import numpy as np
import pytest

from data.clock.rendered import RenderedClocks
from data.common.backgrounds import SPLITS, Backgrounds, photos_in
from data.common.errors import InvalidOption
from data.grounding.rendered import RenderedScenes
from data.text_detection.rendered import RenderedWords


def folder_of(place, count):
    place.mkdir(exist_ok=True)
    for number in range(count):
        (place / f"{number}.jpg").touch()
    return place


@pytest.mark.parametrize("count", [3, 4, 20, 128])
def test_splits_share_no_photograph_and_leave_none(tmp_path, count):
    folder = folder_of(tmp_path / "photos", count)
    parts = {split: photos_in(folder, split) for split in SPLITS}
    assert all(parts.values())
    assert sorted(photo for part in parts.values() for photo in part) == sorted(folder.iterdir())
    assert len(parts["test"]) == len(parts["validation"]) == max(1, round(0.15 * count))
    moved = folder_of(tmp_path / "moved", count)
    assert [photo.name for photo in photos_in(moved, "test")] == [photo.name for photo in parts["test"]]


def test_too_few_photographs_are_refused_before_a_run(tmp_path):
    folder = folder_of(tmp_path / "photos", 2)
    for source in (RenderedClocks, RenderedScenes, RenderedWords):
        with pytest.raises(InvalidOption, match=r"2 \.jpg or \.png there, and no split shares one with another"):
            source(rows={"train": 1}, backgrounds=str(folder)).check_files()
        with pytest.raises(InvalidOption, match=r"background_share must be from 0 to 1, got 1\.5"):
            source(rows={"train": 1}, background_share=1.5).check_files()


@pytest.mark.parametrize(("share", "seen"), [(0.0, 0), (1.0, 40)])
def test_the_share_is_that_of_the_pictures(walls, share, seen):
    behind = Backgrounds.of(walls, share, "train")
    rng = np.random.default_rng(0)
    assert sum(behind.piece(rng, 32) is not None for _ in range(40)) == seen


def test_the_share_makes_other_pictures(walls):
    every = RenderedScenes(rows={"test": 8}, backgrounds=str(walls), background_share=1.0).rows("test")
    none = RenderedScenes(rows={"test": 8}, backgrounds=str(walls), background_share=0.0).rows("test")
    corners = [[tuple(np.asarray(row["image"])[-1, -1]) for row in rows] for rows in (every, none)]
    assert corners[0].count((1, 254, 3)) >= 6
    assert (1, 254, 3) not in corners[1]


def test_real_photographs_lie_behind_shapes(shared):
    """A photograph has detail that the drawn ground has none of."""
    folder = shared / "assets/data/coco128"
    pictures = {
        share: RenderedScenes(
            rows={"train": 12}, difficulty="single", size=224, backgrounds=str(folder), background_share=share
        ).rows("train")
        for share in (0.0, 1.0)
    }
    edges = {
        share: np.mean([np.abs(np.diff(np.asarray(row["image"]).astype(int), axis=0)).mean() for row in rows])
        for share, rows in pictures.items()
    }
    assert edges[1.0] > 3 * edges[0.0]
