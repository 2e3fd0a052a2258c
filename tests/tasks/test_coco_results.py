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
