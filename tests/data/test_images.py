"""Sizes of picture files are those of the pictures that a model is shown, however the file is turned."""

import json

import numpy as np
import pytest
from datasets import Dataset, Features
from datasets import Image as Column
from PIL import ExifTags, Image, ImageDraw, ImageOps, PngImagePlugin

from data.clock import photos
from data.common.errors import InvalidData
from data.common.images import check_bytes, check_picture, stored
from data.common.rgb import rgb
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


MAPPED = ("L", "P", "I;16", "RGBA", "CMYK")  # modes whose uncompressed TIFF Pillow maps into memory


def scan(file, mode, orientation=6):
    """A TIFF without compression of 60 x 40 stored pixels, black but for a white rectangle of 20 x 10 at (8, 5)."""
    pixels = np.zeros((40, 60), np.uint8)
    pixels[5:15, 8:28] = 255
    grey = Image.fromarray(pixels)
    picture = Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "I;16" else grey.convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(file, exif=exif)
    return file


def white(picture):
    """Where a picture is white: x and y of the first column and row, and of those behind the last."""
    rows, columns = np.nonzero(np.asarray(rgb(picture).convert("L")) > 128)
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@pytest.mark.parametrize("orientation", range(5, 9))
@pytest.mark.parametrize("mode", MAPPED)
def test_a_sideways_tiff_has_its_pixels_where_they_are_shown(tmp_path, mode, orientation):
    file = scan(tmp_path / "a.tif", mode, orientation)
    picture = decoded(file)
    assert picture.size == check_picture(file, "here").shown == (40, 60)
    plain = ImageOps.exif_transpose(Image.open(scan(tmp_path / "a.png", "L", orientation)))
    assert white(picture) == white(plain)


def test_every_reader_takes_a_sideways_tiff_from_its_bytes(tmp_path):
    scan(tmp_path / "a.tif", "L")
    (tmp_path / "t.jsonl").write_text(json.dumps({"image": "a.tif", "prompt": "?", "answer": [25, 8, 35, 28]}) + "\n")
    row = table_task(Jsonl("box", test=str(tmp_path / "t.jsonl")), "box").rows("test")[0]
    assert white(row["image"]) == row["box"] == [25, 8, 35, 28]
    (tmp_path / "labels.csv").write_text("image,hour,minute\na.tif,3,15\n")
    assert white(photos.load(tmp_path / "labels.csv")[0]["image"]) == [25, 8, 35, 28]


@pytest.mark.parametrize("content", [None, b"", b"II*\0", b"MM\0*" + bytes(40)])
def test_a_broken_or_missing_tiff_is_named(tmp_path, content):
    file = tmp_path / "a.tif"
    if content is not None:
        file.write_bytes(content)
    assert stored(file) == {"path": str(file.resolve()), "bytes": None}
    with pytest.raises(InvalidData, match=r"here, field image: .*a\.tif"):
        check_picture(file, "here")


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
