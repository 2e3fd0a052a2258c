"""Boxes of a run as COCO's result file: written, and scored by pycocotools."""

import json

import pytest

from data.objects.photos import PhotoObjects
from tasks.answers.coordinates import FORMATS
from tasks.detection import Detection
from tasks.metrics.coco_results import main
from tests.support.fuzzed.grounding import write_coco


@pytest.fixture
def predictions(tmp_path, monkeypatch):
    """A function that writes the predictions of a run that answers as `answer(task, row)`."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    write_coco(tmp_path)
    source = PhotoObjects(str(tmp_path), {"test": str(tmp_path / "coco.json")}, absent=0)
    task = Detection(source, coords=FORMATS["unit"])

    def write(answer):
        file = tmp_path / "predictions.jsonl"
        file.write_text("".join(json.dumps(task.record(answer(task, r), r)) + "\n" for r in task.rows("test")))
        return file

    return write


@pytest.fixture
def truth(tmp_path, predictions):
    """COCO's file with names for its categories."""
    document = json.loads((tmp_path / "coco.json").read_text())
    return tmp_path / "coco.json", {c["name"]: c["id"] for c in document["categories"]}


def test_taught_answers_reach_the_best_figures(tmp_path, predictions, truth, capsys):
    file, categories = truth
    out = tmp_path / "results.json"
    assert main([str(predictions(Detection.answer)), str(file), str(out)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["pictures"], figures["boxes"], figures["boxes_of_no_category"]) == (3, 9, 0)
    assert figures["map_0.5"] == pytest.approx(1)
    results = json.loads(out.read_text())
    assert {entry["category_id"] for entry in results} == set(categories.values())
    assert {entry["image_id"] for entry in results} == {1, 2, 3}
    assert results[0]["bbox"] == pytest.approx([2, 30, 40, 10], abs=0.1)  # the names in order: the cat
    assert results[1]["score"] == 0.5


def test_names_that_are_no_category_are_counted(tmp_path, predictions, truth, capsys):
    file, _ = truth
    path = predictions(lambda _task, _row: "griffin [0.100, 0.100, 0.500, 0.500]")
    assert main([str(path), str(file), str(tmp_path / "results.json")]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["boxes"], figures["boxes_of_no_category"], figures["map"]) == (0, 3, 0)


def test_predictions_of_other_pictures_or_tasks_are_refused(tmp_path, predictions, truth, capsys):
    file, _ = truth
    path = predictions(Detection.answer)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row, problem in (({**rows[0], "id": "test-9"}, "is of no picture"), ({"id": "test-1"}, "is missing")):
        path.write_text(json.dumps(row) + "\n")
        assert main([str(path), str(file), str(tmp_path / "none.json")]) == 2
        error = capsys.readouterr().err
        assert problem in error
        assert "line 1" in error
    assert main([str(tmp_path / "no.jsonl"), str(file), str(tmp_path / "none.json")]) == 2
    assert not (tmp_path / "none.json").exists()


def test_a_file_without_area_and_crowds_is_scored(tmp_path, predictions, truth, capsys):
    file, _ = truth
    path = predictions(Detection.answer)
    document = json.loads(file.read_text())
    for annotation in document["annotations"]:
        annotation.pop("area", None)
        annotation.pop("iscrowd", None)
    file.write_text(json.dumps(document))
    assert main([str(path), str(file), str(tmp_path / "results.json")]) == 0
    assert json.loads(capsys.readouterr().out)["map_0.5"] == pytest.approx(1)


def two_pictures(first=1, id_of=int, **more):
    """A file of two pictures with a dog each, whose annotations have the ids `first` and the next."""
    images = [{"id": id_of(i), "file_name": f"p{i}.jpg", "width": 100, "height": 100} for i in range(2)]
    dogs = [
        {"id": first + i, "image_id": id_of(i), "category_id": 1, "bbox": [10, 10, 40, 40], **more} for i in range(2)
    ]
    return {"images": images, "categories": [{"id": 1, "name": "dog"}], "annotations": dogs}


def scored(folder, document, capsys, encoding="utf-8"):
    """The command on answers that are the truth of `two_pictures`: exit code, figures or error, and the file."""
    (folder / "truth.json").write_text(json.dumps(document), encoding=encoding)
    boxes = [[10, 10, 50, 50, "dog"]]
    lines = [json.dumps({"id": f"val-p{i}", "predicted": boxes}) + "\n" for i in range(2)]
    (folder / "predictions.jsonl").write_text("".join(lines))
    code = main([str(folder / name) for name in ("predictions.jsonl", "truth.json", "results.json")])
    out, error = capsys.readouterr()
    return code, json.loads(out) if out else error, folder / "results.json"


@pytest.mark.parametrize(
    ("options", "encoding"),
    [
        ({}, "utf-8"),
        ({"first": 0}, "utf-8"),
        ({}, "utf-8-sig"),
        ({"id_of": str}, "utf-8"),
        ({"iscrowd": "0"}, "utf-8"),
        ({"iscrowd": False}, "utf-8"),
        ({"area": "1600"}, "utf-8"),
        ({"area": ""}, "utf-8"),
        ({"bbox": ["10", "10", "40", "40"]}, "utf-8"),
        ({"category_id": "1"}, "utf-8"),
    ],
)
def test_files_that_pycocotools_alone_misreads(tmp_path, capsys, options, encoding):
    code, figures, results = scored(tmp_path, two_pictures(**options), capsys, encoding)
    assert (code, figures["map"], figures["map_medium"]) == (0, pytest.approx(1), pytest.approx(1))
    id_of = options.get("id_of", int)
    assert [entry["image_id"] for entry in json.loads(results.read_text())] == [id_of(0), id_of(1)]


def test_annotations_that_share_an_id_are_all_scored(tmp_path, capsys):
    document = two_pictures()
    document["annotations"][1] |= {"id": 1, "bbox": [10, 10, 40, 41]}
    assert scored(tmp_path, document, capsys)[1]["map_0.5"] == pytest.approx(1)


def test_annotations_of_other_pictures_do_not_matter(tmp_path, capsys):
    document = two_pictures()
    document["images"].append({"id": 9, "file_name": "other.jpg", "width": 10, "height": 10})
    document["annotations"] += [{"id": 7, "image_id": 9}, {"id": 8, "image_id": 99}]
    assert scored(tmp_path, document, capsys)[1]["map"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bbox": [10, 10, 40]}, "annotation 1, field bbox: has 3 numbers; write [x, y, width, height]"),
        ({"bbox": None}, "annotation 1, field bbox: None is no list"),
        ({"category_id": 5}, "annotation 1, field category_id: the file has no category 5"),
        ({"iscrowd": 2}, "annotation 1, field iscrowd: 2 is neither 0 nor 1"),
    ],
)
def test_annotations_that_cannot_be_scored_are_named(tmp_path, capsys, change, message):
    document = two_pictures()
    document["annotations"][0] |= change
    code, error, results = scored(tmp_path, document, capsys)
    assert (code, results.exists()) == (2, False)
    assert message in error


def test_a_name_of_two_categories_is_refused(tmp_path, capsys):
    document = two_pictures()
    document["categories"].append({"id": 2, "name": "Dog"})
    code, error, _ = scored(tmp_path, document, capsys)
    assert code == 2
    assert "category 2, field name: 'Dog' is the name of category 1 too; give every category a name" in error
