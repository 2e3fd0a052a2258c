"""Sizes of picture files are those of the pictures that a model is shown, however the file is turned."""

import json

import pytest
from datasets import Dataset, Features
from datasets import Image as Column
from PIL import ExifTags, Image, ImageDraw, PngImagePlugin

from data.clock import photos
from data.common.images import check_bytes, check_picture, stored
from data.jsonl import Jsonl
from tasks.jsonl import table_task

SHOWN, RED = (40, 80), [28, 60, 36, 76]  # the photo as viewers show it, and where its red box is


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


def sideways(file, orientation=6):
    """A photo of 80 x 40 stored pixels, to be shown as `SHOWN` when the orientation is 6."""
    upright = Image.new("RGB", SHOWN, "white")
    ImageDraw.Draw(upright).rectangle(RED, fill="red")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    upright.transpose(Image.Transpose.ROTATE_90).save(file, exif=exif)
    return file


def decoded(file):
    rows = Dataset.from_dict({"image": [stored(file)]}, Features({"image": Column()}))
    return rows[0]["image"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_a_picture_has_the_size_that_is_shown(tmp_path, suffix, orientation):
    file = sideways(tmp_path / f"a{suffix}", orientation)
    size = decoded(file).size
    assert size == (SHOWN if orientation > 4 else SHOWN[::-1])
    assert check_picture(file, "here") == check_bytes(file.read_bytes(), "here")
    assert check_picture(file, "here").shown == size
    assert check_picture(file, "here").stored == SHOWN[::-1]


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path):
    """Where Pillow finds it only after decoding."""
    file = sideways(tmp_path / "a.png")
    content = file.read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    ending = content.index(b"IEND") - 4
    file.write_bytes(content[:start] + content[end:ending] + content[start:end] + content[ending:])
    assert check_picture(file, "here").shown == decoded(file).size == SHOWN


def test_a_plain_png_is_not_decoded_for_its_size(tmp_path, monkeypatch):
    about = PngImagePlugin.PngInfo()
    about.add_text("Software", "a plotter")
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png", pnginfo=about)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("decoded"))
    assert check_picture(tmp_path / "a.png", "here").stored == (30, 20)


def table(folder, **row):
    sideways(folder / "a.jpg")
    (folder / "t.jsonl").write_text(json.dumps({"image": "a.jpg", "prompt": "red?", **row}))
    return table_task(Jsonl("box", test=str(folder / "t.jsonl")), "box")


def test_boxes_lie_on_the_picture_as_shown(tmp_path):
    row = table(tmp_path, answer=RED).rows("test")[0]
    assert (row["width"], row["height"]) == row["image"].size == SHOWN
    red, green, blue = row["image"].getpixel(((RED[0] + RED[2]) // 2, (RED[1] + RED[3]) // 2))
    assert red > 200 > 100 > max(green, blue)


def test_a_photo_of_a_clock_stands_upright(tmp_path):
    sideways(tmp_path / "a.jpg")
    (tmp_path / "labels.csv").write_text("image,hour,minute\na.jpg,10,8\n")
    kept = photos.load(tmp_path / "labels.csv")[0]["image"]
    assert kept.size == SHOWN
