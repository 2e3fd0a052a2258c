"""Expressions from category boxes: what they say holds, in real photographs and in both layouts."""

import json
import shutil

import pytest
import yaml
from PIL import Image

from data.common.errors import InvalidData, RowErrors
from data.grounding import categories

SIDES = {
    "leftmost": lambda b: -(b[0] + b[2]),
    "rightmost": lambda b: b[0] + b[2],
    "topmost": lambda b: -(b[1] + b[3]),
    "lowest": lambda b: b[1] + b[3],
    "largest": lambda b: (b[2] - b[0]) * (b[3] - b[1]),
    "smallest": lambda b: -(b[2] - b[0]) * (b[3] - b[1]),
}


def labelled(folder, row):
    """All boxes of the row's photograph by category, read from the label file by other means."""
    split = {"train": "train2017", "val": "val2017"}[row["split"]]
    names = yaml.safe_load((folder / "config.yaml").read_text())["names"]
    stem = row["id"].split("-")[1]
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    for line in (folder / "labels" / split / f"{stem}.txt").read_text().splitlines():
        kind, cx, cy, w, h = line.split()
        cx, cy, w, h = (float(v) for v in (cx, cy, w, h))
        x1, y1 = (cx - w / 2) * row["width"], (cy - h / 2) * row["height"]
        x2, y2 = (cx + w / 2) * row["width"], (cy + h / 2) * row["height"]
        boxes.setdefault(names[int(kind)], []).append((x1, y1, x2, y2))
    return boxes


@pytest.mark.parametrize(("split", "count"), [("train", 402), ("val", 448)])
def test_every_expression_of_coco128_holds_for_exactly_one_box(shared, split, count):
    folder = shared / "assets/data/coco128/object_detection"
    rows = categories.load(folder, split, None, RowErrors()).remove_columns("image")
    assert len(rows) == count
    for row in rows:
        words = row["expression"].removeprefix("the ")
        first, _, rest = words.partition(" ")
        boxes = labelled(folder, row)
        if first in SIDES and rest in boxes:
            same = boxes[rest]
            ranked = sorted(same, key=SIDES[first], reverse=True)
            assert SIDES[first](ranked[0]) > SIDES[first](ranked[1])
            assert row["box"] == pytest.approx(ranked[0])
            assert row["level"] == len(same) - 1
        else:
            assert len(boxes[words]) == 1
            assert row["box"] == pytest.approx(boxes[words][0])
            assert row["level"] == 0


def yolo(folder, *lines, name="a"):
    for kind in ("images", "labels"):
        (folder / kind / "train").mkdir(parents=True, exist_ok=True)
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nnames: [dog, cat]\n")
    Image.new("RGB", (100, 50)).save(folder / f"images/train/{name}.jpg")
    (folder / f"labels/train/{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def said(folder, row_errors=None):
    rows = categories.load(folder, "train", None, row_errors or RowErrors())
    return {r["expression"]: r["box"] for r in rows}


def test_a_yolo_folder_of_ones_own(tmp_path):
    folder = yolo(tmp_path, "0 0.2 0.5 0.2 0.4", "0 0.7 0.5 0.4 0.8", "1 0.1 0.1 0.2 0.2")
    big, small, cat = [50, 5, 90, 45], [10, 15, 30, 35], [0, 0, 20, 10]
    assert said(folder) == {
        "the largest dog": pytest.approx(big),
        "the rightmost dog": pytest.approx(big),
        "the smallest dog": pytest.approx(small),
        "the leftmost dog": pytest.approx(small),
        "the cat": pytest.approx(cat),
    }


def test_outlines_are_read_as_boxes_and_close_calls_are_not_said(tmp_path):
    folder = yolo(tmp_path, "0 0.1 0.1 0.3 0.1 0.2 0.5", "0 0.12 0.1 0.32 0.1 0.22 0.5")
    with pytest.raises(InvalidData, match="the split is empty"):
        said(folder)
    yolo(tmp_path, "0 0.1 0.1 0.3 0.1 0.2 0.5")
    assert said(folder) == {"the dog": pytest.approx([10, 5, 30, 25])}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.1 0.1", "a.txt, line 2: .* is no YOLO label"),
        ("0 0.5 0.5 0.1", "a.txt, line 2: .* is no YOLO label"),
        ("0 0.5 0.5 0 0.1", "a.txt, line 2, field box: .* has no area"),
        ("0 0.9 0.5 0.5 0.1", "a.txt, line 2, field box: .* lies outside the 100 x 50"),
        ("0 nan 0.5 0.5 0.1", "a.txt, line 2, field box"),
    ],
)
def test_broken_labels_are_named_or_cost_their_photograph(tmp_path, line, message):
    folder = yolo(yolo(tmp_path, "0 0.5 0.5 0.2 0.2", line), "1 0.5 0.5 0.5 0.5", name="b")
    with pytest.raises(InvalidData, match=message):
        said(folder)
    skip = RowErrors("skip")
    # A photograph with an unreadable box might hold another, so nothing is said about it.
    assert list(said(folder, skip)) == ["the cat"]
    assert len(skip.skipped) == 1


def test_wrong_folders_are_errors_not_empty_pictures(tmp_path):
    folder = yolo(tmp_path / "y", "0 0.5 0.5 0.2 0.2")
    with pytest.raises(InvalidData, match=r"field val: no such split.*choose of train"):
        categories.load(folder, "val", None, RowErrors())
    shutil.rmtree(folder / "labels")
    with pytest.raises(InvalidData, match="no labels at"):
        said(folder)
    shutil.rmtree(folder / "images")
    with pytest.raises(InvalidData, match="no pictures at"):
        said(folder)
    (folder / "data.yaml").write_text("a: [")
    with pytest.raises(InvalidData, match="is not YAML"):
        said(folder)
    (folder / "data.yaml").write_text("just text")
    with pytest.raises(InvalidData, match="does not describe"):
        said(folder)
    with pytest.raises(InvalidData, match=r"no config.yaml or data.yaml"):
        said(tmp_path)


def test_a_coco_folder_with_a_crowd(tmp_path):
    Image.new("RGB", (100, 50)).save(tmp_path / "a.jpg")
    boxes = [
        (1, [10, 10, 20, 20], 0),
        (1, [60, 10, 35, 35], 1),
        (2, [5, 5, 40, 40], 0),
        (3, [0, 0, 50, 50], 1),
        (4, [50, 0, 20, 20], 0),
    ]
    document = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 100, "height": 50}],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": c, "bbox": b, "iscrowd": crowd}
            for i, (c, b, crowd) in enumerate(boxes)
        ],
        "categories": [
            {"id": 1, "name": "dog"},
            {"id": 2, "name": "cat"},
            {"id": 3, "name": "sheep"},
            {"id": 4, "name": "cow"},
        ],
    }
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(document))
    rows = categories.load(tmp_path, "val", file, RowErrors())
    found = {r["expression"]: r["box"] for r in rows}
    # With a crowd of dogs beside it "the dog" is unclear, and so is which is the smallest.
    assert found == {"the cat": [5, 5, 45, 45], "the cow": [50, 0, 70, 20]}
    document["annotations"][0]["bbox"] = [10, 10, 0, 20]
    file.write_text(json.dumps(document))
    with pytest.raises(InvalidData, match=r"annotation 0, field bbox: .* has no area"):
        categories.load(tmp_path, "val", file, RowErrors())
