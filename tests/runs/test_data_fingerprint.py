"""The fingerprint of a split changes with its data and with nothing else; a run is resumed on the same data only."""

import io
import json
import time

import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from ntil.config.errors import ConfigError
from ntil.runs.data_fingerprint import check_data, described, fingerprint


def rows(count=10, colour=0, text="a"):
    def picture(shade):
        buffer = io.BytesIO()
        PILImage.new("L", (2, 2), shade).save(buffer, "PNG")
        return {"bytes": buffer.getvalue(), "path": None}

    table = {"id": [str(i) for i in range(count)], "image": [picture(colour + i) for i in range(count)]}
    table["answer"] = [text] * count
    return Dataset.from_dict(table, Features({"id": Value("string"), "image": Image(), "answer": Value("string")}))


def numbers(count=1000, **changed):
    answers = [changed.get(f"row{i}", str(i)) for i in range(count)]
    return Dataset.from_list([{"id": i, "answer": answer, "box": [i, 0.5]} for i, answer in enumerate(answers)])


def test_it_is_a_function_of_the_data():
    assert fingerprint(rows()) == fingerprint(rows())
    others = [rows(11), rows(colour=1), rows(text="b"), rows().rename_column("answer", "reply")]
    assert len({fingerprint(rows()), *map(fingerprint, others)}) == 5


def test_any_row_counts():
    """Those between the 64 whose pictures are looked at too."""
    prints = {fingerprint(numbers(**{f"row{i}": "another"})) for i in (1, 7, 500, 998, 999)}
    assert len(prints | {fingerprint(numbers())}) == 6


def test_how_the_rows_are_stored_does_not():
    table = numbers()
    turned = numbers(1001).select(range(1000)).select_columns(["box", "answer", "id"])
    assert fingerprint(table) == fingerprint(turned) == fingerprint(table.flatten_indices())


def test_pictures_alone_have_one_too():
    assert fingerprint(rows().select_columns(["image"])) != fingerprint(rows(colour=1).select_columns(["image"]))


def test_many_rows_take_seconds():
    start = time.monotonic()
    fingerprint(Dataset.from_dict({"prompt": ["how many?"] * 100_000, "box": [[1.5, 2, 3, 4]] * 100_000}))
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("changed", ["train", "test"])
def test_either_split_is_compared_on_resuming(tmp_path, changed):
    file, splits = tmp_path / "data.json", {"train": rows(), "test": rows(3)}
    check_data(file, splits, resuming=False, accept=False)
    check_data(file, splits, resuming=True, accept=False)
    others = splits | {changed: rows(4)}
    with pytest.raises(ConfigError, match=rf"the {changed} split has changed .* now 4 rows .*accept_changes=true"):
        check_data(file, others, resuming=True, accept=False)
    check_data(file, others, resuming=True, accept=True)
    assert json.loads(file.read_text())[changed] == {"rows": 4, "fingerprint": fingerprint(rows(4))}
    check_data(file, others, resuming=True, accept=False)


def test_what_an_earlier_version_kept_is_not_compared(tmp_path):
    file = tmp_path / "data.json"
    file.write_text(json.dumps({"train": "0123456789ab", "rows": 64}))
    check_data(file, {"train": rows()}, resuming=True, accept=False)
    assert json.loads(file.read_text())["train"]["rows"] == 10


def test_where_rows_come_from_is_recorded_and_told_but_not_compared(tmp_path):
    file, splits = tmp_path / "data.json", {"train": rows()}
    check_data(file, splits, resuming=False, accept=False, origins={"train": "owner/name@1234", "test": None})
    assert json.loads(file.read_text())["train"]["origin"] == "owner/name@1234"
    assert described(file).endswith("of owner/name@1234")
    check_data(file, splits, resuming=True, accept=False, origins={"train": "owner/name@5678"})  # the same rows
    with pytest.raises(ConfigError, match=r"of owner/name@5678, now 4 rows \w+ of owner/name@9abc"):
        check_data(file, {"train": rows(4)}, resuming=True, accept=False, origins={"train": "owner/name@9abc"})
