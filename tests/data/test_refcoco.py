"""The REFER release: every official split, Python 2's pickles, and what is refused."""

import json
import os
import pickle
import pickletools

import pytest
from PIL import Image

from data.common.errors import InvalidData, InvalidOption, RowErrors
from data.grounding import refcoco
from tests.support.refer_release import BOXES, REFS, SIZE, python2_pickle, write_release


def read(folder, split_by, *splits, row_errors=None):
    return refcoco.load(folder, split_by, list(splits), None, row_errors or RowErrors())


@pytest.mark.parametrize("protocol", [0, 2])
def test_every_official_split_row_by_row(tmp_path, protocol):
    folder = write_release(tmp_path, protocol=protocol)
    for split_by, refs in REFS.items():
        for split in sorted({r["split"] for r in refs}):
            rows = read(folder, split_by, split)
            expected = [(r, s) for r in refs if r["split"] == split for s in r["sentences"]]
            assert len(rows) == len(expected)
            for row, (ref, sentence) in zip(rows, expected, strict=True):
                x, y, w, h = BOXES[ref["ann_id"]]
                assert row["box"] == [x, y, x + w, y + h]
                assert row["expression"] == sentence["sent"]
                assert row["id"] == f"{ref['ref_id']}-{sentence['sent_id']}"
                assert row["image"].size == (row["width"], row["height"]) == SIZE
                assert row["split"] == split
    both = read(folder, "unc", "testA", "testB")
    assert [r["split"] for r in both] == ["testA", "testA", "testB"]
    assert len(set(both["id"])) == len(both)


def test_a_split_that_its_authors_have_not_is_refused_before_anything_is_read():
    umd = refcoco.RefCOCO(folder="refcocog", split_by="umd", splits={"validation": "val"})
    for split in ("train", "validation", "test"):
        umd.check_split(split)
    with pytest.raises(InvalidOption, match=r"by umd, has no split 'testA', only test, train, val"):
        umd.check_split("testA")
    refcoco.RefCOCO(folder="refcoco", split_by="mine").check_split("testC")


def test_the_pickles_of_this_test_are_python_2s(tmp_path):
    names = {code.name for code, _, _ in pickletools.genops(python2_pickle(REFS["unc"]))}
    assert "SHORT_BINSTRING" in names
    assert not names & {"GLOBAL", "STACK_GLOBAL", "REDUCE", "BINUNICODE"}


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_a_pickle_that_runs_something_is_refused_and_runs_nothing(tmp_path, protocol):
    folder = write_release(tmp_path)
    mark = tmp_path / "ran"
    file = folder / "refs(unc).p"
    file.write_bytes(pickle.dumps([{**REFS["unc"][0], "extra": Evil(str(mark))}], protocol))
    with pytest.raises(InvalidData, match=r"refs\(unc\).p: can't be unpickled safely .*mkdir"):
        read(folder, "unc", "train")
    assert not mark.exists()
    pickle.loads(file.read_bytes())  # the same file does run it, opened the usual way
    assert mark.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"not a pickle", pickle.dumps({"a": 1}), pickle.dumps([1, 2])])
def test_broken_pickles_name_the_file(tmp_path, content):
    folder = write_release(tmp_path)
    (folder / "refs(unc).p").write_bytes(content)
    with pytest.raises(InvalidData, match=r"refs\(unc\)\.p"):
        read(folder, "unc", "train")


def test_missing_files_and_splits_say_what_there_is(tmp_path):
    folder = write_release(tmp_path)
    with pytest.raises(InvalidData, match=r"no split 'test'; choose of testA, testB, train, val"):
        read(folder, "unc", "test")
    (folder / "refs(google).p").unlink()
    with pytest.raises(InvalidData, match=r"found refs\(umd\)\.p, refs\(unc\)\.p; set task\.source\.split_by"):
        read(folder, "google", "train")
    (folder / "instances.json").write_text("{")
    with pytest.raises(InvalidData, match=r"instances\.json: not COCO's JSON"):
        read(folder, "unc", "train")
    with pytest.raises(InvalidData, match=r"set task\.source\.folder"):
        read(tmp_path / "nowhere", "unc", "train")


def change_box(folder, box):
    file = folder / "instances.json"
    instances = json.loads(file.read_text())
    next(a for a in instances["annotations"] if a["id"] == 11)["bbox"] = box
    file.write_text(json.dumps(instances))


@pytest.mark.parametrize(
    ("breaking", "message"),
    [
        (lambda folder, images: change_box(folder, [5, 4, 0, 30]), "entry 0, field bbox: .* has no area"),
        (lambda folder, images: change_box(folder, [50, 4, 20, 30]), "entry 0, field bbox: .* outside the 60 x 40"),
        (lambda folder, images: change_box(folder, [5, 4, 20]), r"entry 0, field bbox: .* is not \[x, y, w, h\]"),
        (lambda folder, images: change_box(folder, [5, 4, float("nan"), 3]), "entry 0, field bbox"),
        (lambda folder, images: (images / "COCO_train2014_000000000001.jpg").unlink(), "entry 0, field image.*exist"),
        (
            lambda folder, images: (images / "COCO_train2014_000000000001.jpg").write_bytes(b"no picture"),
            "entry 0, field image: .* is no picture",
        ),
        (
            lambda folder, images: Image.new("RGB", (30, 20)).save(images / "COCO_train2014_000000000001.jpg"),
            "instances.json says 60 x 40, the picture is 30 x 20",
        ),
    ],
)
def test_broken_rows_are_named_or_skipped_and_counted(tmp_path, breaking, message):
    folder = write_release(tmp_path)
    breaking(folder, tmp_path / "images/mscoco/images/train2014")
    with pytest.raises(InvalidData, match=message):
        read(folder, "unc", "train")
    skip = RowErrors("skip")
    with pytest.raises(InvalidData, match=r"the split is empty .1 row skipped"):
        read(folder, "unc", "train", row_errors=skip)
    # The other image's rows are all there.
    assert len(read(folder, "unc", "testA", "testB", row_errors=skip)) == 3
    assert len(skip.skipped) == 1


def test_a_truncated_picture_is_found(tmp_path):
    folder = write_release(tmp_path)
    file = tmp_path / "images/mscoco/images/train2014/COCO_train2014_000000000001.jpg"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InvalidData, match=r"entry 0, field image: .*truncated"):
        read(folder, "unc", "train")


def test_one_bad_sentence_costs_that_sentence_only(tmp_path):
    folder = write_release(tmp_path)
    refs = json.loads(json.dumps(REFS["unc"]))
    refs[0]["sentences"][0] = {"sent": " ", "raw": "", "sent_id": 0}
    refs[2]["sentences"][1]["sent_id"] = refs[2]["sentences"][0]["sent_id"]
    (folder / "refs(unc).p").write_bytes(python2_pickle(refs))
    skip = RowErrors("skip")
    assert read(folder, "unc", "train", row_errors=skip)["expression"] == ["the big one"]
    assert read(folder, "unc", "testA", row_errors=skip)["expression"] == ["man in caf\xe9"]
    assert "sentences[0]" in skip.skipped[0]
    assert "already used in" in skip.skipped[1]
    with pytest.raises(InvalidData, match="entry 2, sentence 1, field id: '2-20' was already used"):
        read(folder, "unc", "testA")


def test_an_annotation_of_another_image_is_refused(tmp_path):
    folder = write_release(tmp_path)
    refs = [dict(REFS["unc"][0], ann_id=22)]
    (folder / "refs(unc).p").write_bytes(python2_pickle(refs))
    with pytest.raises(InvalidData, match="no annotation 22 of an image 1"):
        read(folder, "unc", "train")
