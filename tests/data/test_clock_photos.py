"""Photographs of clocks from a labels CSV; broken tables are refused with file, row and field."""

import csv
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from data.clock import photos
from data.clock.photos import ClockPhotos
from data.common.column_form import ContradictedColumn
from data.common.errors import InvalidData, RowErrors

REAL = Path(os.environ.get("NTIL_SHARED", "../shared")) / "assets/data/clocks/labels.csv"


@pytest.mark.skipif(not REAL.exists(), reason="no real clock photographs under NTIL_SHARED")
def test_real_photographs_are_read_and_cropped():
    rows = ClockPhotos(str(REAL)).rows("test")
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
        (("image,hour,minute", "a.png,3.5,4"), "hour: '3.5' is no whole number"),
        (("image,hour,minute", "a.png,3,"), "minute: '' is no whole number"),
        (("image,hour,minute", ",3,4"), "field image: '' is neither a path"),
        (
            ("image,hour,minute", "a.png,3,4", "a.png,3,5"),
            "line 3, field hour: 3:05 for a clock that .*line 2 gives 3:04",
        ),
        (("image,hour,minute",), "the split is empty"),
    ],
)
def test_broken_tables(tmp_path, lines, message):
    file = table(tmp_path, *lines)
    with pytest.raises(ValueError, match=message) as error:
        ClockPhotos(str(file)).rows("test")
    assert "labels.csv" in str(error.value)


def test_missing_file_and_other_splits(tmp_path):
    with pytest.raises((ValueError, OSError), match="nowhere"):
        ClockPhotos(str(tmp_path / "nowhere.csv")).rows("test")
    source = ClockPhotos(str(table(tmp_path, "image,hour,minute", "a.png,3,4")))
    for read in (source.rows, source.check_split):
        with pytest.raises(ValueError, match="test"):
            read("train")
    assert len(source.rows("test")) == 1


def official(shared, name="coco_final.csv"):
    return shared / "assets/data/clocks" / name


def test_the_label_file_of_its_about_time_on_the_photographs_that_are_here(shared, tmp_path, monkeypatch):
    """1,911 labels, of which 5 photographs are in the COCO sample: those are read, the others counted and listed."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    images = tmp_path / "images"
    images.mkdir()
    for folder in (shared / "assets/data/coco128/images").iterdir():
        for photo in folder.iterdir():
            (images / photo.name).symlink_to(photo)
    skip = RowErrors("skip")
    rows = photos.load(official(shared), images, skip)
    with official(shared).open() as file:
        labels = {row["img_id"]: row for row in csv.DictReader(file)}
        with_photo = {k for k, row in labels.items() if (images / row["file_name"]).exists()}
    assert set(rows["id"]) == with_photo
    assert len(with_photo) == 5
    assert len(skip.skipped) == len(labels) - 5 == 1906
    assert all("does not exist" in line and "coco_final.csv, line" in line for line in skip.skipped)
    for row in rows:
        label = labels[row["id"]]
        assert (row["hour"], row["minute"]) == (int(label["hour"]), int(label["minute"]))
        w, h = json.loads(label["bbox_det"])[2:]
        # A square with a fifth of the clock around it, as far as the photograph goes.
        assert max(row["image"].size) <= 1.4 * max(w, h) + 2
        assert max(row["image"].size) >= min(max(w, h), *Image.open(images / label["file_name"]).size) - 1


@pytest.mark.parametrize(("name", "count"), [("coco_final.csv", 1911), ("openimg_final.csv", 1317)])
def test_every_official_label_is_readable_but_for_its_photograph(shared, name, count):
    skip = RowErrors("skip")
    with pytest.raises(InvalidData, match=f"the split is empty .{count} rows skipped"):
        photos.load(official(shared, name), Path("nowhere"), skip)
    assert len(skip.skipped) == count
    assert all("does not exist" in line for line in skip.skipped)
    with pytest.raises(InvalidData, match=f"{name}, line 2, field file_name: .*does not exist"):
        photos.load(official(shared, name), Path("nowhere"))


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("[200, 200, 9, 9]", "lies outside the 40 x 30 picture"),
        ("[1, 2, 0, 9]", "no box with an area"),
        ("[1, 2, 9]", "no box with an area"),
        ("one", "is no box"),
        ("{}", "is no box"),
        ("[NaN, 2, 9, 9]", "is no box"),
        ("[1, 2, 9, 1e999]", "is no box"),
        ("[]", "is no box"),
        ("[[]]", "is no box"),
        ("[5, 5, 1, 1]", "leaves 1 x 1 pixels, which show no clock"),
        ("[0.1, 0.2, 0.5, 0.6]", "reads as parts of 1"),
        ("[5, 5, 60, 70]", "lies outside the 40 x 30 picture"),
        ("[[1, 2, 9, 9], [2, 2, 9, 9]]", "give the one box"),
    ],
)
def test_broken_boxes_are_named_or_skipped(tmp_path, box, message):
    file = table(tmp_path, "file_name,hour,minute,bbox_det", 'a.png,3,4,"[5, 5, 10, 10]"', f'a.png,3,4,"{box}"')
    with pytest.raises(InvalidData, match=message) as error:
        photos.load(file)
    assert "labels.csv, line 3" in str(error.value)
    skip = RowErrors("skip")
    (row,) = photos.load(file, row_errors=skip)
    assert row["image"].size == (14, 14)
    assert len(skip.skipped) == 1


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_labels_as_json_hold_lists_and_numbers(tmp_path, suffix):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    rows = [
        {"image": "a.png", "hour": 15, "minute": 4.0, "bbox_xywh": [5, 5, 10, 10], "img_id": 7},
        {"image": "a.png", "hour": "10", "minute": "8", "bbox_xywh": [[5, 5, 20, 20]]},
        {"image": "a.png", "hour": 1, "minute": 2, "bbox_xywh": None},
        {"image": "a.png", "hour": 1, "bbox_xywh": "5"},
    ]
    lines = [json.dumps(row) for row in rows]
    file = tmp_path / f"labels.{suffix}"
    file.write_text("\n".join(lines) if suffix == "jsonl" else f"[{', '.join(lines)}]")
    with pytest.raises(InvalidData, match="field minute: None is no whole number"):
        photos.load(file)
    skip = RowErrors("skip")
    read = photos.load(file, row_errors=skip)
    assert [(r["id"], r["hour"], r["minute"]) for r in read] == [("7", 3, 4), ("1-a", 10, 8), ("2-a", 1, 2)]
    assert [r["image"].size for r in read] == [(12, 12), (24, 24), (40, 30)]
    assert len(skip.skipped) == 1


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_column_of_corners_is_refused(tmp_path, on_error):
    lines = [f'a.png,{h},4,"[{h}, {h}, {h + 28}, {h + 17}]"' for h in range(1, 13)]
    file = table(tmp_path, "image,hour,minute,bbox_xywh", *lines)
    with pytest.raises(ContradictedColumn, match=r"bbox_xywh: read as \[x, y, w, h\] in pixels"):
        photos.load(file, row_errors=RowErrors(on_error))
