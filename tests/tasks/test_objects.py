"""Lists of boxes and points: scores against pycocotools on real annotations, and by hand."""

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from data.common.errors import InvalidData, InvalidOption
from data.objects.photos import PhotoObjects
from data.objects.rendered import RenderedObjects
from tasks.answers.coordinates import FORMATS
from tasks.base import ParseFailure
from tasks.detection import Detection
from tasks.jsonl import BoxLists
from tasks.metrics.objects import THRESHOLDS, Labelled, matched
from tasks.pointing import Pointing
from tests.support.objects_files import write_grefs, write_points

SOURCE = RenderedObjects({"test": 1})
ROW: dict[str, Any] = {
    "id": "1", "image": None, "width": 999, "height": 999, "question": "cat, dog", "asked": ["cat", "dog"],
    "split": "test",
    "boxes": [[0, 0, 100, 100], [200, 200, 300, 300]], "labels": ["cat", "dog"], "crowd": [False, False],
    "points": [[50, 50], [250, 250]],
}  # fmt: skip
EMPTY = {**ROW, "boxes": [], "labels": [], "crowd": [], "points": []}


def shaken(rng, row):
    """An answer as a middling model gives it: boxes moved, missing, repeated, of another name."""
    found = []
    for box, label in zip(row["boxes"], row["labels"], strict=True):
        side = max(box[2] - box[0], box[3] - box[1])
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            x1, y1, x2, y2 = np.array(box) + rng.normal(0, 0.08 * side, 4)
            name = label if rng.random() < 0.9 else "person"
            found.append(Labelled((min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)), name))
    return [found[i] for i in rng.permutation(len(found))]


def test_counts_and_map_are_those_of_pycocotools_on_real_annotations(shared, tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folder = shared / "assets/data/coco128/object_detection"
    task = Detection(PhotoObjects(str(folder), absent=0, names=None, on_error="skip"))
    rng = np.random.default_rng(0)
    rows = task.rows("train").remove_columns("image")
    names = sorted({label for row in rows for label in row["labels"]})
    truths: list[dict[str, Any]] = []
    results, records, ours = [], [], np.zeros((len(THRESHOLDS), 2))
    for number, row in enumerate(rows, start=1):
        row["crowd"] = [rng.random() < 0.05 for _ in row["boxes"]]
        found, true = shaken(rng, row), task.truth(row)
        ours += [matched(found, true, threshold) for threshold in THRESHOLDS]
        for item in true:
            x1, y1, x2, y2 = item.box
            truths.append(
                {
                    "id": len(truths) + 1,
                    "image_id": number,
                    "category_id": names.index(item.label),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
            truths[-1] |= {"area": (x2 - x1) * (y2 - y1), "iscrowd": int(item.crowd)}
        for rank, item in enumerate(found, start=1):
            x1, y1, x2, y2 = item.box
            results.append(
                {
                    "image_id": number,
                    "category_id": names.index(item.label),
                    "score": 1 / rank,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
        record = task.record(task.answer(row), row)
        records.append({**record, "predicted": [[*map(float, item.box), item.label] for item in found]})
    truth = COCO()
    truth.dataset = {
        "images": [{"id": n} for n in range(1, len(rows) + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": truths,
    }
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.params.maxDets = [1, 10, 1000]
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    official = np.zeros_like(ours)
    for image in filter(None, evaluation.evalImgs[: len(names) * 4 * len(rows)]):
        if image["aRng"] == evaluation.params.areaRng[0]:
            counts = ~image["dtIgnore"]
            official += np.stack([((image["dtMatches"] > 0) & counts).sum(1), counts.sum(1)], 1)
    assert len(rows) >= 100
    assert 0.2 < official[0, 0] / official[0, 1] < 0.99
    np.testing.assert_array_equal(ours, official)
    summary = task.summarize(records)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    for name, part in (("map", precision), ("map_0.5", precision[:1]), ("map_0.75", precision[5:6])):
        assert summary[name] == pytest.approx(part[part > -1].mean(), abs=1e-12)
    assert task.record(task.answer(rows[0]), rows[0])["scores"]["f1_0.5"] == 1


@pytest.mark.parametrize("coords", FORMATS.values(), ids=list(FORMATS))
def test_detection_by_hand(coords):
    task = Detection(SOURCE, coords=coords)
    right = task.answer(ROW)
    scores = task.record(right, ROW)["scores"]
    assert scores["f1_0.5"] == scores["f1_is_1_0.5"] == 1
    assert scores["f1"] == 1
    half = task.answer({**ROW, "boxes": ROW["boxes"][:1], "labels": ["cat"], "crowd": [False]})
    scores = task.record(half, ROW)["scores"]
    assert scores["f1_0.5"] == pytest.approx(2 / 3)
    assert (scores["f1_is_1_0.5"], scores["count_error"], scores["duplicates"]) == (0, 1, 0)
    twice = task.answer(
        {**ROW, "boxes": ROW["boxes"] + ROW["boxes"][:1], "labels": ["cat", "dog", "cat"], "crowd": [False] * 3}
    )
    scores = task.record(twice, ROW)["scores"]
    assert scores["f1_0.5"] == pytest.approx(4 / 5)
    assert (scores["duplicates"], scores["count_error"]) == (1, 1)
    swapped = task.answer({**ROW, "labels": ["dog", "cat"]})
    assert task.record(swapped, ROW)["scores"]["f1_0.5"] == 0
    bare = Detection(SOURCE, named=False, coords=coords)
    assert bare.record(swapped, ROW)["lenient"]["f1_0.5"] == 1
    assert isinstance(task.parse(bare.answer(ROW), ROW), ParseFailure)


@pytest.mark.parametrize("name", ["int1000", "json1000"])
def test_nothing_to_find_is_right_only_when_nothing_is_answered(name):
    task = Detection(SOURCE, named=False, coords=FORMATS[name])
    empty, some = task.answer(EMPTY), task.answer(ROW)
    assert empty == {"int1000": "none", "json1000": "[]"}[name]
    records = [
        task.record(text, row)
        for text, row in ((empty, EMPTY), (some, EMPTY), ("what?", EMPTY), (some, ROW), (empty, ROW))
    ]
    assert [r["scores"]["f1_0.5"] for r in records] == [1, 0, 0, 1, 0]
    summary = task.summarize(records)
    assert summary["n_acc"] == pytest.approx(1 / 3)
    assert summary["t_acc"] == 1 / 2
    assert summary["f1_is_1_0.5"] == 2 / 5
    # Matched 2, found 2 + 1 (of the failure) + 2, true 4: a failed answer is no empty one.
    assert summary["micro_f1_0.5"] == pytest.approx(2 * 2 / (5 + 4))


def write_photo(folder, things, categories):
    """One picture with COCO's annotations of (category, box, crowd)."""
    Image.new("RGB", (100, 80)).save(folder / "a.png")
    ids = {name: number for number, name in enumerate(categories, start=1)}
    annotations = [
        {"id": i, "image_id": 1, "category_id": ids[name], "bbox": box, "iscrowd": crowd}
        for i, (name, box, crowd) in enumerate(things)
    ]
    images = [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}]
    listed = [{"id": number, "name": name} for name, number in ids.items()]
    document = {"images": images, "annotations": annotations, "categories": listed}
    (folder / "coco.json").write_text(json.dumps(document))
    return str(folder), {"test": str(folder / "coco.json")}


def test_a_category_of_crowds_alone_is_not_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    things = [("person", [0, 0, 60, 60], 1), ("dog", [5, 5, 30, 30], 0), ("dog", [40, 5, 50, 30], 1)]
    folder, files = write_photo(tmp_path, things, ["person", "dog", "cat"])
    for names, asked in ((None, ["dog"]), (["cat", "Person", "Dog"], ["cat", "dog"])):
        (row,) = PhotoObjects(folder, files, names=names, absent=0).rows("test")
        assert row["asked"] == asked
        assert {*row["labels"]} == {"dog"}


def test_a_photograph_with_crowds_alone_of_what_is_asked_for_is_left_out_with_a_note(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folder, files = write_photo(tmp_path, [("person", [0, 0, 60, 60], 1)], ["person", "dog"])
    with pytest.raises(InvalidData, match="the split is empty"):  # it was the only one
        PhotoObjects(folder, files, names=["person"]).rows("test")
    assert "a.png: left out: of person it has crowds alone" in caplog.text
    assert PhotoObjects(folder, files, names=["person", "dog"]).rows("test")["asked"] == [["dog"]]


def test_names_that_the_file_has_not_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folder, files = write_photo(tmp_path, [("person", [0, 0, 60, 60], 0)], ["person", "dog"])
    for names, hint in ((["persn"], "did you mean 'person'"), (["griffin"], "known: dog, person")):
        with pytest.raises(InvalidOption, match=f"no category '{names[0]}'; {hint}"):
            PhotoObjects(folder, files, names=names).rows("test")
    assert PhotoObjects(folder, files, names=["dog"]).rows("test")["labels"] == [[]]  # in the file alone


def test_points_by_hand():
    task = Pointing(SOURCE)
    assert task.answer(ROW) == "[50, 50]; [250, 250]"
    cases = {
        "[50, 50]; [250, 250]": (1, 1, 0, 0),
        "[0, 0]; [300, 300]": (1, 1, 0, 0),  # on the edge
        "[50, 50]; [52, 52]": (0.5, 1, 0, 1),  # one target is hit once
        "[150, 150]; [250, 250]": (0.5, 0, 0, 0),
        "[0, 0, 100, 100]": (2 / 3, 1, 1, 0),  # the middle of a box
        "none": (0, 0, 2, 0),
        "": (0, 0, 2, 0),
    }
    for text, expected in cases.items():
        scores = task.record(text, ROW)["scores"]
        assert [scores[n] for n in ("f1", "in_box", "count_error", "duplicates")] == pytest.approx(expected), text
    assert task.record("none", EMPTY)["scores"]["f1"] == 1
    assert task.record("[1, 1]", EMPTY)["scores"]["f1"] == 0
    alone = {**ROW, "boxes": []}  # PixMo: points alone, reach 0.05 * 999
    assert task.record("[99, 50]; [250, 201]", alone)["scores"]["f1"] == 1
    assert task.record("[101, 50]; [250, 199]", alone)["scores"]["f1"] == 0
    assert task.record("click (50, 50) and (250, 250)", ROW)["lenient"]["f1"] == 1


def test_grefcoco_means_any_number_of_objects(tmp_path, monkeypatch):
    from data.objects.grefcoco import GRefCOCO

    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    release = write_grefs(tmp_path)
    rows = list(GRefCOCO(str(release), images=str(release)).rows("val"))
    assert [(row["question"], row["boxes"]) for row in rows] == [
        ("two dogs", [[5, 4, 25, 34], [30, 10, 55, 30]]),
        ("the left dog", [[5, 4, 25, 34]]),
        ("a cat", []),
    ]
    refs = json.loads((release / "grefs(unc).json").read_text())
    refs[0]["ann_id"], refs[1]["ann_id"] = [11, 99], []
    (release / "grefs(unc).json").write_text(json.dumps(refs))
    skipping = GRefCOCO(str(release), images=str(release), on_error="skip")
    assert [row["question"] for row in skipping.rows("train")] == ["a cat"]
    assert "no annotation 99 of the image 1" in skipping.row_errors.skipped[0]
    assert "doesn't say no_target" in skipping.row_errors.skipped[1]


def test_tables_of_points(tmp_path, monkeypatch):
    from data.objects.points import PointTable

    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    write_points(tmp_path)
    row = PointTable({"test": str(tmp_path / "screen.json")}).rows("test")[0]
    assert (row["boxes"], row["points"], row["question"]) == ([[20, 10, 60, 40]], [[40, 25]], "the save button")
    rows = list(PointTable({"test": str(tmp_path / "pixmo.jsonl")}, layout="pixmo").rows("test"))
    assert [(row["points"], row["boxes"]) for row in rows] == [([[20, 50], [199, 0]], []), ([], [])]
    lines = (tmp_path / "pixmo.jsonl").read_text()
    for wrong, right in (
        ('"count": 3', "isn't the number of points"),
        ('"count": "x"', "is no whole number"),
    ):
        (tmp_path / "wrong.jsonl").write_text(lines.replace('"count": 2', wrong))
        with pytest.raises(ValueError, match=right):
            PointTable({"test": str(tmp_path / "wrong.jsonl")}, layout="pixmo").rows("test")
    (tmp_path / "parts.jsonl").write_text(lines.replace("10.0", "0.1").replace("99.5", "0.995").replace("50", "0.5"))
    with pytest.raises(ValueError, match="parts of 1"):
        PointTable({"test": str(tmp_path / "parts.jsonl")}, layout="pixmo").rows("test")
    with pytest.raises(ValueError, match="no column for the question"):
        PointTable({"test": str(tmp_path / "pixmo.jsonl")}).rows("test")


@pytest.mark.parametrize("group", ["checksum_a", "sum_a", "lenient_a", "sum_true"])
def test_groups_have_all_metrics_whatever_their_names(group):
    from tasks.text_detection import TextDetection

    square = [[0, 0], [100, 0], [100, 100], [0, 100]]
    texts = {**ROW, "polygons": [square], "ignore": [False], "group": group}
    for task, row in ((BoxLists(SOURCE), {**ROW, "group": group}), (TextDetection(SOURCE), texts)):
        record = {**task.record(task.answer(row), row), "groups": [group, "plain"]}
        metrics = task.summarize([record])
        names = {key.removeprefix("plain/") for key in metrics if key.startswith("plain/")}
        assert "examples" in names
        assert {key.removeprefix(f"{group}/") for key in metrics if key.startswith(f"{group}/")} == names


PROSE = "Sure! I looked closely, and the dog is at {}"


def test_words_before_a_shape_are_no_strict_answer_where_no_name_is_asked_for():
    row = {**ROW, "labels": [""] * len(ROW["labels"])}
    one = PROSE.format("[100, 200, 300, 400]")
    for task in (Detection(SOURCE, named=False), BoxLists(SOURCE)):
        assert isinstance(task.parse(one, row), ParseFailure)
        assert not isinstance(task.parse("[100, 200, 300, 400]", row), ParseFailure)
    assert isinstance(Pointing(SOURCE).parse(PROSE.format("[100, 200]"), row), ParseFailure)
    # Of a table with names a row without boxes doesn't tell that it has them.
    assert not isinstance(BoxLists(SOURCE).parse("dog [100, 200, 300, 400]", {**row, "boxes": []}), ParseFailure)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("(120,340), (560,780)", 2),
        ("[[120,340],[560,780]]", 2),
        ("at (120,340),(560,780),(10,20)", 3),
        ("[120, 340]", 1),
    ],
)
def test_points_in_brackets_of_their_own_are_as_many_points(text, count):
    points = Pointing(SOURCE, coords=FORMATS["json1000"]).search(text, {**ROW, "width": 1000, "height": 1000})
    assert not isinstance(points, ParseFailure)
    assert points[0] == (120, 340)
    assert len(points) == count


def test_names_of_objects_in_single_quotes_are_read():
    text = "[{'bbox_2d': [100, 200, 300, 400], 'label': 'dog'}, {'bbox_2d': [1, 2, 30, 40], 'label': 'Tom\\'s cat'}]"
    items = FORMATS["json1000"].find_items(text, (1000, 1000), "box")
    assert [item.label for item in items] == ["dog", "Tom's cat"]


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("[[1, 2, 300, 400], [500, 600, 700, 800]]", ["", ""]),
        ("dog [1, 2, 300, 400], cat [500, 600, 700, 800]", ["dog", "cat"]),
        ("dog [1, 2, 300, 400] and cat [500, 600, 700, 800]", ["dog", "cat"]),
        ("dog [1, 2, 300, 400], and cat [500, 600, 700, 800]", ["dog", "cat"]),
        ("dog [1, 2, 300, 400] & android [500, 600, 700, 800]", ["dog", "android"]),
        ("1. **dog**: [1, 2, 300, 400]\n2. **hot dog**: [500, 600, 700, 800]", ["dog", "hot dog"]),
    ],
)
def test_what_joins_two_boxes_is_part_of_no_name(text, labels):
    assert [item.label for item in FORMATS["int1000"].find_items(text, (1000, 1000), "box")] == labels
