"""Boxes lie on the frame that their annotations are of, for pictures of all eight EXIF orientations."""

import io
import json

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from data.common.errors import InvalidData, RowErrors
from data.common.frames import Frames, unturned
from data.common.images import check_bytes, check_picture, stored
from data.common.rgb import rgb
from data.grounding import categories, refcoco, table
from data.jsonl import Jsonl
from data.text_detection import release
from tests.support.refer_release import python2_pickle, ref

STORED = (80, 40)
RED = (10, 6, 30, 18)  # the box in the stored pixels
SIDEWAYS = (5, 6, 7, 8)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


def photo(file, orientation, size=STORED):
    """White, with a red box at `RED` of the stored pixels."""
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).rectangle((RED[0], RED[1], RED[2] - 1, RED[3] - 1), fill="red")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    if file.suffix == ".jpg":
        picture.save(file, exif=exif, quality=95)
    else:
        picture.save(file, exif=exif)
    return file


def shown_box(orientation, size=STORED):
    """`RED` in the picture as viewers show it, found by turning a mask as the EXIF standard says."""
    mask = np.zeros(size[::-1], dtype=bool)
    mask[RED[1] : RED[3], RED[0] : RED[2]] = True
    turns = {
        1: mask,
        2: mask[:, ::-1],
        3: mask[::-1, ::-1],
        4: mask[::-1],
        5: mask.T,
        6: np.rot90(mask, -1),
        7: mask[::-1, ::-1].T,
        8: np.rot90(mask),
    }
    ys, xs = np.nonzero(turns[orientation])
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def assert_red(row, box, size):
    """The row's box is `box`, of a picture of `size`, and what it surrounds there is the red box."""
    assert (row["width"], row["height"]) == row["image"].size == size
    assert tuple(row["box"]) == box
    red, green, _ = np.asarray(row["image"].convert("RGB")).astype(int).transpose(2, 0, 1)
    is_red = (red > 200) & (green < 100)
    x1, y1, x2, y2 = box
    assert is_red[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
    assert is_red.sum() < 1.3 * (x2 - x1) * (y2 - y1)


def xywh(box):
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def coco_file(file, size, box):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg"} | ({"width": size[0], "height": size[1]} if size else {})],
        "annotations": [{"id": 11, "image_id": 1, "category_id": 1, "bbox": xywh(box), "area": 240}],
        "categories": [{"id": 1, "name": "box"}],
    }
    file.write_text(json.dumps(content))
    return file


def read_coco(folder, size, box, errors):
    return categories.load(folder, "test", coco_file(folder / "coco.json", size, box), errors)


def read_refcoco(folder, size, box, errors):
    coco_file(folder / "instances.json", size, box)
    (folder / "refs(unc).p").write_bytes(python2_pickle([{**ref(0, 11, "train", "the red one"), "image_id": 1}]))
    return refcoco.load(folder, "unc", ["train"], folder, errors)


def read_table(folder, size, box, errors):
    row = {"image": "a.jpg", "sent": "the red one", "bbox": xywh(box)}
    row |= {"width": size[0], "height": size[1]} if size else {}
    (folder / "t.jsonl").write_text(json.dumps(row))
    return table.load([folder / "t.jsonl"], "test", {}, None, None, errors)


def read_own_table(folder, size, box, errors):
    row = {"image": "a.jpg", "prompt": "red?", "answer": box}
    row |= {"width": size[0], "height": size[1]} if size else {}
    (folder / "t.jsonl").write_text(json.dumps(row))
    source = Jsonl("box", test=str(folder / "t.jsonl"))
    source.row_errors = errors
    return source.rows("test")


# A size that fits both frames, or none at all.
UNDECIDED = [(orientation, size) for orientation in range(2, 9) for size in ((60, 60), None)]
UNDECIDED += [(orientation, STORED) for orientation in (2, 3, 4)]
READERS = [read_coco, read_refcoco, read_table, read_own_table]
# Where nothing is said: COCO's files are of the stored pixels, tables of what their author saw.
CONVENTIONS = [(read_coco, "stored"), (read_refcoco, "stored"), (read_table, "shown"), (read_own_table, "shown")]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("reader", READERS)
def test_sizes_that_fit_one_frame_decide(tmp_path, reader, orientation):
    photo(tmp_path / "a.jpg", orientation)
    shown = STORED[::-1] if orientation in SIDEWAYS else STORED
    errors = RowErrors()
    if orientation in SIDEWAYS:
        assert_red(reader(tmp_path, STORED, RED, errors)[0], RED, STORED)
        assert "the sizes of 1 say that boxes lie on the stored pixels" in errors.notes[0]
        errors = RowErrors()
        assert_red(reader(tmp_path, shown, shown_box(orientation), errors)[0], shown_box(orientation), shown)
        assert "the sizes of 1 say that boxes lie on the pictures as shown" in errors.notes[0]
    elif orientation == 1:
        assert_red(reader(tmp_path, STORED, RED, errors)[0], RED, STORED)
        assert not errors.notes


@pytest.mark.parametrize(("reader", "convention"), CONVENTIONS)
@pytest.mark.parametrize(("orientation", "size"), UNDECIDED)
def test_where_sizes_fit_both_the_convention_decides(tmp_path, reader, convention, orientation, size):
    """A square picture, a file without sizes, and one turned by 180 degrees or mirrored."""
    of = size or STORED
    photo(tmp_path / "a.jpg", orientation, of)
    turned = convention == "shown"
    box, seen = (shown_box(orientation, of), of) if turned else (RED, of)
    if turned and orientation in SIDEWAYS:
        seen = of[::-1]
    errors = RowErrors()
    assert_red(reader(tmp_path, size, box, errors)[0], box, seen)
    assert "1 mention of a picture with an EXIF orientation: 1 fit both frames or give no size" in errors.notes[0]


@pytest.mark.parametrize("reader", READERS)
def test_a_size_of_neither_frame_is_refused(tmp_path, reader):
    photo(tmp_path / "a.jpg", 6)
    with pytest.raises(InvalidData, match="says 30 x 20, the picture is 80 x 40 and shown as 40 x 80"):
        reader(tmp_path, (30, 20), RED, RowErrors())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_yolos_labels_are_parts_of_the_picture_as_shown(tmp_path, orientation):
    (tmp_path / "images/train").mkdir(parents=True)
    (tmp_path / "labels/train").mkdir(parents=True)
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [box]\n")
    photo(tmp_path / "images/train/a.jpg", orientation)
    width, height = STORED[::-1] if orientation in SIDEWAYS else STORED
    x1, y1, x2, y2 = box = shown_box(orientation)
    label = f"0 {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} {(y2 - y1) / height}\n"
    (tmp_path / "labels/train/a.txt").write_text(label)
    row = categories.load(tmp_path, "train", None, RowErrors())[0]
    assert row["box"] == pytest.approx(box)
    assert_red({**row, "box": box}, box, (width, height))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("said", ["stored", "shown", None])
def test_outlines_of_text(tmp_path, orientation, said):
    """MMOCR's files give sizes; the releases' own don't, and were made on the stored pixels."""
    (tmp_path / "images").mkdir()
    photo(tmp_path / "images/img_1.jpg", orientation)
    shown = STORED[::-1] if orientation in SIDEWAYS else STORED
    frame = shown if said == "shown" and orientation in SIDEWAYS else STORED
    x1, y1, x2, y2 = box = shown_box(orientation) if frame != STORED else RED
    points = [x1, y1, x2, y1, x2, y2, x1, y2]
    if said:
        item = {"img_path": "img_1.jpg", "width": frame[0], "height": frame[1]}
        item |= {"instances": [{"polygon": points, "ignore": False, "text": "a"}]}
        (tmp_path / "truth.json").write_text(json.dumps({"data_list": [item]}))
        rows = release.load(tmp_path / "truth.json", tmp_path / "images", "mmocr", "test", RowErrors())
    else:
        (tmp_path / "truth").mkdir()
        (tmp_path / "truth/gt_img_1.txt").write_text(",".join(map(str, [*points, "a"])))
        rows = release.load(tmp_path / "truth", tmp_path / "images", "icdar2015", "test", RowErrors())
    assert rows[0]["polygons"][0] == [[x1, y1], [x2, y1], [x2, y2], [x1, y2]]
    assert_red({**rows[0], "box": box}, box, frame)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_an_unturned_picture_has_the_stored_pixels(tmp_path, suffix, orientation):
    file = photo(tmp_path / f"a{suffix}", orientation)
    content = unturned(stored(file))["bytes"]
    assert check_bytes(content, "here") == (STORED, 1)
    # The same pixels in a file that has no orientation.
    with Image.open(photo(tmp_path / f"plain{suffix}", 1)) as plain, Image.open(io.BytesIO(content)) as after:
        assert (np.asarray(after) == np.asarray(plain)).all()


@pytest.mark.parametrize("mode", ["P", "LA", "L", "1", "RGBA", "I;16"])
def test_modes_survive(tmp_path, mode):
    picture = Image.new("RGBA", STORED, (200, 30, 10, 128))
    picture = picture.convert("L").point(lambda v: v * 200, "I").convert("I;16") if mode == "I;16" else picture
    picture = picture if mode == "I;16" else picture.convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    picture.save(tmp_path / "a.png", exif=exif)
    content = unturned({"path": None, "bytes": (tmp_path / "a.png").read_bytes()})["bytes"]
    assert check_bytes(content, "here") == (STORED, 1)
    with Image.open(io.BytesIO(content)) as after:
        assert after.mode == picture.mode
        assert (np.asarray(after.convert("RGBA")) == np.asarray(picture.convert("RGBA"))).all()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGB", "L", "P", "I;16", "RGBA"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_tiff_of_any_mode_is_turned_back(tmp_path, mode, orientation):
    left = Image.new("L", STORED, 0)
    left.paste(255, (0, 0, STORED[0] // 4, STORED[1]))
    picture = (
        left.point(lambda v: v * 257, "I").convert("I;16") if mode == "I;16" else left.convert("RGB").convert(mode)
    )
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture.save(tmp_path / "a.tif", exif=exif)
    choice = Frames("stored").choose(
        stored(tmp_path / "a.tif"), check_picture(tmp_path / "a.tif", "here"), STORED, "here", "the file", "turn it"
    )
    assert choice[1] == STORED
    with Image.open(io.BytesIO(choice[0]["bytes"])) as after:
        assert (np.asarray(rgb(after).convert("L")) > 128).tolist() == (np.asarray(left) > 128).tolist()


def test_what_cannot_be_turned_back_costs_its_row(tmp_path, monkeypatch):
    def unreadable(picture):
        raise OSError("cannot write mode LAB as PNG")

    monkeypatch.setattr("data.common.frames.unturned", unreadable)
    photo(tmp_path / "a.jpg", 6)
    with pytest.raises(
        InvalidData,
        match=r"image 1, field image: its orientation can't be undone \(cannot write mode LAB",
    ):
        read_coco(tmp_path, STORED, RED, RowErrors())
