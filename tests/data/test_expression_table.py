"""Tables of referring expressions: real items of RefCOCO and G-Ref, and the layouts of the exports in use."""

import io
import json

import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from data.common.errors import InvalidData, RowErrors
from data.grounding import table
from data.grounding.table import ExpressionTable
from tasks.grounding import Grounding


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


def load(*files, split="test", columns=None, box_format=None, images=None, row_errors=None):
    return table.load(list(files), split, columns or {}, box_format, images, row_errors or RowErrors())


def test_real_refcoco_items(shared):
    file = shared / "assets/data/refcoco/items_with_image.json"
    items, rows = json.loads(file.read_text()), load(file)
    assert len(rows) == len(items) == 26
    for row, item in zip(rows, items, strict=True):
        x, y, w, h = item["gt_box_xywh"]
        assert row["box"] == [x, y, x + w, y + h]
        assert row["expression"] == item["sent"].strip()
        assert row["image"].size == (row["width"], row["height"]) == (item["width"], item["height"])
    assert len(set(rows["id"])) == 26


def test_real_gref_items_have_corners(shared):
    file = shared / "assets/data/gref/gref_items_with_image.json"
    items, rows = json.loads(file.read_text()), load(file)
    assert len(rows) == len(items) == 3
    assert [r["box"] for r in rows] == [i["bbox_xyxy"] for i in items]
    assert [r["expression"] for r in rows] == [i["refexp"] for i in items]


def picture(size=(60, 40)):
    out = io.BytesIO()
    Image.new("RGB", size, "grey").save(out, "JPEG")
    return {"bytes": out.getvalue(), "path": None}


def parquet(file, rows):
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    return file


def test_the_layout_with_one_file_per_split_and_lists_of_answers(tmp_path):
    """question_id, image (bytes), question, answer [texts], bbox [x, y, w, h], file_name; ids begin anew per file."""
    row = {"question_id": "0", "image": picture(), "question": "?", "answer": ["left", "dog"], "bbox": [1.0, 2, 10, 20]}
    for name in ("testA-00000-of-00002.parquet", "testB-00000-of-00001.parquet"):
        parquet(tmp_path / name, [row | {"file_name": "COCO_train2014_1.jpg"}])
    files = {"test": str(tmp_path / "test[AB]-*.parquet"), "train": None}
    task = Grounding(ExpressionTable(files, splits={"test": "testA+testB"}))
    rows = task.rows("test")
    assert task.splits == ("test",)
    assert list(rows["split"]) == ["testA", "testA", "testB", "testB"]
    assert list(rows["expression"]) == ["left", "dog"] * 2
    assert rows[0]["box"] == [1, 2, 11, 22]
    assert len(set(rows["id"])) == 4
    metrics = task.summarize(task.record(task.answer(r), r) for r in rows)
    assert metrics["testA/acc_0.5"] == metrics["split_average/acc_0.5"] == 1


def test_the_layout_with_a_split_column_and_corners(tmp_path):
    """ref_id, split, sentences [{sent, ...}], image_path, bbox [x1, y1, x2, y2]: the format has to be said."""
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    rows = [
        {
            "ref_id": i,
            "split": s,
            "sentences": [{"sent": f"s{i}", "raw": "S"}],
            "image_path": "a.jpg",
            "bbox": [1, 2, 50, 30],
        }
        for i, s in enumerate(("train", "testA", "testB"))
    ]
    file = parquet(tmp_path / "all.parquet", rows)
    read = load(file, split="testA+testB", box_format="xyxy")
    assert [(r["id"], r["split"], r["box"]) for r in read] == [
        ("testA-1", "testA", [1, 2, 50, 30]),
        ("testB-2", "testB", [1, 2, 50, 30]),
    ]
    with pytest.raises(
        InvalidData, match="field split: no row is of the split validation, only of train, testA, testB"
    ):
        load(file, split="validation", box_format="xyxy")
    rows[2]["bbox"] = [20, 2, 50, 30]
    with pytest.raises(InvalidData, match=r"row 2, field bbox: .* outside the 60 x 40"):
        load(parquet(file, rows), split="testB")


GOOD = {"image": "a.jpg", "sent": "it", "bbox": [1, 2, 10, 20]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [1, 2, 0, 20]}, r"line 2, field bbox: .* has no area"),
        ({"bbox": [50, 2, 20, 20]}, r"line 2, field bbox: .* outside the 60 x 40 picture"),
        ({"bbox": None}, r"line 2, field bbox: None is not \[x, y, w, h\]"),
        ({"bbox": ["a", 2, 3, 4]}, r"line 2, field bbox"),
        ({"sent": ""}, r"line 2, field sent: '' is no expression"),
        ({"sent": 5}, r"line 2, field sent: 5 is no expression"),
        ({"image": "b.jpg"}, r"line 2, field image: .*b.jpg does not exist"),
        ({"image": "cut.jpg"}, r"line 2, field image: .*cut.jpg is broken or truncated"),
        ({"image": 7}, r"line 2, field image: 7 is neither a path nor stored bytes"),
        ({"width": 600, "height": 400}, r"line 2, field image: the table says 600 x 400"),
        ({"id": "same"}, r"line 2, expression 0, field id: 'test-same' was already used in .*line 1"),
    ],
)
def test_broken_rows_are_named_or_skipped_and_counted(tmp_path, caplog, change, message):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-20])
    good = GOOD | ({"id": "same"} if "id" in change else {})
    last = GOOD | ({"id": "other"} if "id" in change else {})
    file = tmp_path / "t.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in (good, good | change, last)))
    with pytest.raises(InvalidData, match=message):
        load(file)
    skip = RowErrors("skip")
    assert len(load(file, row_errors=skip)) == 2
    assert len(skip.skipped) == 1
    assert f"2 rows kept, 1 skipped, the first: {skip.skipped[0]}" in caplog.text


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        (
            {"image": "a.jpg", "text": "it", "bbox": [1, 2, 3, 4]},
            {},
            "no column for the expression; found image, text, bbox",
        ),
        ({"image": "a.jpg", "sent": "it"}, {}, "no column for the box"),
        ({"sent": "it", "bbox": [1, 2, 3, 4]}, {}, "no column for the image"),
        (
            GOOD,
            {"box": "gt"},
            r"field gt: there is no such column; found image, sent, bbox; set task\.source\.columns\.box",
        ),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_wrong_columns_are_errors_either_way(tmp_path, row, columns, message, on_error):
    file = tmp_path / "t.json"
    file.write_text(json.dumps([row]))
    with pytest.raises(InvalidData, match=message):
        load(file, columns=columns, row_errors=RowErrors(on_error))


def test_columns_of_any_name(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    file = tmp_path / "t.csv"
    file.write_text('pic,say,where_xyxy\na.jpg,it,"[1, 2, 30, 20]"\n')
    columns = {"image": "pic", "expression": "say", "box": "where_xyxy"}
    assert load(file, columns=columns)[0]["box"] == [1, 2, 30, 20]


def test_a_csv_with_sizes(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    file = tmp_path / "t.csv"
    line = 'a.jpg,it,"[1, 2, 30, 20]"'
    file.write_text(f"image,sent,bbox_xyxy,width,height\n{line},60,40\n{line},,\n")
    assert load(file)["width"] == [60, 60]
    file.write_text(f"image,sent,bbox_xyxy,width,height\n{line},600,400\n")
    with pytest.raises(InvalidData, match="line 2, field image: the table says 600 x 400, the picture is 60 x 40"):
        load(file)


def test_columns_are_those_of_any_object(tmp_path):
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg")
    file = tmp_path / "t.jsonl"
    rows = [{"image": "a.jpg", "sent": "it", "split": "test"}, GOOD | {"split": "test"}, GOOD | {"split": "val"}, GOOD]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    skip = RowErrors("skip")
    assert load(file, row_errors=skip)["id"] == ["t-1"]
    assert [line.partition("field ")[2] for line in skip.skipped] == [
        "bbox: None is not [x, y, w, h]; write a box as [x, y, w, h] in pixels",
        "split: is missing; give every row its split, or leave the column out",
    ]


def test_stored_pictures_go_to_disk_and_are_removed_with_the_process(tmp_path):
    import subprocess
    import sys

    file = parquet(tmp_path / "t.parquet", [GOOD | {"image": picture()} for _ in range(3)])
    code = f"""
from pathlib import Path
from data.common.errors import RowErrors
from data.grounding import table
rows = table.load([Path({str(file)!r})], "test", {{}}, None, None, RowErrors())
print(rows.cache_files[0]["filename"], rows[2]["image"].size)
assert Path(rows.cache_files[0]["filename"]).exists()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "(60, 40)" in done.stdout
    assert not list((tmp_path / "cache/tables").iterdir())
