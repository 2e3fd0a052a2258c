"""Rows that are kept on disk are those of the files as they are now, whatever happened to files and cache."""

import json
import multiprocessing
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from data.common import row_cache
from data.common.errors import InvalidData
from data.common.rows import locations, undecoded
from data.grounding import refcoco
from data.grounding.refcoco import RefCOCO
from data.jsonl import Jsonl
from tests.support.refer_release import write_release

OFFICIAL = {"validation": "val", "test": "testA+testB"}
PICTURE = "images/mscoco/images/train2014/COCO_train2014_000000000001.jpg"


@pytest.fixture
def release(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    folder = write_release(tmp_path)
    settle(tmp_path)
    return folder


@pytest.fixture
def parsed(monkeypatch):
    """The files that were parsed, in turn."""
    files, original = [], refcoco.read_coco

    def read(path, row_errors):
        files.append(path)
        return original(path, row_errors)

    monkeypatch.setattr(refcoco, "read_coco", read)
    return files


def settle(folder):
    """Have all files be of an hour ago."""
    hour_ago = time.time() - 3600
    for path in folder.rglob("*"):
        if path.is_file() and "cache" not in path.parts:
            os.utime(path, (hour_ago, hour_ago))


def source(folder, **options):
    return RefCOCO(str(folder), splits=OFFICIAL, **options)


def content(rows):
    return undecoded(rows).to_list(), sorted((key, Path(where).name) for key, where in locations(rows).items())


def entries(tmp_path):
    return sorted((tmp_path / "cache/datasets").glob("refcoco-*"))


def test_one_parse_gives_all_splits_to_all_who_come(release, parsed):
    expected = {
        split: content(
            refcoco.load(release, "unc", OFFICIAL.get(split, split).split("+"), None, source(release).row_errors)
        )
        for split in ("train", "validation", "test")
    }
    parsed.clear()
    for split in ("validation", "train", "test", "test"):
        assert content(source(release).rows(split)) == expected[split]
    assert len(parsed) == 1
    assert len(source(release).rows("testB")) == 1
    assert len(parsed) == 1


def test_files_of_this_moment_are_not_kept(release, parsed):
    os.utime(release / "instances.json")
    source(release).rows("train")
    source(release).rows("train")
    assert len(parsed) == 2


def edit_annotations(release):
    file = release / "instances.json"
    text = file.read_text()
    file.write_text(text.replace("[5.0, 4.0, 20.0, 30.5]", "[6.0, 4.0, 20.0, 30.5]"))
    assert len(file.read_text()) == len(text)
    os.utime(file, (time.time() - 60,) * 2)


def other_picture(release):
    file = release.parent / PICTURE
    Image.new("RGB", (60, 40), "red").save(file)
    os.utime(file, (time.time() - 60,) * 2)


@pytest.mark.parametrize(
    "change", [edit_annotations, other_picture, lambda release: (release.parent / PICTURE).unlink()]
)
def test_a_change_of_any_file_is_seen(release, parsed, change):
    before = content(source(release).rows("train"))
    change(release)
    if (release.parent / PICTURE).exists():
        after = content(source(release).rows("train"))
        assert (after == before) == (change is other_picture)
    else:
        with pytest.raises(InvalidData, match="does not exist"):
            source(release).rows("train")
    assert len(parsed) == 2


def test_what_was_skipped_is_listed_again_and_read_once_it_can_be(release, parsed, tmp_path):
    content_of_picture = (tmp_path / PICTURE).read_bytes()
    (tmp_path / PICTURE).unlink()
    first, second = source(release, on_error="skip"), source(release, on_error="skip")
    with pytest.raises(InvalidData, match="the split is empty"):
        first.rows("train")  # nothing is kept of it
    assert content(first.rows("test")) == content(second.rows("test"))
    assert second.row_errors.skipped == [line for line in first.row_errors.skipped if "entry 0" not in line]
    (tmp_path / PICTURE).write_bytes(content_of_picture)
    settle(tmp_path)
    assert len(source(release, on_error="skip").rows("train")) == 2


def test_a_broken_row_of_one_split_is_no_matter_of_the_others(release):
    instances = json.loads((release / "instances.json").read_text())
    next(one for one in instances["annotations"] if one["id"] == 12)["bbox"] = [1, 2, 0, 0]
    (release / "instances.json").write_text(json.dumps(instances))
    settle(release)
    for _ in range(2):
        assert len(source(release).rows("train")) == 2
        with pytest.raises(InvalidData, match="has no area"):
            source(release).rows("validation")


def cut(entry):
    file = entry / "rows.arrow"
    file.write_bytes(file.read_bytes()[:-100])


def flip(entry):
    file = entry / "rows.arrow"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


DAMAGES = [
    cut,
    flip,
    lambda entry: (entry / "entry.json").write_text("{"),
    lambda entry: (entry / "entry.json").write_text("[]"),
    lambda entry: (entry / "entry.json").write_text('{"files": {}, "pictures": [], "skipped": 3}'),
    lambda entry: (entry / "entry.json").unlink(),
    lambda entry: (entry / "rows.arrow").unlink(),
    lambda entry: (entry / "locations.jsonl").write_text(""),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_made_anew(release, parsed, tmp_path, damage):
    before = content(source(release).rows("train"))
    for entry in entries(tmp_path):
        damage(entry)
    assert content(source(release).rows("train")) == before
    assert len(parsed) == 2
    assert content(source(release).rows("train")) == before
    assert len(parsed) == 2


def test_other_options_and_other_code_are_other_rows(release, parsed, monkeypatch):
    source(release).rows("train")
    source(release, on_error="skip").rows("train")
    source(release, images=str(release.parent / PICTURE.rpartition("/")[0])).rows("train")
    assert len(parsed) == 2  # the folder of pictures is the default one
    monkeypatch.setattr(row_cache, "_code", lambda: "edited")
    source(release).rows("train")
    assert len(parsed) == 3


def test_old_contents_do_not_pile_up(release, tmp_path):
    source(release).rows("train")
    before = entries(tmp_path)
    for entry in before:
        os.utime(entry / "entry.json", (0, 0))
    edit_annotations(release)
    source(release).rows("train")
    assert len(entries(tmp_path)) == len(before)
    assert not set(entries(tmp_path)) & set(before)


def read_and_count(release, marks, number):
    original = refcoco.read_coco

    def read(path, row_errors):
        (marks / f"{number}-{time.monotonic_ns()}").touch()
        time.sleep(0.3)  # long enough for the others to come
        return original(path, row_errors)

    refcoco.read_coco = read
    rows = [len(source(release).rows(split)) for split in ("train", "validation", "test")]
    (marks / f"done-{number}").write_text(json.dumps(rows))


def test_of_several_processes_one_reads(release, tmp_path):
    marks = tmp_path / "marks"
    marks.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=read_and_count, args=(release, marks, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [json.loads(file.read_text()) for file in marks.glob("done-*")] == [[2, 1, 3]] * 4
    assert len([file for file in marks.iterdir() if not file.name.startswith("done")]) == 1


def test_a_table_with_its_pictures_in_it(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "t.jsonl").write_text("".join(json.dumps({"prompt": f"{i}?", "answer": i}) + "\n" for i in range(5)))
    settle(tmp_path)
    first = Jsonl("numeric", train=str(tmp_path / "t.jsonl")).rows("train").to_list()
    monkeypatch.setattr("data.jsonl.load", lambda *_: pytest.fail("read again"))
    assert Jsonl("numeric", train=str(tmp_path / "t.jsonl")).rows("train").to_list() == first


def test_a_cache_that_cannot_be_written_is_no_error(release, monkeypatch, caplog):
    monkeypatch.setattr(row_cache, "_write_entry", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    assert len(source(release).rows("train")) == 2
    assert "can't be kept (disk full)" in caplog.text
