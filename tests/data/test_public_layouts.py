"""Layouts that public data sets and annotation tools write: read as they mean it, or refused in one sentence."""

import datetime
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data.clock.photos import ClockPhotos
from data.common.column_form import ContradictedColumn
from data.common.errors import InvalidData, RowErrors
from data.common.table_files import read_table
from data.grounding.categories import CategoryBoxes
from data.grounding.refcoco import RefCOCO
from data.grounding.table import ExpressionTable
from data.gsm8k import GSM8KFiles
from data.jsonl import Jsonl
from data.mathvista.testmini import MathVistaRelease
from data.text_detection.release import TextRelease

SIZE = (64, 48)


@pytest.fixture
def folder(tmp_path):
    Image.new("RGB", SIZE, "red").save(tmp_path / "a.png")
    return tmp_path


def lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def own_table(path, metric="exact", on_error="raise"):
    source = Jsonl(metric, test=str(path), on_error=on_error)
    return source, source.rows("test")


def test_floats_are_taught_without_an_exponent(folder):
    file = lines(folder / "t.jsonl", [{"prompt": "?", "answer": v} for v in (0.00001, 3.0, 1e16, 7)])
    assert own_table(file)[1]["answer"] == ["0.00001", "3.0", "10000000000000000", "7"]


def test_seconds_are_not_dropped_from_a_time(folder):
    times = [datetime.time(10, 8), datetime.time(10, 8, 37)]
    pq.write_table(pa.table({"prompt": ["?", "?"], "answer": times}), folder / "t.parquet")
    source, rows = own_table(folder / "t.parquet", "time", "skip")
    assert (rows["hour"], rows["minute"], len(source.row_errors.skipped)) == ([10], [8], 1)


def test_a_time_as_an_object_in_a_csv(folder):
    (folder / "t.csv").write_text('prompt,answer\n?,"{""hour"": 10, ""minute"": 8}"\n')
    assert own_table(folder / "t.csv", "time")[1]["minute"] == [8]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([-(10**14), 0], pa.timestamp("ms")),
        pa.array([10**6, 0], pa.timestamp("s", "Mars/Phobos")),
        pa.array([10**18, 0], pa.duration("s")),
    ],
    ids=str,
)
def test_a_column_that_python_cannot_hold_costs_only_rows_that_need_it(folder, column):
    pq.write_table(pa.table({"prompt": ["?", "?"], "answer": ["1", "2"], "other": column}), folder / "t.parquet")
    assert own_table(folder / "t.parquet")[1]["answer"] == ["1", "2"]
    pq.write_table(pa.table({"prompt": ["?", "?"], "answer": column}), folder / "u.parquet")
    with pytest.raises(InvalidData, match=r"u\.parquet, row 0, field answer"):
        own_table(folder / "u.parquet")


def test_a_text_that_is_not_utf_8_in_parquet_costs_its_row(folder):
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"q\xff"))
    pq.write_table(pa.table({"prompt": texts, "answer": ["1", "2"]}), folder / "t.parquet")
    source, rows = own_table(folder / "t.parquet", on_error="skip")
    assert rows["answer"] == ["1"]
    assert "row 1, field prompt" in source.row_errors.skipped[0]


def test_a_wrong_quote_costs_its_row_and_is_named_by_its_line(folder):
    (folder / "t.csv").write_text('prompt,answer\np,1\n"x" y,2\nq,3\n"r\ns" t,4\nu,5\n')
    source, rows = own_table(folder / "t.csv", on_error="skip")
    assert (rows["answer"], rows["id"]) == (["1", "3", "5"], ["t-0", "t-2", "t-4"])
    assert ["line 3:" in source.row_errors.skipped[0], "lines 5 to 6:" in source.row_errors.skipped[1]] == [True] * 2


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_a_quote_that_swallows_the_rest_of_a_file_is_no_broken_row(folder, on_error):
    (folder / "t.tsv").write_text('prompt\tanswer\np\t1\n"q\t2\nr\t3\n')
    with pytest.raises(InvalidData, match=r"t.tsv, line 3: a quote opens .* and the file ends within it"):
        own_table(folder / "t.tsv", on_error=on_error)


def test_columns_without_a_name_at_the_end_of_a_spreadsheet(folder):
    (folder / "t.csv").write_text("prompt,answer,,\nq,1,,\n")
    assert [row["answer"] for _, _, row in read_table(folder / "t.csv", RowErrors())] == ["1"]


@pytest.mark.parametrize("image", ['["a.png"]', "['a.png']"])
def test_a_list_of_one_picture_written_as_text(folder, image):
    file = lines(folder / "t.jsonl", [{"image": image, "prompt": "?", "answer": 1}])
    assert own_table(file)[1][0]["width"] == SIZE[0]


def test_boxes_in_percent_are_noted(folder):
    Image.new("RGB", (640, 480)).save(folder / "b.png")
    rows = [{"image": "b.png", "prompt": "?", "answer": [10 + i, 5, 60, 97.5]} for i in range(5)]
    source, _ = own_table(lines(folder / "t.jsonl", rows), "box")
    assert "no number of 5 boxes is above 100" in source.row_errors.notes[0]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n", " \n"])
def test_gsm8k_with_other_line_ends(folder, ending):
    file = lines(folder / "t.jsonl", [{"question": "?", "answer": f"x{ending}#### 42{ending}"}])
    assert GSM8KFiles({"test": file}).rows("test")[0]["answer"] == "42"


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_hours_and_minutes_in_swapped_columns(folder, on_error):
    (folder / "t.csv").write_text("image,hour,minute\na.png,5,3\na.png,45,10\na.png,30,6\n")
    with pytest.raises(ContradictedColumn, match="they are minute and hour"):
        ClockPhotos(str(folder / "t.csv"), on_error=on_error).rows("test")


def visual_math(folder, *rows, on_error="raise"):
    file = lines(folder / "t.jsonl", [{"image": "a.png"} | row for row in rows])
    source = MathVistaRelease("none", train=file, validation=0, on_error=on_error)
    return source, source.rows("train")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("column", ["choices", "options"])
@pytest.mark.parametrize(("first", "form"), [(0, "from 0"), (1, "from 1")])
def test_answers_that_are_indices_of_choices(folder, first, form, column, on_error):
    """ScienceQA and AI2D give an index, which is neither a number to teach nor, where choices are numbers, a choice."""
    choices = [["red", "blue"], ["1", "2", "3"]]
    rows = [{"question": f"{i}?", column: choices[i % 2], "answer": first + i % 2} for i in range(4)]
    rows.append({"question": "?", column: ["x", "y", "z"], "answer": str(first + 2)})
    with pytest.raises(ContradictedColumn, match=f"can be indices of choices {form}"):
        visual_math(folder, *rows, on_error=on_error)


def test_numbers_among_choices_are_choices(folder):
    rows = [
        {"question": f"{i}?", "choices": ["1", "2", "30"], "answer": answer} for i, answer in enumerate((2, "30", 1))
    ]
    assert visual_math(folder, *rows)[1]["target"] == ["B", "C", "A"]


def test_columns_of_verifiable_geometry(folder):
    row = {"images": ["a.png"], "problem": "<image>Find x.", "answer": "3"}
    file = lines(folder / "t.jsonl", [row])
    (read,) = MathVistaRelease("none", train=file, validation=0).rows("train")
    assert (read["question"], read["target"]) == ("Find x.", "3")


@pytest.mark.parametrize("final", ["**B**.", r"\boxed{B}", r"$\boxed{B}$", "**B: 60°**"])
def test_a_final_answer_in_emphasis(folder, final):
    talk = [("human", "<image>\nQ\nChoices:\nA:40°\nB:60°"), ("gpt", f"So the answer is {final}")]
    _, (row,) = visual_math(folder, {"conversations": [{"from": who, "value": text} for who, text in talk]})
    assert row["target"] == "B"


def test_ids_of_pictures_do_not_cost_rows(folder):
    """LLaVA's id names the picture, of which there are several rows; ref_id is of an object."""
    rows = [{"id": "33", "question": f"{i}?", "answer": str(i)} for i in range(3)]
    assert visual_math(folder, *rows)[1]["id"] == ["33", "33@1", "33@2"]
    refs = [{"image": "a.png", "expression": word, "bbox": [1, 2, 30, 40], "ref_id": 7} for word in ("dog", "the dog")]
    table = ExpressionTable({"test": lines(folder / "refs.jsonl", refs)})
    assert table.rows("test")["id"] == ["test-7", "test-7@refs-1"]


def test_expressions_as_a_list_in_a_csv(folder):
    (folder / "t.csv").write_text('image,sentences,bbox\na.png,"[""dog"", ""cat""]","[1, 2, 30, 40]"\n')
    assert ExpressionTable({"test": str(folder / "t.csv")}).rows("test")["expression"] == ["dog", "cat"]
    (folder / "t.csv").write_text("image,sentences,bbox\na.png,\"['dog', 'cat']\",\"[1, 2, 30, 40]\"\n")
    with pytest.raises(InvalidData, match=r"line 2, field sentences: .* is no JSON"):
        ExpressionTable({"test": str(folder / "t.csv")}).rows("test")


@pytest.mark.parametrize(
    ("change", "message"), [({"sentences": []}, "sentences: is an empty list"), ({"ann_id": -1}, "none or several")]
)
def test_references_without_a_row_are_counted(folder, change, message):
    good = {"ref_id": 1, "ann_id": 5, "image_id": 1, "split": "test", "sentences": ["dog"]}
    (folder / "refs(unc).p").write_bytes(pickle.dumps([good | {"ref_id": 2} | change, good]))
    box = {"id": 5, "image_id": 1, "bbox": [1, 2, 30, 40]}
    document = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [box]}
    (folder / "instances.json").write_text(json.dumps(document))
    source = RefCOCO(str(folder), images=str(folder), on_error="skip")
    assert len(source.rows("test")) == 1
    assert message in source.row_errors.skipped[0]


def test_a_coco_annotation_that_is_there_twice(folder):
    boxes = [{"id": i, "image_id": 1, "bbox": [1, 2, 30, 40], "category_id": 1} for i in (1, 2)]
    document = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": boxes,
        "categories": [{"id": 1, "name": "dog"}],
    }
    (folder / "c.json").write_text(json.dumps(document))
    source = CategoryBoxes(str(folder), annotations={"train": str(folder / "c.json")})
    assert source.rows("train")["expression"] == ["the dog"]
    assert "1 annotations repeat" in source.row_errors.notes[0]


def yolo(folder, config, *labels):
    for name in ("images/train", "labels/train"):
        (folder / name).mkdir(parents=True)
    for number, text in enumerate(labels):
        (folder / f"labels/train/{number}.txt").write_text(text)
        Image.new("RGB", (100, 100)).save(folder / f"images/train/{number}.jpg")
    (folder / "data.yaml").write_text(f"path: .\ntrain: images/train\nnames: [dog]\n{config}\n")
    return CategoryBoxes(str(folder))


@pytest.mark.parametrize(("shape", "keypoints"), [("[4, 3]", "0.1 0.1 2 " * 4), ("[17, 2]", "0.1 0.15 " * 17)])
def test_yolo_keypoints_are_no_outline(folder, shape, keypoints):
    source = yolo(folder, f"kpt_shape: {shape}", f"0 0.5 0.5 0.2 0.2 {keypoints}")
    assert source.rows("train")[0]["box"] == pytest.approx([40, 40, 60, 60])


@pytest.mark.parametrize("keypoints", ["0.1 0.1 2 0.3 0.3 2", "0.1 0.1"])
def test_yolo_keypoints_of_another_shape(folder, keypoints):
    with pytest.raises(InvalidData, match=r"0\.txt, line 1: .* is no YOLO label"):
        yolo(folder, "kpt_shape: [4, 3]", f"0 0.5 0.5 0.2 0.2 {keypoints}").rows("train")


QUAD = "5,5,30,5,30,20,5,20"


def text_release(folder, form, truth, on_error="raise"):
    (folder / "truth").mkdir()
    for name, text in truth.items():
        (folder / "truth" / name).write_text(text)
    return TextRelease(form, {"test": str(folder / "truth")}, {"test": str(folder)}, on_error=on_error)


@pytest.mark.parametrize(
    ("lines_of_file", "texts", "ignore"),
    [
        (["Latin,HOTEL", "None,###", "Arabic,a,b"], ["HOTEL", "###", "a,b"], [False, True, False]),
        (['0,"HOTEL"', '1,"###"', '1,"dim"'], ["HOTEL", "###", "dim"], [False, True, True]),
        (["Latin,HOTEL", "none"], ["Latin,HOTEL", "none"], [False, False]),
        (['0,"HOTEL"', "1,000"], ['0,"HOTEL"', "1,000"], [False, False]),
    ],
    ids=["MLT", "RCTW", "a text like a script", "a text like a flag"],
)
def test_a_column_between_coordinates_and_transcription(folder, lines_of_file, texts, ignore):
    truth = "".join(f"{QUAD},{text}\n" for text in lines_of_file)
    (row,) = text_release(folder, "icdar2015", {"gt_a.txt": truth}).rows("test")
    assert (row["texts"], row["ignore"]) == (texts, ignore)


@pytest.mark.parametrize("form", ["totaltext", "ctw1500", "icdar2013"])
def test_scripts_in_other_formats(folder, form):
    outline = "5,5,30,20" if form == "icdar2013" else QUAD
    truth = "".join(f"{outline},{text}\n" for text in ("Latin,HOTEL", "None,###"))
    (row,) = text_release(folder, form, {"a.txt": truth}).rows("test")
    assert (row["texts"], row["ignore"]) == (["HOTEL", "###"], [False, True])


def test_bezier_curves_are_no_outlines(folder):
    with pytest.raises(InvalidData, match=r"line 1: .* holds a Bezier curve"):
        text_release(folder, "totaltext", {"a.txt": f"{QUAD},{QUAD}||||word\n"}).rows("test")


def test_mmocr_made_on_a_picture_of_another_size(folder):
    entry = {"img_path": "a.png", "width": 128, "height": 96, "instances": []}
    (folder / "t.json").write_text(json.dumps({"data_list": [entry]}))
    with pytest.raises(InvalidData, match="entry 0, field image: the file says 128 x 96, the picture is 64 x 48"):
        TextRelease("mmocr", {"test": str(folder / "t.json")}, {"test": str(folder)}).rows("test")


def test_json_of_another_data_set_is_not_called_a_broken_zip(folder):
    (folder / "t.json").write_text("{}")
    with pytest.raises(InvalidData, match=r"is not a folder, a .zip"):
        TextRelease("totaltext", {"test": str(folder / "t.json")}, {"test": str(folder)}).rows("test")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_icdar2013_boxes_by_corner_and_size(folder, on_error):
    boxes = ["40, 20, 20, 10", "50, 30, 10, 15", "5, 5, 40, 12"]
    truth = {"gt_a.txt": "".join(f'{box}, "word"\n' for box in boxes)}
    with pytest.raises(ContradictedColumn, match=r"2 of its 3 values can't be .* can be \[x, y, w, h\] in pixels"):
        text_release(folder, "icdar2013", truth, on_error).rows("test")


@pytest.mark.parametrize(("word", "notes"), [("The  Dog", 1), ("a dog", 0)])
def test_one_question_with_two_answers_is_noted(folder, word, notes):
    refs = [{"image": "a.png", "expression": w, "bbox": [1, 2, 30, i]} for i, w in ((20, "the dog"), (40, word))]
    table = ExpressionTable({"test": lines(folder / "t.jsonl", refs)})
    assert len(table.rows("test")) == 2
    rows = [{"image": "a.png", "prompt": w, "answer": i} for i, w in ((1, "the dog"), (2, word), (1, "the dog"))]
    source, _ = own_table(lines(folder / "u.jsonl", rows))
    for one in (table, source):
        assert len(one.row_errors.notes) == notes
        assert all("1 row answers a question otherwise" in note and "line 2" in note for note in one.row_errors.notes)


def test_a_release_without_training_files(folder):
    file = lines(folder / "t.jsonl", [{"question": "?", "answer": "#### 42"}])
    assert GSM8KFiles({"train": None, "test": file}).splits == ("test",)
    source = TextRelease("icdar2015", {"train": None, "test": str(folder)}, {"train": None, "test": str(folder)})
    assert source.splits == ("test",)


@pytest.mark.parametrize("prefix", ["./", "", "data/", "../data set/"])
def test_yolo_pictures_listed_in_a_file(folder, prefix):
    """As COCO's YOLO files (`train: train2017.txt`) and CVAT's exports."""
    data = folder / "data set"
    data.mkdir()
    source = yolo(data, "", "0 0.5 0.5 0.2 0.2", "0 0.5 0.5 0.4 0.4", "0 0.5 0.5 0.6 0.6")
    (data / "data.yaml").write_text("path: .\ntrain: train.txt\nnames: {0: dog}\n")
    (data / "train.txt").write_text("".join(f"{prefix}images/train/{name}.jpg\n" for name in (0, 2)))
    assert [box[2] for box in source.rows("train")["box"]] == pytest.approx([60, 80])


@pytest.mark.parametrize(
    ("listed", "message"),
    [("", "train.txt: lists no pictures"), ("pictures/0.jpg\n", "no folder of labels"), (None, "no list of pictures")],
)
def test_yolo_lists_that_are_none(folder, listed, message):
    source = yolo(folder, "", "0 0.5 0.5 0.2 0.2")
    (folder / "data.yaml").write_text("path: .\ntrain: train.txt\nnames: {0: dog}\n")
    if listed is not None:
        (folder / "train.txt").write_text(listed)
    with pytest.raises(InvalidData, match=message):
        source.rows("train")


def test_a_listed_yolo_picture_that_is_not_there_costs_a_row(folder):
    source = yolo(folder, "", "0 0.5 0.5 0.2 0.2")
    (folder / "data.yaml").write_text("path: .\ntrain: [train.txt]\nnames: {0: dog}\n")
    (folder / "train.txt").write_text("images/train/0.jpg\nimages/train/9.jpg\n")
    source = CategoryBoxes(str(folder), on_error="skip")
    assert len(source.rows("train")) == len(source.row_errors.skipped) == 1
