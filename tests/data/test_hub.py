"""Data sets of the `datasets` library, from folders made here: no hub is asked."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import datasets
import pytest

from data.common import tar_files
from data.common.errors import InvalidData, InvalidOption
from data.common.rows import locations
from data.hub import HubDataset
from tests.support.hub_folders import box_rows, box_samples, png, write_parquet, write_picture_folder, write_tar
from tests.support.stand_in_hub import COMMIT, stand_in_hub

Names = dict[str, str | None]
BOXES: Names = {"prompt": "question", "answer": "bbox"}
TAR: Names = {"image": "jpg", "prompt": "json.prompt", "answer": "json.answer"}
TWICE: Names = {"train": "train", "validation": "train"}  # nothing is held out


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_a_folder_of_parquet_files(tmp_path):
    folder = write_parquet(tmp_path / "set", box_rows(41))
    write_parquet(folder, box_rows(3), "test")
    source = HubDataset(str(folder), "box", columns=BOXES)
    train, validation, test = (source.rows(split) for split in source.splits)
    assert (len(train), len(validation), len(test)) == (38, 3, 3)
    assert validation["prompt"] == ["Where is 0?", "Where is 20?", "Where is 40?"]
    assert train[0]["box"] == [1, 2, 11, 20.5]
    assert (train[0]["image"].size, train[0]["width"]) == ((40, 30), 40)
    assert locations(test)["test-2"] == f"{folder}, split test, row 2"
    assert source.origin("train") is None


def test_short_floats_are_taught_as_they_were_written(tmp_path):
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "set").mkdir()
    table = pyarrow.table({"prompt": ["a", "b"], "answer": pyarrow.array([0.1, 12.3], pyarrow.float32())})
    pyarrow.parquet.write_table(table, tmp_path / "set/train.parquet")
    source = HubDataset(str(tmp_path / "set"), "numeric", splits=TWICE)
    assert source.rows("train")["answer"] == ["0.1", "12.3"]


def test_tars_of_pictures_and_json(tmp_path):
    folder = write_tar(tmp_path / "set/train-000.tar", box_samples(4))
    write_tar(tmp_path / "set/train-001.tar", box_samples(3))
    files: Names = {"train": "train-*.tar", "validation": "train-001.tar", "test": None}
    source = HubDataset(str(folder), "box", builder="webdataset", files=files, columns=TAR)
    rows = source.rows("train")
    assert rows["box"] == [[1, 2, 30, 10 + i] for i in (0, 1, 2, 3, 0, 1, 2)]
    assert rows[0]["image"].size == (40, 30)
    assert source.splits == ("train", "validation")
    assert len(source.rows("validation")) == 3


NAMED: Names = {"train": "train", "validation": None, "test": "test"}  # as conf/task/hub.yaml names them


@pytest.mark.parametrize("splits", [NAMED, None, {**NAMED, "validation": "validation"}])
def test_files_named_for_a_split_are_its_rows(tmp_path, splits):
    (tmp_path / "set").mkdir()
    for split, count in (("train", 40), ("validation", 7), ("test", 5)):
        lines = [json.dumps({"prompt": f"{split} {i}", "answer": i}) + "\n" for i in range(count)]
        (tmp_path / f"set/{split}.jsonl").write_text("".join(lines))
    files: Names = {split: f"{split}.jsonl" for split in ("train", "validation", "test")}
    source = HubDataset(str(tmp_path / "set"), "numeric", splits=splits, files=files, builder="json")
    assert {split: len(source.rows(split)) for split in source.splits} == {"train": 40, "validation": 7, "test": 5}
    assert source.rows("validation")["prompt"][0] == "validation 0"


def test_files_that_no_split_reads_are_refused(tmp_path):
    folder = write_parquet(tmp_path / "set", box_rows(3))
    files: Names = {"train": "*.parquet", "validation": "other-*.parquet"}
    with pytest.raises(InvalidOption, match=r"task\.source\.files\.validation is read by no split: leave it out, or"):
        HubDataset(str(folder), "box", splits=TWICE, files=files, builder="parquet")


def test_pictures_in_folders_and_archives(tmp_path):
    folder = write_picture_folder(tmp_path / "set", 4)
    rows = HubDataset(str(folder), "numeric", splits=TWICE).rows("train")
    assert rows["answer"] == ["0", "1", "2", "3"]
    packed = tmp_path / "packed"
    packed.mkdir()
    with zipfile.ZipFile(packed / "train.zip", "w") as archive:
        for file in sorted((folder / "train").iterdir()):
            archive.write(file, file.name)
    again = HubDataset(str(packed), "numeric", splits=TWICE).rows("train")
    assert [row["image"].size for row in again] == [(40, 30)] * 4
    assert again["answer"] == rows["answer"]


def test_class_labels_are_their_names_and_a_question_may_be_that_of_all(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "set/train" / kind).mkdir(parents=True)
        (tmp_path / "set/train" / kind / "a.png").write_bytes(png())
    source = HubDataset(str(tmp_path / "set"), columns={"answer": "label"}, splits=TWICE, question="Which animal?")
    assert source.rows("train")["answer"] == ["cat", "dog"]
    assert set(source.rows("train")["prompt"]) == {"Which animal?"}


def test_what_save_to_disk_wrote(tmp_path):
    rows = datasets.Dataset.from_list([{"prompt": f"{i}?", "answer": i} for i in range(5)])
    rows.save_to_disk(tmp_path / "set")
    assert HubDataset(str(tmp_path / "set"), "numeric", splits=TWICE).rows("train")["answer"] == list("01234")


def test_a_limit_takes_the_first_rows_and_streaming_needs_one(tmp_path):
    folder = write_parquet(tmp_path / "set", box_rows(9))
    source = HubDataset(str(folder), "box", columns=BOXES, splits=TWICE, limit=4, streaming=True)
    assert source.rows("train")["prompt"] == [f"Where is {i}?" for i in range(4)]
    with pytest.raises(InvalidOption, match=r"task\.source\.limit"):
        HubDataset(str(folder), "box", columns=BOXES, streaming=True)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_script_is_refused_and_never_run(tmp_path, split):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "set/train.jsonl").write_text('{"prompt": "a", "answer": 1}\n')
    with pytest.raises(InvalidData, match="script"):
        HubDataset(str(tmp_path / "set")).rows(split)
    assert not (tmp_path / "ran").exists()


def test_builders_beside_the_listed_ones_are_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.h5").write_bytes(b"\x89HDF\r\n")
    with pytest.raises(InvalidData, match="'hdf5', and only parquet"):
        HubDataset(str(tmp_path / "set")).rows("train")


def test_what_cannot_be_read_is_one_sentence(tmp_path):
    folder = write_parquet(tmp_path / "set", box_rows(2))
    with pytest.raises(InvalidData, match=r"has no split .test., only train; set task\.source\.splits"):
        HubDataset(str(folder), "box", columns=BOXES).rows("test")
    with pytest.raises(InvalidData, match=r"field bbox2: no such column; found question, bbox, image; set"):
        HubDataset(str(folder), "box", columns={**BOXES, "answer": "bbox2"}).rows("train")
    with pytest.raises(InvalidData, match="nobody/nothing: `datasets` can't read it"):
        HubDataset("nobody/nothing").rows("train")
    (tmp_path / "set/train-00000-of-00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InvalidData, match="`datasets` can't read it"):
        HubDataset(str(folder), "box", columns=BOXES).rows("train")
    for options, problem in (
        ({"path": None}, "give a data set"),
        ({"path": "no/such/folder"}, "neither a folder here"),
        ({"path": str(folder), "revision": "main"}, "is of the hub"),
        ({"path": "a/b", "builder": "json"}, "are for folders here"),
        ({"path": str(folder), "files": {"train": "*.parquet"}}, r"task\.source\.builder"),
        ({"path": str(folder), "limit": 0}, "at least 1"),
        ({"path": str(folder), "columns": {"reply": "x"}}, "no such role"),
    ):
        with pytest.raises(InvalidOption, match=problem):
            HubDataset(**options)


def test_broken_rows_are_named_and_skipped(tmp_path):
    rows = box_rows(4)
    rows[2]["bbox"] = [5.0, 5.0, 5.0, 9.0]
    folder = write_parquet(tmp_path / "set", rows)
    with pytest.raises(InvalidData, match=r"set, split train, row 2, field bbox: .* has no area"):
        HubDataset(str(folder), "box", columns=BOXES).rows("train")
    source = HubDataset(str(folder), "box", columns=BOXES, on_error="skip")
    assert len(source.rows("train")) == 2
    assert len(source.row_errors.skipped) == 1


@pytest.mark.parametrize("builder", ["csv", None])
@pytest.mark.parametrize("streaming", [False, True])
def test_cells_of_csv_files_are_taught_as_they_are_written(tmp_path, builder, streaming):
    answers = ["12.50", "007", "3", "NA", "12345678901234567890.25", "1e3"]
    (tmp_path / "set").mkdir()
    lines = "".join(f"{i}?,{answer}\n" for i, answer in enumerate(answers))
    (tmp_path / "set/train.csv").write_text("prompt,answer\n" + lines)
    options = {"builder": builder, "splits": TWICE, "streaming": streaming, "limit": 6 if streaming else None}
    source = HubDataset(str(tmp_path / "set"), **options)
    assert source.rows("train")["answer"] == answers
    assert HubDataset(str(tmp_path / "set"), "numeric", on_error="skip", **options).rows("train")["answer"] == [
        "12.50",
        "7",
        "3",
        "12345678901234567890.25",
        "1000",
    ]


@pytest.mark.parametrize("builder", ["csv", None])
def test_csv_files_of_splits_may_have_other_columns(tmp_path, builder):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.csv").write_text("prompt,answer,source\na,01,web\nb,,web\nc,3,web\n")
    (folder / "test.csv").write_text("answer,note,prompt\n2.0,x,d\n")
    source = HubDataset(str(folder), builder=builder, on_error="skip")
    assert source.rows("test").select_columns(["prompt", "answer"])[:] == {"prompt": ["d"], "answer": ["2.0"]}
    assert sorted([*source.rows("train")["answer"], *source.rows("validation")["answer"]]) == ["01", "3"]
    assert "field answer: is missing or empty" in source.row_errors.skipped[0]


def test_most_rows_tell_whether_there_are_pictures(tmp_path):
    rows = box_rows(30)
    rows[0]["image"] = None
    folder = write_parquet(tmp_path / "set", rows)
    source = HubDataset(str(folder), "box", columns=BOXES, splits=TWICE, on_error="skip")
    assert len(source.rows("train")) == 29
    assert "row 0" in str(source.row_errors.skipped[0])


@pytest.mark.parametrize(
    "path", ["ftp://127.0.0.1:9/x", "zip://a.png::http://127.0.0.1:9/x", "zip://a.png::/etc/hostname", "memory://x"]
)
def test_no_picture_is_fetched_from_elsewhere(tmp_path, monkeypatch, path):
    monkeypatch.setattr("datasets.utils.file_utils.xopen", lambda *_: pytest.fail("opened"))
    rows = box_rows(3)
    rows[1]["image"] = {"bytes": None, "path": path}
    folder = write_parquet(tmp_path / "set", rows)
    with pytest.raises(
        InvalidData, match=r"split train, row 1, field image: the picture .* is no part of the data set"
    ):
        HubDataset(str(folder), "box", columns=BOXES).rows("train")
    assert len(HubDataset(str(folder), "box", columns=BOXES, splits=TWICE, on_error="skip").rows("train")) == 2


def test_rows_without_a_label_or_a_file_are_named_and_skipped(tmp_path):
    features = datasets.Features(
        {"prompt": datasets.Value("string"), "kind": datasets.ClassLabel(names=["cat", "dog"])}
    )
    rows = datasets.Dataset.from_dict({"prompt": ["a", "b", "c"], "kind": [0, -1, 1]}, features=features)
    rows.save_to_disk(tmp_path / "set")
    place, kinds = str(tmp_path / "set"), dict[str, str | None](answer="kind")
    with pytest.raises(InvalidData, match=r"split train, row 1, field kind: is missing or empty"):
        HubDataset(place, columns=kinds, splits=TWICE).rows("train")
    skipping = HubDataset(place, columns=kinds, splits=TWICE, on_error="skip")
    assert skipping.rows("train")["answer"] == ["cat", "dog"]
    rows = box_rows(3)
    rows[2]["image"] = {"bytes": None, "path": f"zip://a.png::{tmp_path / 'boxes/none.zip'}"}
    folder = write_parquet(tmp_path / "boxes", rows)
    with pytest.raises(InvalidData, match=r"split train, row 2, field image: .*none\.zip.* can't be read"):
        HubDataset(str(folder), "box", columns=BOXES).rows("train")
    assert len(HubDataset(str(folder), "box", columns=BOXES, splits=TWICE, on_error="skip").rows("train")) == 2


def test_the_commit_of_a_hub_data_set_is_its_origin(tmp_path, monkeypatch):
    """The library's reader of a folder stands for one of the hub, whose hash is the commit."""
    folder = write_parquet(tmp_path / "set", box_rows(3))
    built = datasets.load_dataset_builder("parquet", data_dir=str(folder))
    built.hash = "0123456789abcdef0123456789abcdef01234567"
    asked = []

    def load(*words, **options):
        asked.append((words, options))
        return built

    monkeypatch.setattr(datasets, "load_dataset_builder", load)
    source = HubDataset("owner/name", "box", "default", TWICE, "v1", BOXES)
    assert source.origin("train") == f"owner/name@{built.hash}"
    assert len(source.rows("train")) == 3
    assert asked == [(("owner/name", "default"), {"revision": "v1"})]
    kept = [json.loads(file.read_text()) for file in Path(tmp_path / "cache").rglob("entry.json")]
    assert len(kept) == 1  # under the commit, so that no later run asks for the files again


ASKING = """
import datasets
from data.hub import HubDataset
datasets.disable_progress_bars()
columns = {"prompt": "question", "answer": "bbox"}
for options in ({"streaming": True, "limit": 7}, {"limit": 9}, {"revision": "v1", "limit": 7}):
    source = HubDataset("owner/name", "box", columns=columns, **options)
    print(source.origin("test"), len(source.rows("train")), len(source.rows("test")), source.rows("test")["box"][-1])
try:
    HubDataset("owner/other").rows("train")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_hub_on_the_loopback(tmp_path):
    """The library's real questions to a hub, answered by a server here; not the real one."""
    write_parquet(tmp_path / "files", box_rows(30))
    write_parquet(tmp_path / "files", box_rows(4), "test")
    asked: list[str] = []
    with stand_in_hub(tmp_path / "files", asked) as address:
        places = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "NTIL_CACHE": str(tmp_path / "cache")}
        environment = {**os.environ, **places, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run([sys.executable, "-c", ASKING], env=environment, capture_output=True, text=True)
    *lines, refused = done.stdout.splitlines()
    origin = f"owner/name@{COMMIT}"
    assert lines == [f"{origin} {rows} 4 [1.0, 2.0, 13.0, 20.5]" for rows in (6, 8, 6)], done.stderr
    assert refused.startswith("InvalidData owner/other: `datasets` can't read it (Dataset 'owner/other' doesn't exist")
    # The first and third are of one commit: the rows of the first serve both.
    first_of_third = next(number for number, line in enumerate(asked) if "/v1" in line)
    assert any(".parquet" in line for line in asked[:first_of_third])
    assert not any(".parquet" in line for line in asked[first_of_third:])


TABLES = """
import datasets
from data.hub import HubDataset
datasets.disable_progress_bars()
for options in ({}, {"streaming": True, "limit": 9}):
    source = HubDataset("owner/name", splits={"train": "train", "validation": "train"}, **options)
    print(*source.rows("train")["answer"])
"""


@pytest.mark.parametrize(
    ("name", "content", "answers"),
    [
        ("train.csv", "prompt,answer\na,007\nb,2.50\n", ["007 2.50", "007 2.50"]),
        # A stream of JSON is the library's, which has one type for a column.
        ("train.jsonl", '{"prompt": "a", "answer": 3}\n{"prompt": "b", "answer": 2.5}\n', ["3 2.5", "3.0 2.5"]),
    ],
)
def test_tables_of_a_hub_are_fetched_and_taught_as_they_are_written(tmp_path, name, content, answers):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / name).write_text(content)
    with stand_in_hub(tmp_path / "files", []) as address:
        places = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hf"), "NTIL_CACHE": str(tmp_path / "cache")}
        environment = {**os.environ, **places, "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        environment.pop("HF_HUB_OFFLINE", None)
        done = subprocess.run([sys.executable, "-c", TABLES], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == answers, done.stderr


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("prompt,answer,year\nHow many cats?,5,2019,\n", r"train\.csv, line 2: has not the 3 fields of the header"),
        ("prompt,answer\nHow many cats, all told?,5\nb,7\n", "line 2: has not the 2 fields"),
        ("prompt,answer,answer\na,1,2\n", "line 1, field answer: there are several columns of this name"),
    ],
)
def test_lines_of_csv_files_that_do_not_fit_the_header_are_refused(tmp_path, lines, problem):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.csv").write_text(lines)
    with pytest.raises(InvalidData, match=problem):
        HubDataset(str(tmp_path / "set"), splits=TWICE).rows("train")


def test_one_bad_line_of_a_csv_file_costs_that_line(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/train.csv").write_text("prompt;answer\na;1\nb;2;3\nc;4,5\n")
    (tmp_path / "set/README.md").write_text("---\nconfigs:\n- config_name: default\n  sep: ';'\n---\n")
    source = HubDataset(str(tmp_path / "set"), splits=TWICE, on_error="skip")
    assert source.rows("train")["answer"] == ["1", "4,5"]
    (skipped,) = source.row_errors.skipped
    assert skipped.startswith(f"{tmp_path}/set/train.csv, line 3: has not the 2 fields of the header")


def test_json_values_are_taught_as_they_are_written(tmp_path):
    answers = [3, 2.5, "12.50", "2021-05-03", 12345678901234567890123]
    (tmp_path / "set").mkdir()
    lines = [json.dumps({"prompt": f"{i}?", "answer": answer}) + "\n" for i, answer in enumerate(answers)]
    (tmp_path / "set/train.jsonl").write_text("".join(lines))
    rows = HubDataset(str(tmp_path / "set"), splits=TWICE).rows("train")
    assert rows["answer"] == ["3", "2.5", "12.50", "2021-05-03", "12345678901234567890123"]


def test_a_saved_data_set_of_one_split_is_not_its_test_split(tmp_path):
    datasets.Dataset.from_list([{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]).save_to_disk(
        tmp_path / "s"
    )
    source = HubDataset(str(tmp_path / "s"))
    assert len(source.rows("train")) == 1
    with pytest.raises(InvalidData, match=r"has no split 'test', only train; set task\.source\.splits"):
        source.rows("test")


def test_pictures_in_lists_are_read(tmp_path):
    features = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "answer": datasets.Value("string"),
            "images": datasets.List(datasets.Image()),
        }
    )
    rows = [{"prompt": f"{i}?", "answer": "1", "images": [{"bytes": png(), "path": None}]} for i in range(3)]
    (tmp_path / "set").mkdir()
    datasets.Dataset.from_list(rows, features=features).to_parquet(tmp_path / "set/train.parquet")
    source = HubDataset(str(tmp_path / "set"), columns={"image": "images"}, splits=TWICE)
    assert [row["image"].size for row in source.rows("train")] == [(40, 30)] * 3


def tar_of(folder, documents, **files):
    """A folder with a tar of pictures and JSON; `files`: more files of each sample, by suffix."""
    samples = []
    for number, document in enumerate(documents):
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        samples.append({"jpg": png(), "json": content} | {name: values[number] for name, values in files.items()})
    write_tar(folder / "test.tar", samples)
    return folder


def tar_source(folder, metric="exact", on_error="raise", **columns):
    options = {"builder": "webdataset", "files": {"test": "test.tar*"}, "on_error": on_error}
    return HubDataset(str(folder), metric, columns={**TAR, **columns}, **options)


def asked(*answers):
    return [{"prompt": f"{i}?", "answer": answer} for i, answer in enumerate(answers)]


def test_values_of_tars_are_taught_as_they_are_written(tmp_path):
    """The library takes the types of the first five rows for those of all."""
    answers = [1, 2, 3, 4, 5, 2.5, "007", 12345678901234567890.5, "x"]
    documents = [json.dumps(one).encode() for one in asked(*answers)]
    documents[7] = b'{"prompt": "7?", "answer": 12345678901234567890.5}'
    rows = tar_source(tar_of(tmp_path / "set", documents)).rows("test")
    assert rows["answer"] == ["1", "2", "3", "4", "5", "2.5", "007", "12345678901234567890.5", "x"]
    boxes = [[1, 1, 20, 20]] * 5 + [[1.9, 1.9, 20.9, 20.9]]
    rows = tar_source(tar_of(tmp_path / "boxes", asked(*boxes)), "box").rows("test")
    assert rows["box"][5] == [1.9, 1.9, 20.9, 20.9]
    lists = [[{"box": [1, 1, 20, 20]}]] * 5 + [[{"box": [1, 1, 20, 20], "label": "dog"}], []]
    rows = tar_source(tar_of(tmp_path / "lists", asked(*lists)), "boxes").rows("test")
    assert rows["labels"][5:] == [["dog"], []]
    grouped = [*asked(*[1] * 5), {"prompt": "a", "answer": 1, "group": "hard"}]
    rows = tar_source(tar_of(tmp_path / "groups", grouped), group="json.group").rows("test")
    assert rows["group"] == [None] * 5 + ["hard"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b'{"prompt": "a", "answer": 1, "answer": 2}', r"0001\.json: not JSON \(the key 'answer' is there twice\)"),
        (b"{", r"0001\.json: not JSON"),
        (b'{"prompt": "\xff"}', r"0001\.json: is not UTF-8"),
        (b'{"prompt": "a"}', r"0001, field json\.answer: is missing or empty"),
    ],
)
def test_a_broken_member_of_a_tar_costs_its_row(tmp_path, document, message):
    folder = tar_of(tmp_path / "set", [asked(1)[0], document, asked(3)[0]])
    with pytest.raises(InvalidData, match=r"set/test\.tar, " + message):
        tar_source(folder).rows("test")
    source = tar_source(folder, on_error="skip")
    assert source.rows("test")["answer"] == ["1", "3"]
    assert len(source.row_errors.skipped) == 1


def test_columns_of_tars_by_their_suffixes(tmp_path):
    import numpy as np

    array = io.BytesIO()
    np.save(array, np.array([[1, 2, 20, 21]]))
    files = {"cls": [b"3\n", b"x"], "txt": [b"seven", b"eight"], "pth": [b"\x80"] * 2, "npy": [array.getvalue()] * 2}
    folder = tar_of(tmp_path / "set", asked(1, 2), **files)
    assert tar_source(folder, answer="txt", on_error="skip").rows("test")["answer"] == ["seven"]
    source = tar_source(folder, answer="cls", id="__key__", on_error="skip")
    assert (source.rows("test")["answer"], source.rows("test")["id"]) == (["3"], ["0000"])
    assert r"0001.cls: b'x' is no whole number" in source.row_errors.skipped[0]
    assert tar_source(folder, "boxes", answer="npy", on_error="skip").rows("test")["boxes"] == [[[1, 2, 20, 21]]]
    with pytest.raises(InvalidData, match=r"field pth: no such column; found jpg, json, cls, txt, npy, __key__"):
        tar_source(folder, answer="pth").rows("test")


def test_compressed_members_and_tars_are_read_up_to_a_limit(tmp_path, monkeypatch):
    samples = [{"jpg": png(), "json.gz": gzip.compress(json.dumps(one).encode())} for one in asked(1, 2)]
    write_tar(tmp_path / "set/test.tar", samples)
    packed = gzip.compress((tmp_path / "set/test.tar").read_bytes())
    (tmp_path / "set/test.tar").unlink()
    (tmp_path / "set/test.tar.gz").write_bytes(packed)
    assert tar_source(tmp_path / "set").rows("test")["answer"] == ["1", "2"]
    monkeypatch.setattr(tar_files, "LARGEST_FILE", 1 << 16)
    bomb = gzip.compress(b" " * (1 << 20))
    write_tar(tmp_path / "bomb/test.tar", [{"jpg": png(), "json.gz": bomb}, {"jpg": bytes(1 << 17), "json": b"{}"}])
    source = tar_source(tmp_path / "bomb", on_error="skip")
    with pytest.raises(InvalidData):
        source.rows("test")
    for name, line in zip(("0000.json.gz", "0001.jpg"), source.row_errors.skipped[:2], strict=True):
        assert f"bomb/test.tar, {name}: has more than 0 MB; drop the row" in line
    (tmp_path / "set/test.tar.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InvalidData, match=r"test\.tar\.gz: can't be read as a tar"):
        tar_source(tmp_path / "set", on_error="skip").rows("test")


def test_hidden_files_links_and_names_of_a_tar(tmp_path):
    import tarfile

    folder = tar_of(tmp_path / "set", asked(1))
    with tarfile.open(folder / "test.tar", "a") as archive:
        link = tarfile.TarInfo("0005.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/hostname"
        archive.addfile(link)
        for name in ("._0000.jpg", "noext", "__meta__/x.json", "sub/v1.0/7.jpg", "sub/v1.0/7.json", "README.md"):
            entry = tarfile.TarInfo(name)
            content = png() if name.endswith("7.jpg") else json.dumps(asked(7)[0]).encode()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    source = tar_source(folder, id="__key__", on_error="skip")
    assert source.rows("test")["id"] == ["0000", "sub/v1.0/7"]
    (skipped,) = source.row_errors.skipped
    assert "test.tar, README, field json.prompt" in skipped


def test_a_column_twice_in_a_sample_is_refused(tmp_path):
    import tarfile

    folder = tar_of(tmp_path / "set", asked(1))
    with tarfile.open(folder / "test.tar", "a") as archive:
        entry = tarfile.TarInfo("0000.json")
        archive.addfile(entry, io.BytesIO())
    with pytest.raises(InvalidData, match=r"test\.tar, 0000, field json: is there twice"):
        tar_source(folder).rows("test")


@pytest.mark.parametrize("builder", ["imagefolder", None])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_of_pictures_is_taught_as_it_is_written(tmp_path, builder, kind):
    answers: list[object] = ["007", "NA", "1.50", "3", "10:30", "2021-05-03"]
    write_picture_folder(tmp_path / "set", len(answers), "test")
    pictures = tmp_path / "set/test"
    (pictures / "metadata.jsonl").unlink()
    if kind == "csv":
        lines = ["file_name,prompt,answer", *(f"{i}.png,{i}?,{answer}" for i, answer in enumerate(answers))]
    else:
        answers = [3, 2.5, "007", 12345678901234567890123, "10:30", "2021-05-03"]
        lines = [
            json.dumps({"file_name": f"./{i}.png", "prompt": f"{i}?", "answer": answer})
            for i, answer in enumerate(answers)
        ]
    (pictures / f"metadata.{kind}").write_text("\n".join(lines) + "\n")
    rows = HubDataset(str(tmp_path / "set"), splits={"test": "test"}, builder=builder).rows("test")
    assert rows["answer"] == [str(answer) for answer in answers]
    assert [row["image"].size for row in rows] == [(40, 30)] * len(answers)


@pytest.mark.parametrize("name", ["9.png", "../../a.png", "/etc/hostname", "file:///etc/hostname", "metadata.png"])
def test_metadata_names_pictures_of_the_data_set_alone(tmp_path, name):
    write_picture_folder(tmp_path / "set", 2, "test")
    (tmp_path / "a.png").write_bytes(png())
    with (tmp_path / "set/test/metadata.jsonl").open("a") as file:
        file.write(json.dumps({"file_name": name, "prompt": "How many?", "answer": 1}) + "\n")
    with pytest.raises(
        InvalidData, match=r"metadata\.jsonl, line 3, field file_name: .* is no picture of the data set"
    ):
        HubDataset(str(tmp_path / "set"), splits={"test": "test"}).rows("test")
    source = HubDataset(str(tmp_path / "set"), splits={"test": "test"}, on_error="skip")
    assert source.rows("test")["answer"] == ["0", "1"]


def test_metadata_of_several_pictures_and_of_several_splits(tmp_path):
    for split in ("train", "test"):
        write_picture_folder(tmp_path / "set", 2, split)
        (tmp_path / f"set/{split}/metadata.jsonl").unlink()
    rows = [
        {"file_names": [f"{split}/{i}.png"], "prompt": f"{split} {i}?", "answer": i}
        for split in ("train", "test")
        for i in range(2)
    ]
    (tmp_path / "set/metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files: Names = {split: f"**/*{split}*/*.png" for split in ("train", "test")}
    source = HubDataset(str(tmp_path / "set"), builder="imagefolder", files=files, columns={"image": "images"})
    source._built.config.data_files["test"].append(str(tmp_path / "set/metadata.jsonl"))
    assert source.rows("test")["prompt"] == ["test 0?", "test 1?"]
