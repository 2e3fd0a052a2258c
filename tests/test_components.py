"""What is found out about the answers before anything is trained."""

import json

import pytest
from datasets import Dataset, Features, Image, List, Value

from data.common.rows import sample_rows
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


def built(folder, answers, *words):
    file = folder / "my.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"{i}?", "answer": a}) + "\n" for i, a in enumerate(answers)))
    files = [f"task.source.train={file}", f"task.source.validation={file}", f"task.source.test={file}"]
    return Components.build(compose(["task=jsonl", *files, "model=llama3_nano", "loss=ntil", "tracker=none", *words]))


def test_coverage_is_that_of_the_whole_split_in_whatever_order(tmp_path):
    """Of a file sorted by kind the first rows say nothing about the others."""
    mixed = built(tmp_path, ["yes"] * 100 + ["12345"] * 100)
    share = mixed.coverage(sample_rows(mixed.task.rows("train")))
    assert share == pytest.approx(mixed.coverage(list(mixed.task.rows("train"))), abs=0.02)
    assert 0.4 < share < 1


def test_coverage_is_that_of_a_training_batch(tmp_path):
    own = built(tmp_path, ["7", "-12.5", "no"])
    rows = list(own.task.rows("train"))
    assert own.coverage(rows) == own.collator(rows)["spans"].is_digit.float().mean().item()


def test_a_loss_on_numbers_needs_a_number(tmp_path):
    words = built(tmp_path, ["yes"] * 30)
    with pytest.raises(ConfigError, match=r"no number in the answers of 30 rows \(first: 'yes'"):
        words.coverage(sample_rows(words.task.rows("train")))


@pytest.mark.parametrize(("count", "most", "ids"), [(10, 3, "036"), (3, 64, "012"), (1, 64, "0"), (0, 64, "")])
def test_rows_are_spread_over_the_split_and_no_picture_is_decoded(count, most, ids):
    picture = {"bytes": b"no picture at all", "path": None}
    features = Features({"id": Value("string"), "image": Image(), "more": List(Image())})
    table = {"id": [str(i) for i in range(count)], "image": [picture] * count, "more": [[picture]] * count}
    found = sample_rows(Dataset.from_dict(table, features), most)
    assert "".join(row["id"] for row in found) == ids
    assert all(row["image"] == row["more"][0] == picture for row in found)
