"""`ntil data check` and `ntil data show`: exit codes, findings, and sheets that show the answers."""

import json

import numpy as np
import pytest
from datasets import Dataset
from PIL import Image

from ntil.cli import main
from ntil.commands.data import check, contact_sheet
from tasks.base import ParseFailure, Task


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def table(folder, *rows):
    Image.new("RGB", (100, 50), "grey").save(folder / "a.png")
    file = folder / "my.jsonl"
    file.write_text("".join(json.dumps({"image": "a.png", "prompt": "?"} | row) + "\n" for row in rows))
    return f"task.source.test={file}"


JSONL = ["task=jsonl", "task.metric=box"]


def test_check_of_good_rows_ends_with_0_and_counts(tmp_path, capsys):
    # The default model, LLaVA, writes a box as four fractions: 28 characters.
    assert main(["data", "check", *JSONL, table(tmp_path, {"answer": [1, 2, 30, 40]}, {"answer": [1, 2, 90, 40]})]) == 0
    shown = capsys.readouterr()
    assert "test: 2 rows, 0 skipped, 0 problems, longest answer 28 characters" in shown.out
    assert "checking test: 100%" in shown.err


def test_check_of_a_broken_row_ends_with_1_and_names_it(tmp_path, capsys):
    words = ["data", "check", *JSONL, table(tmp_path, {"answer": [1, 2, 30, 40]}, {"answer": [1, 2, 300, 40]})]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert "test: 0 rows, 0 skipped, 1 problem" in out
    assert "my.jsonl, line 2, field answer: [1, 2, 300, 40] lies outside the 100 x 50 picture" in out
    # Skipping is counted, listed, and no fault.
    assert main([*words, "task.source.on_error=skip", "out=report.txt"]) == 0
    out = capsys.readouterr().out
    assert "test: 1 row, 1 skipped, 0 problems" in out
    assert "skipped: " in out
    assert "line 2" in out
    assert "line 2" in (tmp_path / "report.txt").read_text()


def test_only_the_first_findings_are_shown_and_all_are_written(tmp_path, capsys):
    rows = [{"answer": [0, 0, 9, 9]}, *({"answer": [0, 0, 0, i]} for i in range(30))]
    words = ["data", "check", *JSONL, table(tmp_path, *rows), "task.source.on_error=skip", "out=report.txt"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.count("skipped: ") == 20
    assert "... 10 more" in out
    assert (tmp_path / "report.txt").read_text().count("skipped: ") == 30


def test_splits_can_be_named_and_an_unknown_one_is_a_finding(tmp_path, capsys):
    task = ["task=grounding_nano", "task.source.rows={train:4,test:2}"]
    assert main(["data", "check", *task, "splits=test"]) == 0
    assert "train" not in capsys.readouterr().out
    assert main(["data", "check", *task]) == 0
    assert "train: 4 rows" in capsys.readouterr().out
    assert main(["data", "check", *task, "splits=test,testA"]) == 1
    assert "testA: 0 rows" in capsys.readouterr().out


class Odd(Task):
    """Its third row's picture can't be decoded, its fourth's answer can't be read, its fifth has no question."""

    metric = "exact"

    def rows(self, split):
        return Dataset.from_dict({"id": list("abcde"), "n": list(range(5))})

    def prompt(self, row):
        if row["n"] == 2:
            raise OSError("broken data stream")
        return " " if row["n"] == 4 else "?"

    def answer(self, row):
        return str(row["n"])

    def parse(self, text, row):
        return ParseFailure("odd") if text == "3" else text

    def score(self, prediction, row):
        return {"exact": float(prediction == self.answer(row))}


def test_every_way_a_row_can_be_no_use_is_found_and_the_rest_goes_on():
    (report,) = check(Odd(), ["test"])
    assert report.rows == 5
    assert report.problems == [
        "test, row 2 (c): OSError: broken data stream",
        "test, row 3 (d): its own answer '3' can't be parsed: odd",
        "test, row 4 (e): the prompt is empty",
    ]
    assert not report.good


def test_a_sheet_of_all_rows_or_of_n_spread_over_the_split(tmp_path, capsys):
    task = ["task=grounding_nano", "task.source.rows={train:20,test:2}"]
    assert main(["data", "show", *task, "n=9", "out=sheets/a.png"]) == 0
    assert Image.open(tmp_path / "sheets/a.png").size == (600, 720)
    assert main(["data", "show", *task, "split=test"]) == 0
    sheet = Image.open(tmp_path / "grounding_nano-test.png")
    assert sheet.size == (400, 240)
    # The answers are drawn: a green frame in both halves.
    for left in (0, 200):
        red, green, blue = np.moveaxis(np.asarray(sheet.crop((left, 0, left + 200, 196))), 2, 0)
        assert ((green > 180) & (red < 90) & (blue < 130)).any()
    assert "grounding_nano-test.png: test, 0 rows skipped" in capsys.readouterr().out


def test_a_sheet_needs_a_row(tmp_path):
    with pytest.raises(ValueError, match="n >= 1"):
        contact_sheet(Odd(), "test", 0, tmp_path / "sheet.png")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "ntil data check task=..."),
        (["chek"], "ntil data check task=..."),
        (["check", "task=gruonding_nano"], "did you mean 'grounding_nano'?"),
        (["check", "task=jsonl"], "task.source.train=<file>"),
        (["show", "task=grounding_nano", "n=none"], "n=none"),
        (["show", "task=grounding_nano", "out=a.gif"], "a.gif"),
        (["show", "task=grounding_nano", "split=val"], "task.source.rows.val"),
        (["check", "task=grounding_photos", "task.source.on_eror=skip"], "did you mean 'task.source.on_error'?"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(["data", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_list_of_findings_makes_its_folder_and_is_no_folder(tmp_path, capsys):
    words = ["data", "check", *JSONL, table(tmp_path, {"answer": [1, 2, 30, 40]})]
    assert main([*words, "out=new/folder/report.txt"]) == 0
    assert "test: 1 row" in (tmp_path / "new" / "folder" / "report.txt").read_text()
    capsys.readouterr()
    assert main([*words, "out=new/folder"]) == 2
    shown = capsys.readouterr()
    assert "out=new/folder: is a folder; name a file" in shown.err
    assert "checking" not in shown.err, "before any row is read"
