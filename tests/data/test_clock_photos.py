"""Photographs of clocks from a labels CSV; broken tables are refused with file, row and field."""

import os
from pathlib import Path

import pytest
from PIL import Image

from data import clock_photos

REAL = Path(os.environ.get("NTIL_SHARED", "../shared")) / "assets/data/clocks/labels.csv"


@pytest.mark.skipif(not REAL.exists(), reason="no real clock photographs under NTIL_SHARED")
def test_real_photographs_are_read_and_cropped():
    rows = clock_photos.load(REAL, "test")
    assert len(rows) == 11
    for row in rows:
        assert 1 <= row["hour"] <= 12
        assert 0 <= row["minute"] <= 59
        assert min(row["image"].size) >= 24


def table(folder: Path, *lines: str) -> Path:
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    file = folder / "labels.csv"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("picture,hour,minute", "a.png,3,4"), "image"),
        (("image,hour,minute", "b.png,3,4"), "b.png"),
        (("image,hour,minute", "a.png,25,4"), "25:4 is no time"),
        (("image,hour,minute", "a.png,3,60"), "3:60 is no time"),
        (("image,hour,minute", "a.png,three,4"), "hour"),
        (("image,hour,minute",), "the split is empty"),
    ],
)
def test_broken_tables(tmp_path, lines, message):
    file = table(tmp_path, *lines)
    with pytest.raises(ValueError, match=message) as error:
        clock_photos.load(file, "test")
    assert "labels.csv" in str(error.value)


def test_missing_file_and_other_splits(tmp_path):
    with pytest.raises((ValueError, OSError), match="nowhere"):
        clock_photos.load(tmp_path / "nowhere.csv", "test")
    with pytest.raises(ValueError, match="test"):
        clock_photos.load(table(tmp_path, "image,hour,minute", "a.png,3,4"), "train")
