"""Run folders: files appear whole, runs are found."""

import pytest

from ntil.config import ConfigError
from ntil.evaluate import evaluate_to
from ntil.runs import RunFolder, find, write


def test_a_failed_write_leaves_the_old_file(tmp_path):
    file = tmp_path / "metrics.json"
    write(file, "old")
    with pytest.raises(TypeError):
        write(file, None)  # type: ignore[arg-type]
    assert file.read_text() == "old"


def test_an_evaluation_that_breaks_leaves_no_predictions(tmp_path):
    def broken():
        yield {"id": 1}
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        evaluate_to(tmp_path / "predictions.jsonl", broken(), lambda records: {})
    assert list(tmp_path.iterdir()) == []


def test_runs_are_found_below_a_folder_but_not_their_evaluations(tmp_path):
    for name in ("b/seed1", "a/seed0", "a/seed0/evaluations/x"):
        RunFolder(tmp_path / name).freeze({"seed": 0})
    assert [r.path for r in find(tmp_path)] == [tmp_path / "a/seed0", tmp_path / "b/seed1"]
    assert [r.path for r in find(tmp_path / "a/seed0")] == [tmp_path / "a/seed0"]
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        RunFolder(tmp_path).config()
