"""Tables as others write them: the form of a column, embedded pictures, layouts, and what is refused in one line."""

import base64
import csv
import datetime
import io
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from data.common import fields
from data.common.errors import InvalidData, RowErrors, short
from data.common.source import matching_file
from data.grounding import categories
from data.grounding.table import ExpressionTable
from data.jsonl import Jsonl

SIZE = (640, 480)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "in/b.png"):
        Image.new("RGB", SIZE).save(tmp_path / name)
    return tmp_path


def write(file, rows):
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), file)
    else:
        file.write_text("\n".join(map(json.dumps, rows)))
    return file


def answers(folder, metric, values, on_error="raise", name="t.jsonl", **options):
    """What is taught of a table with these answers: the rows' truth, and the source."""
    rows = [{"image": "a.png", "prompt": f"{i}?", "answer": value} for i, value in enumerate(values)]
    source = Jsonl(metric, test=str(write(folder / name, rows)), on_error=on_error, **options)
    return source.rows("test"), source


PIXELS = [[10, 20, 300, 400], [5, 5, 600, 470], [100, 50, 220, 300], [1, 2, 3, 4], [30, 30, 90, 60]]
# Declared pixels and [x1, y1, x2, y2]; each value alone may be a box of that form, the column is none.
COLUMNS = {
    "parts of 1": [[x1 / 640, y1 / 480, x2 / 640, y2 / 480] for x1, y1, x2, y2 in PIXELS],
    "from 0 to 1000": [[x1 / 0.64, y1 / 0.48, x2 / 0.64, y2 / 0.48] for x1, y1, x2, y2 in PIXELS],
    r"\[x, y, w, h\]": [[5, 6, 300, 400], [200, 150, 40, 300], [300, 200, 90, 60], [1, 2, 50, 40], [400, 5, 30, 60]],
    r"\[cx, cy, w, h\]": [
        [150, 200, 300, 400],
        [200, 150, 40, 30],
        [35, 20, 60, 40],
        [25, 20, 50, 40],
        [600, 5, 80, 6],
    ],
}


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("form", COLUMNS)
def test_a_column_of_another_form_is_refused_whatever_on_error_says(folder, form, on_error):
    with pytest.raises(InvalidData, match=rf"t.jsonl, field answer: read as \[x1, y1, x2, y2\] in pixels.* {form}"):
        answers(folder, "box", COLUMNS[form], on_error)


@pytest.mark.parametrize("column", ["bbox", "bbox_xyxy"])
@pytest.mark.parametrize("box", [[0.15, 0.2, 0.47, 0.6], [0, 0, 1, 1]])
def test_a_box_of_parts_of_1_is_no_box_of_pixels(folder, column, box):
    """F4: it was taught as [0, 0, 1, 1]."""
    rows = [{"image": "a.png", "sent": "it", column: box}]
    source = ExpressionTable({"test": str(write(folder / "t.jsonl", rows))})
    with pytest.raises(InvalidData, match=rf"line 1, field {column}: .* reads as parts of 1, not as pixels"):
        source.rows("test")


def test_one_bad_box_is_a_row_and_no_column(folder):
    rows, source = answers(folder, "box", [*PIXELS, [0.1, 0.2, 0.3, 0.4]], "skip")
    assert rows["box"] == [list(map(float, box)) for box in PIXELS]
    assert len(source.row_errors.skipped) == 1


def test_thousandths_in_larger_pictures_are_noted(folder):
    Image.new("RGB", (1600, 1200)).save(folder / "a.png")
    boxes = [[10 * i, 10 * i, 100 * i + 90, 90 * i + 80] for i in range(10)]
    _, source = answers(folder, "box", boxes)
    assert "no number of 10 boxes is above 1000" in source.row_errors.notes[0]
    assert not answers(folder, "box", [*boxes, [1, 1, 1500, 1100]])[1].row_errors.notes


TRIANGLE = [[10, 10], [600, 20], [300, 400]]
OTHER_FORMS = [
    ("polygon", [[[x / 640, y / 480] for x, y in TRIANGLE]] * 3, "points as parts of 1"),
    ("polygon", [[[x / 0.64, y / 0.48] for x, y in TRIANGLE]] * 3, "points from 0 to 1000"),
    ("numeric", ["3,5", "1.234", "12,75", "7"], "numbers with a decimal comma"),
    ("numeric", ["1,234", "567", "12,000", "0.5"], "numbers with a comma for thousands"),
    ("numeric", ["50%", "7 %"], "percentages"),
    ("time", ["08:10", "30:11", "45:12", "05:06"], "MM:HH"),
]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(("metric", "values", "form"), OTHER_FORMS)
def test_columns_of_points_numbers_and_times_have_a_form_too(folder, metric, values, form, on_error):
    with pytest.raises(InvalidData, match=rf"t.jsonl, field answer: read as .* can be {form}; write"):
        answers(folder, metric, values, on_error)


@pytest.mark.parametrize(
    ("metric", "values", "bad"), [("numeric", ["1", "2.5", "3,5", "1.234"], 2), ("time", ["10:08", "75:00", "1:05"], 1)]
)
def test_a_single_value_of_another_form_is_a_broken_row(folder, metric, values, bad):
    rows, source = answers(folder, metric, values, "skip")
    assert [row["prompt"] for row in rows] == [f"{i}?" for i in range(len(values)) if i != bad]
    assert len(source.row_errors.skipped) == 1


def stored(kind="PNG"):
    out = io.BytesIO()
    Image.new("RGB", SIZE, "red").save(out, kind)
    return out.getvalue()


def base64_of(kind="PNG"):
    return base64.b64encode(stored(kind)).decode()


@pytest.mark.parametrize(
    "image",
    [
        base64_of(),
        base64_of("JPEG"),
        base64_of("WEBP"),
        "\n".join(base64_of()[i : i + 76] for i in range(0, len(base64_of()), 76)),
        "data:image/png;base64," + base64_of(),
        "data:image/png;charset=utf-8;base64," + base64_of(),
        {"bytes": base64_of(), "path": "gone.png"},
        ["a.png"],
        "in\\b.png",
        ".\\a.png",
        " a.png ",
    ],
)
def test_a_picture_as_others_store_it(folder, image):
    file = write(folder / "t.jsonl", [{"image": image, "prompt": "?", "answer": 1}])
    (row,) = Jsonl(test=str(file)).rows("test")
    assert row["image"].size == (row["width"], row["height"]) == SIZE


def test_a_picture_beyond_16_bits_is_refused_when_it_is_read(folder):
    Image.fromarray(np.array([[0, 70000]], dtype=np.int32)).save(folder / "a.tif")
    file = write(folder / "t.jsonl", [{"image": "a.tif", "prompt": "?", "answer": 1}])
    with pytest.raises(
        InvalidData, match="line 1, field image: the picture holds values from 0 to 70000, beyond 16 bits"
    ):
        Jsonl(test=str(file)).rows("test")


def test_a_csv_of_base64_and_raw_bytes_in_parquet(folder):
    """F6: fields of a CSV are longer than Python's limit of 131,072 characters."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8))
    out = io.BytesIO()
    noise.save(out, "PNG")
    text = base64.b64encode(out.getvalue()).decode()
    assert len(text) > csv.field_size_limit()
    (folder / "t.csv").write_text(f"image,prompt,answer\n{text},?,1\n")
    write(folder / "t.parquet", [{"image": out.getvalue(), "prompt": "?", "answer": 1}])
    for name in ("t.csv", "t.parquet"):
        (row,) = Jsonl(test=str(folder / name)).rows("test")
        assert row["image"].size == (300, 300)
        assert row["image"].tobytes() == noise.tobytes()


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        ("a\0.png", "holds a NUL character"),
        ("a\ud800.png", "is no Unicode text"),
        ("x" * 1_600_000, "does not exist"),
        ("/9j/" + "A" * 1_600_000, "broken"),
        ("data:image/png;base64,%%%", "is a data URI without base64"),
        ("https://example.org/a.png", "is a web address"),
        ("C:\\data\\a.png", "is a path of another machine"),
        ("~nobody-of-this-name/a.png", "is no path"),
        (["a.png", "in/b.png"], "is neither a path nor stored bytes"),
        ({"bytes": None, "path": None}, "is neither a path nor stored bytes"),
        ([0] * 100_000, "is neither a path nor stored bytes"),
    ],
)
def test_what_is_no_picture_is_one_short_line(folder, image, problem):
    rows = [{"image": image, "prompt": "?", "answer": 1}, {"image": "a.png", "prompt": "?", "answer": 2}]
    file = write(folder / "t.jsonl", rows)
    with pytest.raises(InvalidData, match=rf"t.jsonl, line 1, field image: .*{problem}") as error:
        Jsonl(test=str(file)).rows("test")
    assert len(str(error.value)) < 1000
    assert len(str(error.value).splitlines()) == 1
    assert Jsonl(test=str(file), on_error="skip").rows("test")["answer"] == ["2"]


@pytest.mark.parametrize("kind", [pa.float32(), pa.float16(), pa.float64()])
def test_short_floats_of_parquet_are_the_numbers_that_were_written(folder, kind):
    """F11: 0.10000000149011612 was taught and required."""
    numbers = pa.array(np.array([0.1, 2.5, -0.3], dtype=kind.to_pandas_dtype()), kind)
    table = pa.table({"prompt": ["a", "b", "c"], "answer": numbers})
    for metric in ("numeric", "exact"):
        file = write(folder / "t.parquet", table)
        assert list(Jsonl(metric, test=str(file)).rows("test")["answer"]) == ["0.1", "2.5", "-0.3"]


@pytest.mark.parametrize(
    ("metric", "values", "taught"),
    [
        ("numeric", [Decimal("12.50"), Decimal("-3.00")], ["12.5", "-3"]),
        ("exact", [Decimal("12.50")], ["12.50"]),
        ("box", [[Decimal(1), Decimal(2), Decimal("30.5"), Decimal(40)]], [[1, 2, 30.5, 40]]),
        ("time", [datetime.time(10, 8)], [10]),
        ("time", [{"hour": 13.0, "minute": 8.0}], [1]),
    ],
)
def test_types_of_parquet(folder, metric, values, taught):
    rows = [{"image": "a.png", "prompt": "?", "answer": v, "level": Decimal(1)} for v in values]
    read = Jsonl(metric, test=str(write(folder / "t.parquet", rows))).rows("test")
    assert read[{"box": "box", "time": "hour"}.get(metric, "answer")] == taught
    assert read["level"] == [1] * len(values)


ROWS = [{"prompt": f"{i}?", "answer": i} for i in range(3)]
LINES = "\n".join(map(json.dumps, ROWS))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", LINES),  # what `Dataset.to_json` writes
        ("t.json", json.dumps(ROWS, indent=1)),
        ("t.jsonl", json.dumps(ROWS)),
        ("t.jsonl", json.dumps(ROWS, indent=1)),
        ("t.json", "\ufeff" + LINES),
        ("br[1].jsonl", LINES),  # T13
        ("t*.jsonl", LINES),
        ("t.csv", "prompt,answer\r\n0?,0\r\n1?,1\r\n2?,2\r\n"),
    ],
)
def test_layouts_of_the_same_rows(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    (tmp_path / "tx.jsonl").write_text("not read, as the pattern is a file's name")
    assert Jsonl(test=str(tmp_path / name)).rows("test")["answer"] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "prompt,answer\na,1\nprompt,answer\nb,2\n", r"t.csv, line 3: repeats the header"),
        ("t.jsonl", '{"prompt": "a", "answer": NaN}\n' + LINES, r"t.jsonl, line 1, field answer: is missing or empty"),
        ("t.jsonl", '{"prompt": "a", "answer": Infinity}\n' + LINES, r"line 1, field answer: inf is no answer"),
        (
            "t.jsonl",
            '{"prompt": "a", "answer": 1, "answer": 2}\n' + LINES,
            r"line 1: not JSON .the key 'answer' is there",
        ),
        ("t.jsonl", '{"prompt": "a\\ud800", "answer": 1}\n' + LINES, r"line 1, field prompt: is no Unicode text"),
        ("t.jsonl", '{"prompt": "a", "answer": 1, "id": [1]}\n' + LINES, r"line 1, field id: \[1\] is neither"),
    ],
)
def test_rows_that_are_none(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidData, match=message):
        Jsonl(test=str(tmp_path / name)).rows("test")
    source = Jsonl(test=str(tmp_path / name), on_error="skip")
    assert len(source.rows("test")) == (2 if name == "t.csv" else 3)
    assert len(source.row_errors.skipped) == 1


@pytest.mark.parametrize(
    "content", ['{"prompt": {"0": "a"}, "answer": {"0": 1}}', '{"prompt": ["a"], "answer": [1]}', "{}"]
)
def test_an_object_of_columns_is_no_table(tmp_path, content):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(InvalidData, match=r"t.json: is no list of objects; write one, or an object a line"):
        Jsonl(test=str(tmp_path / "t.json"), on_error="skip").rows("test")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_two_columns_of_one_name(tmp_path, name):
    if name == "t.csv":
        (tmp_path / name).write_text("prompt,answer,answer\na,1,2\n")
    else:
        write(tmp_path / name, pa.Table.from_arrays([pa.array(["a"])] * 3, names=["prompt", "answer", "answer"]))
    with pytest.raises(InvalidData, match="field answer: there are several columns of this name"):
        Jsonl(test=str(tmp_path / name), on_error="skip").rows("test")


def test_a_first_row_without_its_picture_does_not_cost_the_others(folder):
    rows = [{"image": image, "prompt": "?", "answer": i} for i, image in enumerate((None, "a.png", "a.png"))]
    source = Jsonl(test=str(write(folder / "t.jsonl", rows)), on_error="skip")
    assert source.rows("test")["answer"] == ["1", "2"]


def test_one_file_where_one_is_needed(tmp_path):
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InvalidData, match=r"matches 2 files, a.json and b.json among them"):
        matching_file({"test": str(tmp_path / "*.json")}, "test")


def yolo(folder, names="[dog, cat]", train="images/train", pictures=("images/train/a.jpg",)):
    (folder / "data.yaml").write_text(f"train: {train}\nnames: {names}\n")
    for picture in pictures:
        path = folder / picture
        labels = folder / picture.replace("images", "labels")
        path.parent.mkdir(parents=True, exist_ok=True)
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50)).save(path)
        labels.with_suffix(".txt").write_text("0 0.5 0.5 0.2 0.4\n")
    return folder


def said(folder, row_errors=None):
    return categories.load(folder, "train", None, row_errors or RowErrors())["id"]


def test_yolo_pictures_of_every_format_and_what_is_left_out(tmp_path):
    """F9: a folder of jpg, webp, bmp and tif gave one row."""
    names = [f"images/train/{name}" for name in ("a.jpg", "b.webp", "c.bmp", "d.tif", "sub/a.png")]
    folder = yolo(tmp_path, pictures=names)
    (folder / "images/train/e.heic").write_bytes(b"?")
    (folder / "labels/train/f.txt").write_text("0 0.5 0.5 0.2 0.4\n")
    row_errors = RowErrors()
    assert said(folder, row_errors) == [f"train-{n}-0" for n in ("a.jpg", "b", "c", "d", "sub/a.png")]
    assert "1 files are no pictures and left out, e.heic among them" in row_errors.notes[0]
    assert "1 files of labels have no picture, f.txt among them" in row_errors.notes[1]


@pytest.mark.parametrize(
    ("train", "picture"),
    [
        ("../train/images", "train/images/a.jpg"),  # Roboflow
        ("..\\train\\images", "train/images/a.jpg"),
        ("./images/train", "images/train/a.jpg"),
    ],
)
def test_yolo_folders_as_exporters_name_them(tmp_path, train, picture):
    (tmp_path / "export").mkdir()
    assert said(yolo(tmp_path / "export", train=train, pictures=[picture])) == ["train-a-0"]


def test_yolo_text_with_a_byte_order_mark_or_in_another_encoding(tmp_path):
    folder = yolo(tmp_path, pictures=("images/train/a.jpg", "images/train/b.jpg"))
    for file in (folder / "data.yaml", folder / "labels/train/a.txt"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert said(folder) == ["train-a-0", "train-b-0"]
    (folder / "labels/train/a.txt").write_bytes(b"0 0.5 0.5 0.2 0.4 \xe9")
    with pytest.raises(InvalidData, match=r"a.txt: is not UTF-8"):
        said(folder)
    assert said(folder, RowErrors("skip")) == ["train-b-0"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[yes, no]", r"field names\[0\]: True is no text; write the name in quotes"),
        ("{0: dog, 0: cat}", "the key '0' is there twice"),
        ("{dog: 0}", "field names: 'dog' is no whole number"),
        ("[2024-99-99, cat]", "is not YAML|is no text"),
    ],
)
def test_yolo_names_that_yaml_reads_otherwise(tmp_path, names, message):
    with pytest.raises(InvalidData, match=message):
        said(yolo(tmp_path, names=names))


def test_yolo_labels_as_tools_write_them(tmp_path):
    """A class as 0.0, and an object twice: two dogs in one place were no dog."""
    folder, row_errors = yolo(tmp_path), RowErrors()
    (folder / "labels/train/a.txt").write_text("0.0 0.5 0.5 0.2 0.4\n0 0.5 0.5 0.2 0.4\n\n")
    assert said(folder, row_errors) == ["train-a-0"]
    assert "1 labels are there twice, and read once" in row_errors.notes[0]


def test_two_yolo_pictures_with_one_file_of_labels(tmp_path):
    folder = yolo(tmp_path, pictures=[f"images/train/{name}" for name in ("a.jpg", "a.png", "b.jpg")])
    with pytest.raises(InvalidData, match=r"a.jpg: shares its labels, a.txt, with a.png"):
        said(folder)
    assert said(folder, RowErrors("skip")) == ["train-b-0"]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_yolo_labels_in_pixels_or_by_corners(tmp_path, on_error):
    folder = yolo(tmp_path)
    lines = ["0 0.1 0.1 0.3 0.3", "0 0.6 0.5 0.9 0.9", "1 0.1 0.6 0.95 0.95"]
    for number, line in enumerate(lines):
        Image.new("RGB", (100, 50)).save(folder / f"images/train/{number}.jpg")
        (folder / f"labels/train/{number}.txt").write_text(line)
    (folder / "images/train/a.jpg").unlink()
    with pytest.raises(InvalidData, match=r"data.yaml, field labels: read as \[cx, cy, w, h\] as parts of 1, but 3 of"):
        said(folder, RowErrors(on_error))


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (
            fields.number,
            [1, 0.5, "1e3", " -2 ", ".5", Decimal("0.1")],
            [True, "1_0", "１", "nan", float("inf"), 10**400],
        ),
        (fields.whole, [1, 3.0, "4", "5.0"], [0.5, 2**31, None, "", [1], False]),
        (fields.flag, [0, 1, True, "0", "true", None, 1.0], [2, "maybe", [], -1]),
        (fields.key, [7, 7.0, "7", "a-1"], [None, 0.5, [], True, float("nan"), ""]),
        (fields.text, ["a", " é "], ["", " ", 5, None, "a\0", "\ud800", ["a"]]),
        (fields.items, [[], (1,)], ["abc", {}, None, 5]),
    ],
)
def test_the_checks_of_values(check, good, bad):
    for value in good:
        check(value, "file, line 1", "field")
    for value in bad:
        with pytest.raises(InvalidData, match="file, line 1, field field: "):
            check(value, "file, line 1", "field")


@pytest.mark.parametrize("value", ["\ud800", ["a", "\ud800"], {"a": ["\ud800"]}, {"\ud800": 1}, [[("\udfff",)]]])
def test_a_lone_surrogate_is_found_wherever_it_is(value):
    with pytest.raises(InvalidData, match="file, line 1, field skills: is no Unicode text"):
        fields.require_unicode(value, "file, line 1", "skills")


@pytest.mark.parametrize("value", ["x" * 10**6, b"\xff" * 10**6, [0] * 10**5, 10**5000, {"a": "b" * 10**5}], ids=type)
def test_a_message_quotes_no_megabyte(value):
    assert len(short(value)) < 100
    assert len(str(InvalidData("f", "x", f"{'y' * 10**6} is wrong", "repair it"))) < 800


def test_the_picture_mark_of_llava_tables_is_left_out(folder):
    rows = [
        {"image": "a.png", "prompt": prompt, "answer": "1"} for prompt in ("<image>\nHow many?", "How far?\n<image>")
    ]
    source = Jsonl(test=str(write(folder / "t.jsonl", rows)))
    assert source.rows("test")["prompt"] == ["How many?", "How far?"]
    assert "<image> at an end of the questions is left out" in source.row_errors.notes[0]
    for prompt in ("<image><image> Which?", "Is <image> red?"):
        rows[1]["prompt"] = prompt
        with pytest.raises(InvalidData, match="line 2, field prompt: <image> stands for one picture"):
            Jsonl(test=str(write(folder / "u.jsonl", rows))).rows("test")
    text = [{"prompt": "What does <image> mean?", "answer": "a picture"}]
    assert Jsonl(test=str(write(folder / "v.jsonl", text))).rows("test")["prompt"] == ["What does <image> mean?"]


def test_columns_of_other_meaning_are_left_alone(folder):
    rows = [{"prompt": "?", "answer": "1", "level": f"Level {i}", "width": 12.5, "height": None} for i in range(3)]
    source = Jsonl(test=str(write(folder / "t.jsonl", rows)))
    assert source.rows("test")["level"] == [0, 0, 0]
    assert "the column level has 'Level 2', which is no number" in source.row_errors.notes[0]
    with pytest.raises(InvalidData, match="line 1, field level: 'Level 0' is no whole number"):
        Jsonl(test=str(folder / "t.jsonl"), columns={"level": "level"}).rows("test")
    pictured = [{"image": "a.png", "prompt": "?", "answer": "1", "width": 5, "height": 7}]
    assert Jsonl(test=str(write(folder / "p.jsonl", pictured))).rows("test")["width"] == [640]
    with pytest.raises(InvalidData, match="says 5 x 7, the picture is 640 x 480"):
        Jsonl("box", test=str(write(folder / "b.jsonl", [pictured[0] | {"answer": [1, 2, 3, 4]}]))).rows("test")


def test_a_column_of_weights_is_needed_of_training_tables_alone(folder):
    train = write(folder / "train.jsonl", [{"prompt": f"{i}?", "answer": "1", "w": i} for i in range(4)])
    test = write(folder / "test.jsonl", [{"prompt": "?", "answer": "1"}])
    source = Jsonl(columns={"weight": "w"}, train=str(train), validation=str(test), test=str(test))
    assert sorted(source.rows("train")["prompt"]) == ["1?", "2?", "2?", "3?", "3?", "3?"]
    assert source.rows("test").column_names == source.rows("validation").column_names
    with pytest.raises(InvalidData, match="field w: no such column"):
        Jsonl(columns={"weight": "w"}, train=str(test), validation=str(test)).rows("train")


def test_a_split_column_may_say_validation_and_one_of_other_names_is_told(folder):
    rows = [
        {"image": "a.png", "sent": "dog", "bbox_xyxy": [1, 2, 30, 40], "split": split}
        for split in ("train", "validation", "dev")
    ]
    file = str(write(folder / "t.jsonl", rows))
    source = ExpressionTable({"train": file, "validation": file, "test": file}, splits={"validation": "val"})
    assert len(source.rows("validation")) == 1
    with pytest.raises(
        InvalidData, match=r"field split: no row is of the split test, only of train, validation, dev; set"
    ):
        source.rows("test")
