"""Photographs behind rendered pictures: each split has its own, in as many pictures as asked for."""

import numpy as np
import pytest
from PIL import Image

from data.clock.rendered import RenderedClocks
from data.common.backgrounds import SPLITS, Backgrounds, photo_piece, photos_in
from data.common.errors import InvalidOption
from data.grounding.rendered import RenderedScenes
from data.text_detection.rendered import RenderedWords


def folder_of(place, count):
    place.mkdir(exist_ok=True)
    for number in range(count):
        Image.new("RGB", (8, 8), (1, 254, 3)).save(place / f"{number}.jpg")
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


@pytest.mark.parametrize("name", ["._0.jpg", "_0.jpg", ".hidden/0.jpg", "__MACOSX/0.jpg"])
def test_hidden_files_are_no_photographs(walls, name):
    before = [photos_in(walls, split) for split in SPLITS]
    (walls / name).parent.mkdir(exist_ok=True)
    (walls / name).write_bytes(b"\x00\x05\x16\x07" + bytes(90))
    assert [photos_in(walls, split) for split in SPLITS] == before


def test_a_broken_photograph_is_named_before_a_run(walls):
    content = (walls / "wall0.png").read_bytes()
    (walls / "cut.png").write_bytes(content[: len(content) // 2])
    for source in (RenderedClocks, RenderedScenes, RenderedWords):
        with pytest.raises(InvalidOption, match=r"backgrounds: .*cut\.png can't be used \(.*\): replace it, or take"):
            source(rows={"train": 1}, backgrounds=str(walls)).check_files()


def test_photographs_of_any_mode_lie_behind_pictures(tmp_path):
    """Transparency is laid on white, and grey of 16 bits isn't cut off."""
    for number in range(3):
        Image.new("RGBA", (1, 9), (0, 0, 0, 0)).save(tmp_path / f"{number}.png")
    rng = np.random.default_rng(0)
    assert photo_piece(rng, 4, photos_in(tmp_path, "test")).getpixel((0, 0)) == (255, 255, 255)
    Image.fromarray(np.full((9, 9), 128 * 257, np.uint16)).save(tmp_path / "grey.png")
    assert photo_piece(rng, 4, [tmp_path / "grey.png"]).getpixel((0, 0)) == (128, 128, 128)


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
