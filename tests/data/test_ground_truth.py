"""Ground truth formats: every official layout, what makes them tricky, and any bytes at all."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from data.common.errors import InvalidData
from data.text_detection import ground_truth
from data.text_detection.ground_truth import Format, _mat, _text, _xml, key_of, read_found, read_truth, truth_readers

SQUARE = [(0, 0), (10, 0), (10, 10), (0, 10)]


@pytest.fixture(scope="module")
def scene_text(shared) -> Path:
    return shared / "assets" / "data" / "scene_text"


def one(tmp_path, name, content, form):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return next(iter(read_truth(tmp_path / name, form).values())).instances


def test_icdar2013_test_and_training_lines(tmp_path):
    read = one(tmp_path, "gt_img_1.txt", '0, 0, 10, 10, "Say \\"a, b\\""\r\n1,2,3,4,"###"\r\n', "icdar2013")
    assert [i.text for i in read] == ['Say "a, b"', "###"]
    assert [i.ignore for i in read] == [False, True]
    assert read[0].points == SQUARE
    read = one(tmp_path, "gt_100.txt", '158 128 411 181 "Footpath"\n443 128 501 169 "To"\n', "icdar2013")
    assert [(i.points[0], i.points[2], i.text) for i in read] == [
        ((158, 128), (411, 181), "Footpath"),
        ((443, 128), (501, 169), "To"),
    ]


def test_icdar2015_lines(tmp_path):
    text = "\ufeff0,0,10,0,10,10,0,10,1,000\r\n0,0,10,0,10,10,0,10,###\r\n0,0,10,0,10,10,0,10,\r\n"
    read = one(tmp_path, "gt_img_1.txt", text, "icdar2015")
    assert [i.text for i in read] == ["1,000", "###", ""]
    assert [i.ignore for i in read] == [False, True, False]
    assert all(i.points == SQUARE for i in read)


def test_icdar2015_zip_has_the_published_counts(scene_text):
    truth = read_truth(scene_text / "tiou_zips" / "icdar2015_test_gt.zip", "icdar2015")
    instances = [i for a in truth.values() for i in a.instances]
    assert (len(truth), len(instances), sum(i.ignore for i in instances)) == (500, 5230, 3153)
    assert list(truth)[:3] == ["1", "2", "3"]
    assert sum("," in i.text for i in instances) == 6
    lines = read_truth(scene_text / "tiou_zips" / "icdar2015_test_gt_textline.zip", "icdar2015")
    assert (len(lines), sum(len(a.instances) for a in lines.values())) == (500, 1564)
    assert not lines["1"].instances  # an empty file is a picture without text


def test_total_text_zip_takes_digits_for_text(scene_text):
    truth = read_truth(scene_text / "tiou_zips" / "total-text-gt.zip", "totaltext")
    instances = [i for a in truth.values() for i in a.instances]
    assert (len(truth), len(instances), sum(i.ignore for i in instances)) == (300, 2545, 331)
    assert sum(i.text.isdigit() for i in instances) == 138
    year = next(i for i in truth["2"].instances if i.text == "1996")
    assert year.points == [(596, 437), (637, 441), (638, 422), (599, 419)]


def test_total_text_mat_and_zip_agree(scene_text):
    mat = read_truth(scene_text / "totaltext_eval" / "Examples" / "Groundtruth", "totaltext")
    zipped = read_truth(scene_text / "tiou_zips" / "total-text-gt.zip", "totaltext")
    assert list(mat) == ["1", "2", "3", "4", "5"]
    for key, annotated in mat.items():
        for ours, theirs in zip(annotated.instances, zipped[key].instances, strict=True):
            # The zip turned every outline clockwise; its points are the same.
            assert sorted(ours.points) == sorted(theirs.points)
            assert ours.ignore == theirs.ignore
    columns = read_truth(scene_text / "totaltext_eval" / "T3_Example" / "out" / "gt_img3.mat", "totaltext")["3"]
    assert [(len(i.points), i.text) for i in columns.instances] == [(10, "kel"), (10, "naughty")]


def test_total_text_own_txt(tmp_path):
    text = (
        "x: [[0 10 10  0]], y: [[ 0  0 10 10]], ornt: [u'h'], transcriptions: [u'It, 1996']\n"
        "x: [[0 10 10\n  0]], y: [[ 0  0 10 10]], ornt: [u'#'], transcriptions: [u'#']\n"
        "x: [[5]], y: [[5]], ornt: [u'#'], transcriptions: [u'#']\n"
        "x: [[0 10 10  0]], y: [[ 0  0 10 10]], ornt: [u'm'], transcriptions: [u\"BOB'S\"]\n"
    )
    read = one(tmp_path, "poly_gt_img1.txt", text, "totaltext")
    assert [(i.text, i.ignore) for i in read] == [("It, 1996", False), ("#", True), ("BOB'S", False)]
    assert all(i.points == SQUARE for i in read)
    with pytest.raises(InvalidData, match="1 of 2 entries"):
        one(tmp_path, "poly_gt_img1.txt", text.splitlines()[0] + "\nx: [[0 1]], y: broken\n", "totaltext")


def test_total_text_mat_written_here(tmp_path):
    rows = np.empty((3, 6), dtype=object)
    cells = [(SQUARE, "Cafe", "h"), ([(5, 5)], "#", "#"), (SQUARE, "#", "#")]
    for row, (points, text, kind) in zip(rows, cells, strict=True):
        xs, ys = (np.array([p[i] for p in points], dtype=np.int16) for i in (0, 1))
        row[:] = ["x:", xs, "y:", ys, text, kind]
    scipy.io.savemat(tmp_path / "poly_gt_img4.mat", {"polygt": rows}, do_compression=True)
    read = read_truth(tmp_path, "totaltext")["4"].instances
    assert [(i.text, i.ignore, i.points) for i in read] == [("Cafe", False, SQUARE), ("#", True, SQUARE)]
    scipy.io.savemat(tmp_path / "poly_gt_img4.mat", {"polygt": rows})
    with pytest.raises(InvalidData, match="isn't compressed"):
        read_truth(tmp_path, "totaltext")


def test_ctw1500_layouts(tmp_path):
    points = [(i, 0) for i in range(7)] + [(6 - i, 5) for i in range(7)]
    flat = [v for p in points for v in p]
    line = ",".join(map(str, flat))
    read = one(tmp_path, "0001001.txt", f"{line},####Hi, you\n{line},####\n{line},###\n{line},1996\n", "ctw1500")
    assert [(i.text, i.ignore) for i in read] == [("Hi, you", False), ("", False), ("###", True), ("1996", False)]
    assert all(i.points == points for i in read)
    offsets = ",".join(map(str, [100, 200, 106, 205, *flat]))
    read = one(tmp_path, "0001.txt", f"{offsets}\r\n", "ctw1500")
    assert read[0].points == [(100 + x, 200 + y) for x, y in points]
    xml = (
        f'<Annotations><image file="0200.jpg"><box height="1" left="1" top="1" width="1"><label>OLATHE</label>'
        f"<segs>{line}</segs></box><box><label>###</label><segs>{line}</segs></box></image></Annotations>"
    )
    read = one(tmp_path, "0200.xml", xml, "ctw1500")
    assert [(i.text, i.ignore, i.points) for i in read] == [("OLATHE", False, points), ("###", True, points)]


QUAD = "0,0,10,0,10,10,0,10"
FOURTEEN = ",".join(f"{10 * i},0" for i in range(7)) + "," + ",".join(f"{60 - 10 * i},9" for i in range(7))
OUTLINES = {"icdar2013": "0,0,10,10", "icdar2015": QUAD, "totaltext": QUAD, "ctw1500": FOURTEEN}


@pytest.mark.parametrize("form", OUTLINES)
@pytest.mark.parametrize(
    ("text", "word", "ignore"),
    [
        ("####WORD", "WORD", False),
        ("#######", "###", True),
        ("###", "###", True),
        ("####", "", False),
        ("####a, b", "a, b", False),
        ("#22", "#22", False),
        ("####1996", "1996", False),
    ],
)
def test_the_mark_of_text_spotting_repositories_reads_alike_in_every_format(tmp_path, form, text, word, ignore):
    (read,) = one(tmp_path, "gt_1.txt", f"{OUTLINES[form]},{text}\n", form)
    assert (read.text, read.ignore) == (word, ignore)


def test_the_mark_in_xml_and_mmocr(tmp_path):
    boxes = "".join(f"<box><label>{t}</label><segs>{FOURTEEN}</segs></box>" for t in ("####A", "#######"))
    read = one(tmp_path, "1.xml", f"<Annotations>{boxes}</Annotations>", "ctw1500")
    assert [(i.text, i.ignore) for i in read] == [("A", False), ("###", True)]
    texts = [{"polygon": [0, 0, 9, 0, 9, 9], "text": t, "ignore": g} for t, g in (("####A", 0), ("#######", False))]
    read = one(tmp_path, "x.json", json.dumps({"data_list": [{"img_path": "a.jpg", "instances": texts}]}), "mmocr")
    assert [(i.text, i.ignore) for i in read] == [("A", False), ("###", True)]


@pytest.mark.parametrize(
    ("form", "lines", "read"),
    [
        ("totaltext", [QUAD, QUAD], [(4, ""), (4, "")]),
        ("ctw1500", [FOURTEEN, FOURTEEN], [(14, ""), (14, "")]),
        ("ctw1500", [QUAD, QUAD], [(4, ""), (4, "")]),
        ("totaltext", [f"{QUAD},900,900"], [(5, "")]),  # nothing has a text: then this is an outline too
        # Beside lines with a transcription.
        ("totaltext", [f"{QUAD},word", QUAD], [(4, "word"), (4, "")]),
        ("totaltext", [f"{QUAD},word", f"{QUAD},1,000"], [(4, "word"), (4, "1,000")]),
        ("totaltext", [f"{QUAD},word", f"{QUAD},7,900"], [(4, "word"), (4, "7,900")]),
        ("ctw1500", [f"{FOURTEEN},word", FOURTEEN, f"{FOURTEEN},1,000"], [(14, "word"), (14, ""), (14, "1,000")]),
        ("totaltext", [f"{QUAD},1996"], [(4, "1996")]),
    ],
)
def test_coordinates_are_no_text(tmp_path, form, lines, read):
    texts = one(tmp_path, "gt_1.txt", "\n".join(lines), form)
    assert [(len(i.points), i.text) for i in texts] == read


def test_a_file_without_text_beside_one_with_text(tmp_path):
    for number, text in ((1, f"{QUAD},word"), (2, QUAD)):
        (tmp_path / f"gt_{number}.txt").write_text(text)
    assert [len(a.instances[0].points) for a in read_truth(tmp_path, "totaltext").values()] == [4, 4]


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("icdar2015", FOURTEEN),
        ("icdar2013", f"{QUAD},word"),
        ("ctw1500", f"{FOURTEEN},1,2,3,4"),  # 32 values that are no box with offsets
        ("ctw1500", f"{FOURTEEN},5,5"),
    ],
)
def test_coordinates_of_another_format_are_refused(tmp_path, form, line):
    with pytest.raises(InvalidData, match=f"gt_1.txt, line 1: .*is this the {form} format"):
        one(tmp_path, "gt_1.txt", line, form)


def test_mmocr_json(scene_text):
    truth = read_truth(scene_text / "icdar2015_train10" / "textdet_test.json", "mmocr")
    assert sum(len(a.instances) for a in truth.values()) == 82
    txt = read_truth(scene_text / "icdar2015_train10" / "img_1.txt", "icdar2015")["1"].instances
    own = next(a for name, a in truth.items() if Path(name).stem == "img_1").instances
    assert [(i.points, i.ignore) for i in own] == [(i.points, i.ignore) for i in txt]


def test_zips_folders_within_and_what_macs_add(tmp_path):
    with zipfile.ZipFile(tmp_path / "gt.zip", "w") as pack:
        for name in ("gt/Polygon/Train/gt_1.txt", "gt/Polygon/Test/gt_1.txt", "__MACOSX/gt/Polygon/Test/._gt_1.txt"):
            pack.writestr(name, "0,0,10,0,10,10,0,10,A" if "Test" in name else "")
    assert len(read_truth(tmp_path / "gt.zip" / "Polygon" / "Test", "icdar2015")["1"].instances) == 1
    assert len(read_truth(tmp_path / "gt.zip/gt/Polygon/Train", "icdar2015")["1"].instances) == 0
    with pytest.raises(InvalidData, match="already annotated"):
        read_truth(tmp_path / "gt.zip", "icdar2015")
    with pytest.raises(InvalidData, match=r"no \.txt"):
        read_truth(tmp_path / "gt.zip" / "Val", "icdar2015")
    (tmp_path / "bad.zip").write_bytes((tmp_path / "gt.zip").read_bytes()[:60])
    with pytest.raises(InvalidData, match="can't be read as a zip"):
        read_truth(tmp_path / "bad.zip", "icdar2015")
    with pytest.raises(InvalidData, match="no such file"):
        read_truth(tmp_path / "none.zip", "icdar2015")


def packed(file, contents, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", compression) as pack:
        for name, content in contents.items():
            pack.writestr(name, content)
    return file


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("lies", [False, True])
def test_zips_are_unpacked_up_to_a_limit(tmp_path, monkeypatch, compression, lies):
    monkeypatch.setattr(ground_truth, "LARGEST_FILE", 1 << 16)
    line = "1,1,20,1,20,15,1,15,WORD\n"
    file = packed(tmp_path / "a.zip", {"gt_img_1.txt": line, "gt_img_2.txt": line + "\n" * (1 << 20)}, compression)
    if lies:  # the sizes unpacked, in the second file's headers
        size = (len(line) + (1 << 20)).to_bytes(4, "little")
        file.write_bytes(file.read_bytes().replace(size, (100).to_bytes(4, "little")))
    with pytest.raises(
        InvalidData, match=r"can't be read as a zip" if lies else r"a\.zip/gt_img_2\.txt: has more than"
    ):
        read_truth(file, "icdar2015")


def test_all_files_of_a_zip_together_have_a_limit(tmp_path, monkeypatch):
    line = "1,1,20,1,20,15,1,15,WORD\n"
    file = packed(tmp_path / "a.zip", {f"gt_img_{i}.txt": line for i in range(4)} | {"other.jpg": "0" * 1000})
    assert len(read_truth(file, "icdar2015")) == 4
    monkeypatch.setattr(ground_truth, "LARGEST_ARCHIVE", 3 * len(line))
    with pytest.raises(
        InvalidData, match=r"a\.zip/gt_img_3\.txt: has more than .* with the files before it more than 75"
    ):
        read_truth(file, "icdar2015")


def test_files_of_annotations_have_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(ground_truth, "LARGEST_FILE", 100)
    monkeypatch.setattr(ground_truth, "LARGEST_JSON", 100)
    files: dict[str, Format] = {"gt_img_1.txt": "icdar2015", "1.xml": "ctw1500", "1.json": "mmocr"}
    for name, form in files.items():
        (tmp_path / name).write_text(" " * 101)
        with pytest.raises(InvalidData, match="has 101 bytes, and such a file has 100 at most"):
            read_truth(tmp_path / name, form)


def test_keys_join_truth_results_and_pictures():
    names = ("gt_img_7", "poly_gt_img7", "res_img_7", "img_7", "img7", "0007", "gt_7", "image_7", "7")
    assert {key_of(name) for name in names} == {"7"}
    assert key_of("shop_12") == "shop_12"


def test_detections_with_and_without_confidences(tmp_path):
    (tmp_path / "res_img_1.txt").write_bytes(
        b"\xef\xbb\xbf0,0,10,0,10,10,0,10,0.25\r\n1,1,10,0,10,10,0,10,0.75,word\r\n"
    )
    read = read_found(tmp_path, "icdar2015")["1"].instances
    assert [(i.points[0], i.confidence) for i in read] == [((1, 1), 0.75), ((0, 0), 0.25)]
    (tmp_path / "res_img_1.txt").write_text("0,0,0,10,10,10,10,5,10,0\n")
    assert read_found(tmp_path, "totaltext", y_first=True)["1"].instances[0].points[1] == (10, 0)
    (tmp_path / "res_img_1.txt").write_text("0,0,10,0,10,10,0,10,5,5,0.5\n")
    detection = read_found(tmp_path, "totaltext")["1"].instances[0]
    assert (len(detection.points), detection.confidence) == (5, 0.5)
    (tmp_path / "res_img_1.txt").write_text("0 0 10 10 0.5\n")
    assert read_found(tmp_path, "icdar2013")["1"].instances[0].confidence == 0.5


def test_a_broken_line_is_named(tmp_path):
    broken: list[tuple[Format, str, str]] = [
        ("icdar2015", "0,0,10,0,10,10,0,ten", "8 coordinates"),
        ("icdar2013", "a b c", "4 coordinates"),
        ("totaltext", "1,2,3,4,text", "pairs"),
        ("ctw1500", "nan,1,2,3,4,5,6", "28 coordinates"),
        ("icdar2015", "0,0,10,0,10,10,0,1e80,x", "8 coordinates"),
    ]
    for form, line, expected in broken:
        (tmp_path / "gt_1.txt").write_text(f"\n{line}\n")
        with pytest.raises(InvalidData, match=rf"gt_1.txt, line 2: .*{expected}"):
            read_truth(tmp_path, form)
    (tmp_path / "x.json").write_text(
        json.dumps({"data_list": [{"img_path": "a.jpg", "instances": [{"polygon": [1]}]}]})
    )
    with pytest.raises(InvalidData, match="entry 0, field instances"):
        read_truth(tmp_path / "x.json", "mmocr")


TRIANGLE = [0, 0, 9, 0, 9, 9]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"instances": []}, "field img_path: None is no path"),
        ({"img_path": 3, "instances": []}, "field img_path: 3 is no path"),
        ({"img_path": "a.jpg"}, "field instances: 'None' is no list"),
        ({"img_path": "a.jpg", "instances": [3]}, "instances, 0"),
        ({"img_path": "a.jpg", "instances": [{"polygon": [[0, 0], [9, 0], [9, 9]]}]}, "is no polygon"),
        ({"img_path": "a.jpg", "instances": [{"polygon": [*TRIANGLE, float("nan"), 0]}]}, "is no polygon"),
        ({"img_path": "a.jpg", "instances": [{"polygon": [*TRIANGLE, 1e300, 0]}]}, "is no polygon"),
        ({"img_path": "a.jpg", "instances": [{"polygon": [0, 0, 9, 9]}]}, "is no polygon"),
        ({"img_path": "a.jpg", "instances": [{"polygon": TRIANGLE, "ignore": "false"}]}, "write ignore as true"),
        ({"img_path": "a.jpg", "instances": [{"polygon": TRIANGLE, "text": 3}]}, "and text as text"),
        (None, "field img_path"),
    ],
)
def test_broken_entries_of_mmocr_are_rows(tmp_path, entry, message):
    good = {"img_path": "b.jpg", "instances": [{"polygon": TRIANGLE, "text": None, "ignore": None}]}
    (tmp_path / "x.json").write_text(json.dumps({"data_list": [entry, good]}))
    first, second = truth_readers(tmp_path / "x.json", "mmocr").values()
    assert [(i.text, i.ignore) for i in second().instances] == [("", False)]
    with pytest.raises(InvalidData, match=f"entry 0.*{message}"):
        first()


BYTES = st.binary(max_size=200) | st.text(max_size=200).map(str.encode)
LINES = st.lists(st.from_regex(r"(-?[0-9]{1,5}[, ]?){0,34}([^\n]{0,8})", fullmatch=True), max_size=3).map("\n".join)
OWN = st.from_regex(r"(x: \[\[[0-9 ]{0,9}\]\], y: \[\[[0-9 ]{0,9}\]\], ornt: \[u'.'\], transcriptions: .{0,6}\n?){1,3}")


@pytest.mark.slow
@given(BYTES | LINES.map(str.encode) | OWN.map(str.encode))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_read_or_refused_clearly(content):
    for form in ("icdar2013", "icdar2015", "totaltext", "ctw1500"):
        _read_or_refused(lambda content=content, form=form: _text(content, "file", form))
    for reader in (_xml, _mat):
        _read_or_refused(lambda reader=reader: reader(content, "file"))


@given(st.integers(0, 1000), st.integers(0, 255), st.integers(0, 1000))
@settings(max_examples=300, deadline=None)
def test_a_damaged_mat_is_read_or_refused_clearly(place, value, length):
    buffer = io.BytesIO()
    rows = np.empty((1, 6), dtype=object)
    rows[0] = ["x:", np.array([0, 10, 10]), "y:", np.array([0, 0, 10]), "word", "h"]
    scipy.io.savemat(buffer, {"polygt": rows}, do_compression=True)
    content = bytearray(buffer.getvalue())
    assert _mat(bytes(content), "file")
    _read_or_refused(lambda: _mat(bytes(content[:length]), "file"))
    content[place % len(content)] = value
    _read_or_refused(lambda: _mat(bytes(content), "file"))


def _read_or_refused(read):
    refusal = None
    try:
        for instance in read():
            assert len(instance.points) >= 3
            assert all(np.isfinite(p).all() for p in instance.points)
    except InvalidData as error:
        refusal = str(error)
    assert refusal is None or "file" in refusal
