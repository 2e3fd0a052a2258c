"""`task=jsonl`: every metric from file to score, in every file format; broken tables are named with file and line."""

import json
import math

import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data.common.errors import InvalidData
from data.jsonl import Jsonl
from ntil.config.build import build
from ntil.config.schema import Component
from tasks.answers.coordinates import FORMATS
from tasks.base import ParseFailure
from tasks.jsonl import table_task
from tasks.metrics.boxes import polygon_iou

ANSWERS: dict[str, list[tuple[object, str]]] = {
    "exact": [("Paris", "Paris"), (7, "7"), (2.5, "2.5")],
    "numeric": [("12.50", "12.50"), (-3, "-3"), (1e-3, "0.001"), ("1e3", "1000")],
    "box": [([10, 10, 90, 40], "[100, 200, 899, 799]"), ("[0, 0, 100, 50]", "[0, 0, 999, 999]")],
    "polygon": [
        ([[0, 0], [100, 0], [100, 50]], "[0, 0, 999, 0, 999, 999]"),
        ([0, 0, 100, 0, 0, 50], "[0, 0, 999, 0, 0, 999]"),
    ],
    "boxes": [
        ([[10, 10, 90, 40], [0, 0, 100, 50]], "[100, 200, 899, 799]; [0, 0, 999, 999]"),
        ([], "none"),
        ([{"box": [0, 0, 50, 25], "label": "dog"}], "dog [0, 0, 500, 500]"),
    ],
    "points": [([[50, 25], [0, 0]], "[500, 500]; [0, 0]"), ([{"x": 100, "y": 50}], "[999, 999]"), ("[]", "none")],
    "count": [(3, "3"), ("0", "0"), (2.0, "2")],
    "time": [("10:08", "10:08"), ("1:05", "01:05"), ("13:05", "01:05"), ({"hour": 0, "minute": 7}, "12:07")],
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


def task_of(metric, coords=FORMATS["int1000"], **source):
    return table_task(Jsonl(metric, **source), metric, coords)


def write(folder, rows, name="my.jsonl"):
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (100, 50), "grey").save(folder / "a.png")
    file = folder / name
    if file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    elif file.suffix == ".parquet":
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)
    else:
        import csv

        with file.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[0]), delimiter="\t" if file.suffix == ".tsv" else ",")
            writer.writeheader()
            for row in rows:
                plain = {k: v if isinstance(v, str | int | float) else json.dumps(v) for k, v in row.items()}
                writer.writerow(plain)
    return str(file)


@pytest.mark.parametrize("metric", sorted(ANSWERS))
def test_every_metric_from_the_file_to_full_marks(tmp_path, metric):
    rows = [{"image": "a.png", "prompt": f"{i}?", "answer": a} for i, (a, _) in enumerate(ANSWERS[metric])]
    task = task_of(metric, test=write(tmp_path, rows))
    read = task.rows("test")
    assert [task.prompt(r) for r in read] == [r["prompt"] for r in rows]
    assert [task.answer(r) for r in read] == [text for _, text in ANSWERS[metric]]
    records = [task.record(task.answer(r), r) for r in read]
    assert all(r["failure"] is None for r in records)
    assert task.summarize(records)[task.metric] == 1
    assert task.summarize(task.record("?", r) for r in read)[f"lenient_{task.metric}"] == 0
    assert read[0]["image"].size == (100, 50)
    assert task.draw(read[0], task.parse(task.answer(read[0]), read[0])).size == (192, 232)


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".tsv", ".parquet"])
def test_every_file_format_reads_the_same(tmp_path, suffix):
    rows = [{"id": f"q{i}", "prompt": f"Größe, {i}?", "answer": 0.5 * i, "group": "ab"[i % 2]} for i in range(4)]
    task = task_of("numeric", test=write(tmp_path, rows, f"my{suffix}"))
    read = task.rows("test")
    assert read["id"] == ["q0", "q1", "q2", "q3"]
    assert read["prompt"] == [r["prompt"] for r in rows]
    assert [float(a) for a in read["answer"]] == [0, 0.5, 1, 1.5]
    metrics = task.summarize(task.record("0.5", r) for r in read)
    assert (metrics["a/exact"], metrics["b/exact"]) == (0, 0.5)
    assert read[0]["image"] is None
    assert task.draw(read[0], ParseFailure("no")).width == 192


def test_boxes_are_written_in_the_models_own_format_and_scored_in_pixels(tmp_path):
    file = write(tmp_path, [{"image": "a.png", "prompt": "?", "answer": [10, 10, 80, 30]}])
    for name, coords in FORMATS.items():
        task = task_of("box", test=file, box_format="xywh", coords=coords)
        row = task.rows("test")[0]
        assert row["box"] == [10, 10, 90, 40]
        assert task.answer(row) == coords.box([10, 10, 90, 40], (100, 50)), name
        assert task.record(task.answer(row), row)["scores"]["iou"] > 0.99


def test_pictures_from_another_folder_and_columns_of_other_names(tmp_path):
    write(tmp_path / "pictures", [])
    rows = [{"file": "a.png", "question": "?", "label": 5, "answer": "not this"}]
    columns = {"image": "file", "prompt": "question", "answer": "label", "id": None}
    file = write(tmp_path / "t", rows)
    task = task_of("numeric", test=file, images=str(tmp_path / "pictures"), columns=columns)
    row = task.rows("test")[0]
    assert (task.prompt(row), task.answer(row), row["id"]) == ("?", "5", "my-0")
    # The picture beside the table is not asked for.
    (tmp_path / "pictures/a.png").unlink()
    with pytest.raises(InvalidData, match=r"my.jsonl, line 1, field file: .*pictures.a.png does not exist"):
        task_of("numeric", test=file, images=str(tmp_path / "pictures"), columns=columns).rows("test")


def test_without_a_validation_table_a_twentieth_is_held_out(tmp_path):
    train = write(tmp_path, [{"prompt": "?", "answer": i} for i in range(50)])
    task = task_of("numeric", train=train)
    assert task.splits == ("train", "validation")
    held_out, rest = [list(task.rows(split)["answer"]) for split in task.splits[::-1]]
    assert held_out == ["0", "20", "40"]
    assert sorted(held_out + rest, key=int) == [str(i) for i in range(50)]
    validation = write(tmp_path, [{"prompt": "?", "answer": "v"}], "v.jsonl")
    task = task_of("exact", train=train, validation=validation)
    assert len(task.rows("train")) == 50
    assert task.rows("validation")["answer"] == ["v"]
    with pytest.raises(ValueError, match=r"set task\.source\.test="):
        task.rows("test")


@pytest.mark.parametrize("stored", [False, True])
def test_rows_of_one_picture_are_held_out_together(tmp_path, stored):
    rows = [{"prompt": "?", "answer": i, "image": f"{i // 2}.png"} for i in range(84)]
    file = write(tmp_path, rows)
    for i in range(42):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    if stored:
        content = [(tmp_path / row["image"]).read_bytes() for row in rows]
        file = write(
            tmp_path, [{**row, "image": {"bytes": b}} for row, b in zip(rows, content, strict=True)], "m.parquet"
        )
    task = task_of("numeric", train=file)
    assert task.rows("validation")["answer"] == ["0", "1", "40", "41", "80", "81"]
    assert len(task.rows("train")) == 78
    one = task_of("numeric", train=write(tmp_path, [{**row, "image": "0.png"} for row in rows], "one.jsonl"))
    assert one.rows("validation")["answer"] == ["0", "20", "40", "60", "80"]


def test_numbers_of_json_are_not_rounded(tmp_path):
    numbers = ["12345678901234567890.5", "0.12345678901234567891", "9007199254740993.0", "0.1", "12.50", "-1e-7"]
    (tmp_path / "my.jsonl").write_text("".join(f'{{"prompt": "?", "answer": {n}}}\n' for n in numbers))
    (tmp_path / "my.json").write_text(f'[{", ".join(f"""{{"prompt": "?", "answer": {n}}}""" for n in numbers)}]')
    taught = ["12345678901234567890.5", "0.12345678901234567891", "9007199254740993", "0.1", "12.5", "-0.0000001"]
    for name in ("my.jsonl", "my.json"):
        assert task_of("numeric", test=tmp_path / name).rows("test")["answer"] == taught
    exact = task_of("exact", test=tmp_path / "my.json").rows("test")["answer"]
    assert exact == [*taught[:2], "9007199254740993.0", *taught[3:]]
    boxes = '{"image": "a.png", "prompt": "?", "answer": [10.123456789012345678, 10, 90, 40]}\n'
    write(tmp_path, [], "b.jsonl")
    (tmp_path / "b.jsonl").write_text(boxes)
    row = task_of("box", test=tmp_path / "b.jsonl").rows("test")[0]
    assert (row["box"][0], json.loads(row["answer"])[0]) == (10.123456789012345678, 10.123456789012345678)


HUGE = "1e99999999999999999999"
TINY = "1e-99999999999999999999"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("metric", ["numeric", "count"])
def test_exponents_beyond_all_numbers_cost_their_row(tmp_path, name, metric):
    answers = ["1", HUGE, TINY, "1e-400", "1.00000000000000e-4000000", "2", "0e99999999999999999999"]
    if name.endswith(".csv"):
        text = "prompt,answer\n" + "".join(f"q,{answer}\n" for answer in answers)
    else:
        lines = [f'{{"prompt": "q", "answer": {answer}}}' for answer in answers]
        text = "[" + ",".join(lines) + "]" if name.endswith(".json") else "\n".join(lines)
    (tmp_path / name).write_text(text)
    rows = task_of(metric, test=str(tmp_path / name), on_error="skip").rows("test")
    assert rows["answer"] == ["1", "2"]


def test_an_exact_answer_below_all_floats_stays_as_written(tmp_path):
    lines = [f'{{"prompt": "q", "answer": {answer}}}\n' for answer in (TINY, "1.00000000000000e-4000000", HUGE)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    source = Jsonl("exact", test=str(tmp_path / "a.jsonl"), on_error="skip")
    assert source.rows("test")["answer"] == [TINY, "1.00000000000000e-4000000"]
    assert "line 3, field answer" in source.row_errors.skipped[0]


def test_map_counts_labelled_boxes_where_nothing_is(tmp_path):
    """By hand: of ten boxes of dogs one is true, and the nine others, of pictures without any, come with it."""
    dog = [{"box": [0, 0, 50, 25], "label": "dog"}]
    rows = [{"image": "a.png", "prompt": "?", "answer": answer} for answer in ([], dog)]
    task = task_of("boxes", test=write(tmp_path, rows))
    empty, true = task.rows("test")
    text = task.answer(true)
    summary = task.summarize([*[task.record(text, empty)] * 9, task.record(text, true)])
    assert summary["f1_0.5"] == pytest.approx(0.1)
    assert summary["map"] == pytest.approx(0.1, abs=0.01)
    bare = task_of("boxes", test=write(tmp_path, [{**rows[1], "answer": [[0, 0, 50, 25]]}, rows[0]], "bare.jsonl"))
    true, empty = bare.rows("test")
    summary = bare.summarize([*[bare.record(text, empty)] * 9, bare.record(bare.answer(true), true)])
    assert summary["map"] == pytest.approx(0.1, abs=0.01)


def test_several_files_by_a_glob(tmp_path):
    for name in ("p-0.jsonl", "p-1.jsonl"):
        write(tmp_path, [{"prompt": "?", "answer": name}], name)
    task = task_of("exact", test=str(tmp_path / "p-*.jsonl"))
    assert task.rows("test")["answer"] == ["p-0.jsonl", "p-1.jsonl"]
    with pytest.raises(InvalidData, match=r"correct task\.source\.test"):
        task_of("exact", test=str(tmp_path / "q-*.jsonl")).rows("test")
    write(tmp_path, [{"prompt": "?", "answer": "in a list"}], "p-0.json")
    assert len({*task_of("exact", test=str(tmp_path / "p-0.*")).rows("test")["id"]}) == 2


GOOD = {"image": "a.png", "prompt": "?", "answer": 1}


@pytest.mark.parametrize(
    ("metric", "change", "message"),
    [
        ("exact", {"image": "b.png"}, r"line 2, field image: .*b.png does not exist"),
        ("exact", {"image": "broken.png"}, r"line 2, field image: .*broken.png is broken or truncated"),
        ("exact", {"image": "my.jsonl"}, r"line 2, field image: .*my.jsonl is no picture"),
        ("exact", {"image": None}, r"line 2, field image: has no picture and most rows have one"),
        ("exact", {"prompt": " "}, r"line 2, field prompt"),
        ("exact", {"answer": ""}, r"line 2, field answer: is missing or empty"),
        ("exact", {"answer": [1]}, r"line 2, field answer: \[1\] is neither text nor number"),
        ("exact", {"answer": "\ud800"}, r"line 2, field answer: is no Unicode"),
        ("exact", {"id": "my-0"}, r"line 2, field id: 'my-0' was already used in .*line 1"),
        ("polygon", {"width": 50, "height": 100}, r"line 2, field image: the table says 50 x 100"),
        ("exact", {"level": 0.5}, r"line 2, field level: 0.5 is no whole number"),
        ("numeric", {"answer": "five"}, r"line 2, field answer: 'five' is no number"),
        ("numeric", {"answer": "nan"}, r"line 2, field answer"),
        ("numeric", {"answer": "1e99"}, r"line 2, field answer"),
        ("numeric", {"answer": True}, r"line 2, field answer"),
        ("box", {"answer": [1, 2, 3]}, r"line 2, field answer: \[1, 2, 3\] is not \[x1, y1, x2, y2\]"),
        ("box", {"answer": [9, 9, 9, 20]}, r"line 2, field answer: .* has no area"),
        ("box", {"answer": [9, 9, 120, 20]}, r"line 2, field answer: .* lies outside the 100 x 50 picture"),
        ("box", {"image": None}, r"line 2, field image: is missing, so pixels mean nothing"),
        ("polygon", {"answer": [[0, 0], [9, 9]]}, r"line 2, field answer: .* is no polygon"),
        ("polygon", {"answer": [[0, 0], [9, 9], [3]]}, r"line 2, field answer: .* is no polygon"),
        ("polygon", {"answer": [[0, 0], [9, 9], [18, 18]]}, r"line 2, field answer: .* has no area"),
        ("polygon", {"answer": [[0, 0], [99, 0], [0, 80]]}, r"line 2, field answer: .* lies outside"),
        ("time", {"answer": "25:00"}, r"line 2, field answer: '25:00' is no time"),
        ("time", {"answer": {"hour": 3}}, r"line 2, field answer"),
    ],
)
def test_a_broken_row_is_named_or_skipped_and_counted(tmp_path, metric, change, message):
    good = {**GOOD, "answer": ANSWERS[metric][0][0]}
    file = write(tmp_path, [good, {**good, **change}, good])
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    with pytest.raises(InvalidData, match=message):
        task_of(metric, test=file).rows("test")
    task = task_of(metric, test=file, on_error="skip")
    assert task.rows("test")["id"] == ["my-0", "my-2"]
    assert len(task.skipped) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.jsonl", '{"question": "?", "answer": 1}\n', r"field prompt: no such column; found question, answer"),
        ("my.jsonl", "", r"the file is empty"),
        ("my.jsonl", b"\xff\xfe", r"is not UTF-8"),
        ("my.json", "{}", r"my.json: is no list of objects"),
        ("my.csv", 'prompt,answer\n?,1\n?,"1\n', r"my.csv, line"),
        ("my.parquet", b"PAR1", r"my.parquet: no whole parquet file"),
        ("my.xlsx", "x", r"can't read .xlsx; use one of"),
    ],
)
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_broken_files_are_errors_either_way(tmp_path, name, content, message, on_error):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidData, match=message):
        task_of("exact", test=str(file), on_error=on_error).rows("test")


FIRST, LAST = '{"prompt": "?", "answer": 1}', '{"prompt": "?", "answer": 3}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("my.jsonl", f'{FIRST}\n{{"prompt": \n\n{LAST}\n', r"my.jsonl, line 2: not JSON"),
        ("my.jsonl", f"{FIRST}\n[1]\n{LAST}\n", r"my.jsonl, line 2: is no object"),
        ("my.json", f"[{FIRST}, 1, {LAST}]", r"my.json, row 1: is not an object"),
        ("my.csv", "prompt,answer\n?,1\n?,1,2\n?,3\n", r"my.csv, line 3: has not the 2 fields"),
    ],
)
def test_what_is_no_row_is_named_or_skipped_and_the_others_keep_their_numbers(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InvalidData, match=message):
        task_of("numeric", test=str(tmp_path / name)).rows("test")
    task = task_of("numeric", test=str(tmp_path / name), on_error="skip")
    rows = task.rows("test")
    assert rows["id"] == ["my-0", "my-2"]
    assert rows["answer"] == ["1", "3"]
    assert len(task.skipped) == 1


@pytest.mark.parametrize("name", ["my.jsonl", "my.json"])
def test_the_columns_are_those_of_any_object(tmp_path, name):
    rows = [{"prompt": "?"}, {"prompt": "?", "answer": 2}, {"prompt": "?", "answer": 3, "kind": "a"}]
    task = task_of("numeric", test=write(tmp_path, rows, name), columns={"group": "kind"}, on_error="skip")
    assert task.rows("test")["id"] == ["my-1", "my-2"]
    assert task.rows("test")["group"] == [None, "a"]
    assert len(task.skipped) == 1
    assert "field answer: is missing" in task.skipped[0]


@pytest.mark.parametrize(
    ("metric", "source", "message"),
    [
        ("iou", {"test": "x"}, r"task\.metric='?iou'?: must be 'exact', 'numeric'"),
        ("exact", {"metric": "iou", "test": "x"}, r"task\.source\.metric='?iou'?: must be 'exact', 'numeric'"),
        ("exact", {}, r"task\.source\.train=<file>"),
        ("box", {"test": "x", "box_format": "cxcywh"}, r"task\.source\.box_format"),
        (
            "exact",
            {"test": "x", "columns": {"picture": "file"}},
            r"task\.source\.columns\.picture: there is no such role",
        ),
    ],
)
def test_wrong_options(metric, source, message):
    source = {"target": "data.jsonl:Jsonl", "metric": metric, **source}
    with pytest.raises(ValueError, match=message):
        build("task", Component("jsonl", "tasks.jsonl:table_task", {"metric": metric, "source": source}))


def test_what_the_lenient_readings_forgive(tmp_path):
    task = task_of("exact", test=write(tmp_path, [{"prompt": "?", "answer": "New York"}]))
    row = task.rows("test")[0]
    for text, strict, lenient in (
        ("New York", 1, 1),
        (" New York\n", 1, 1),
        ("new  york.", 0, 1),
        ('"New York"', 0, 1),
        ("York", 0, 0),
        ("", 0, 0),
    ):
        record = task.record(text, row)
        assert (record["scores"]["exact"], record["lenient"]["exact"]) == (strict, lenient), text
        assert (record["failure"] is None) == bool(text)


POINTS = st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=3, max_size=8)


@given(POINTS, POINTS)
def test_any_two_polygons_have_an_iou(first, second):
    value = polygon_iou(tuple(first), second)
    assert 0 <= value <= 1 + 1e-9
    assert value == pytest.approx(polygon_iou(tuple(second), first), abs=1e-6)
    area = shapely.make_valid(shapely.Polygon(first)).area
    if not 0 < area < 1e-9:  # of a sliver nobody could see, roundings decide whether it has an area
        assert polygon_iou(tuple(first), first) == pytest.approx(float(area > 0))


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (
            [(25.4, 59.42198551228629), (50, 2.6), (92.8, 51.7235434224016), (84.6, 80.1), (100, 6.832544497072912),
             (0, 1e-9), (50.6, 48.4)],
            [(2, 33.8), (6.1e-5, 3), (92.8, 51.7235434224016), (50, 2.6)],
            243.674,
        ),
        (  # runs along itself
            [(55.5, 99.99999), (2, 2), (52.1, 20.2), (89.45964080660428, 100), (1 / 3, 1)],
            [(86.2, 2), (55.5, 99.99999), (52.1, 20.2), (55.5, 99.99999), (55.5, 99.99999), (2, 2), (2, 2)],
            1432.995,
        ),
    ],
)  # fmt: skip
def test_iou_of_outlines_that_touch_or_cross_themselves_is_the_same_in_either_order(first, second, shared):
    areas = sum(shapely.make_valid(shapely.Polygon(points)).area for points in (first, second))
    for a, b in ((first, second), (second, first)):
        assert polygon_iou(tuple(a), b) == pytest.approx(shared / (areas - shared), abs=1e-5)


@given(st.floats(0, 50), st.floats(0, 50), st.floats(1, 50), st.floats(1, 50))
def test_iou_of_rectangles_is_that_of_boxes(x, y, w, h):
    rectangle = [(x, y), (x + w, y), (x + w, y + h), (x, y + h)]
    other = [(20, 20), (60, 20), (60, 70), (20, 70)]
    shared = max(0, min(x + w, 60) - max(x, 20)) * max(0, min(y + h, 70) - max(y, 20))
    assert polygon_iou(tuple(rectangle), other) == pytest.approx(shared / (w * h + 2000 - shared), abs=1e-9)
    assert math.isclose(polygon_iou(tuple(rectangle), rectangle), 1)


@pytest.mark.parametrize(
    ("metric", "answer", "problem"),
    [
        ("boxes", [[1, 2, 30, 40], {"box": [1, 2, 30, 40], "label": "dog"}], "has a label for some boxes only"),
        ("boxes", [[1, 2, 30]], r"is not \[x1, y1, x2, y2\]"),
        ("boxes", "a dog", "write a list|is no list"),
        ("boxes", [[30, 2, 1, 40]], "has no area"),
        ("points", [[1, 2, 3]], "is no point"),
        ("points", [[1, 2000]], "lies outside"),
        ("points", [[0.5, 0.25]], "parts of 1"),
        ("count", 2.5, "is no count"),
        ("count", -1, "is no count"),
    ],
)
def test_lists_and_counts_that_cannot_be(tmp_path, metric, answer, problem):
    file = write(tmp_path, [{"image": "a.png", "prompt": "?", "answer": answer}])
    with pytest.raises(InvalidData, match=problem) as caught:
        task_of(metric, test=file).rows("test")
    assert "line 1, field answer" in str(caught.value)


def test_a_column_of_points_as_parts_of_one_is_refused_whatever_on_error_says(tmp_path):
    answers = [[[0.2, 0.5]], [[0.9, 0.1], [0.4, 0.4]], []]
    file = write(tmp_path, [{"image": "a.png", "prompt": "?", "answer": a} for a in answers])
    with pytest.raises(InvalidData, match="points as parts of 1"):
        task_of("points", test=file, on_error="skip").rows("test")


def test_what_lists_and_counts_score(tmp_path):
    def scores(metric, answer, text, size=None):
        file = write(tmp_path, [{"image": "a.png", "prompt": "?", "answer": answer}], f"{metric}.jsonl")
        task = task_of(metric, test=file)
        record = task.record(text, task.rows("test")[0])
        return record["scores"], record["lenient"]

    boxes = [{"box": [0, 0, 50, 50], "label": "dog"}, {"box": [50, 0, 100, 50], "label": "cat"}]
    strict, _ = scores("boxes", boxes, "dog [0, 0, 500, 999]; dog [500, 0, 999, 999]")
    assert strict["f1_0.5"] == 0.5  # the second has another's name
    strict, lenient = scores("boxes", boxes, "[0, 0, 500, 999]; [500, 0, 999, 999]")
    assert strict["f1_0.5"] == lenient["f1_0.5"] == 0  # the names are part of the answer
    strict, _ = scores("points", [[50, 25], [10, 10]], "[500, 500]")
    assert strict["f1"] == pytest.approx(2 / 3)
    strict, lenient = scores("count", 4, "There are three dogs.")
    assert (strict["exact"], lenient["exact"], lenient["within_1"]) == (0, 0, 1)
    assert scores("count", 4, "4.5")[0]["mae"] == scores("count", 4, "")[0]["mae"]
