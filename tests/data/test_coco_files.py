"""COCO files as they come: ids, references and types are checked before anything is made of them."""

import codecs
import json
import pickle

import pytest
from PIL import Image

from data.common.errors import InvalidData, RowErrors
from data.grounding import categories, refcoco
from data.grounding.categories import CategoryBoxes
from ntil.commands.data import check
from tasks.grounding import Grounding
from tests.support.refer_release import REFS, write_release

SIZE = (64, 48)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


def coco(folder, **changes):
    """Two pictures: a.png with two dogs and a cat, b.png with one dog; `changes` replace lists or add entries."""
    document = {
        "images": [{"id": i, "file_name": f"{n}.png", "width": 64, "height": 48} for i, n in ((1, "a"), (2, "b"))],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 10, 10]},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [30, 5, 30, 30]},
            {"id": 3, "image_id": 1, "category_id": 2, "bbox": [5, 30, 20, 12]},
            {"id": 4, "image_id": 2, "category_id": 1, "bbox": [5, 5, 20, 20]},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    }
    for place, value in changes.items():
        kind, _, rest = place.partition("__")
        number, _, field = rest.partition("__")
        if not rest:
            document[kind] = value
        elif value is ...:
            del document[kind][int(number)][field]
        elif field:
            document[kind][int(number)][field] = value
        else:
            document[kind].append(value)
    for name in "ab":
        Image.new("RGB", SIZE).save(folder / f"{name}.png")
    (folder / "coco.json").write_text(json.dumps(document))
    return folder / "coco.json"


def expressions(file, row_errors=None):
    rows = categories.load(file.parent, "test", file, row_errors or RowErrors())
    return {(row["id"].split("-")[1], row["expression"]): row["box"] for row in rows}


A = {"the largest dog", "the smallest dog", "the leftmost dog", "the rightmost dog", "the topmost dog"}
A |= {"the lowest dog", "the cat"}


def of_a(file, row_errors=None):
    return {text for picture, text in expressions(file, row_errors) if picture == "a"}


@pytest.mark.parametrize(
    ("changes", "message", "left"),
    [
        # F1: pycocotools gave b.png the objects of both
        ({"images__1__id": 1}, r"image 1, field id: 1 is the id of two entries, 'a.png' and 'b.png'", set()),
        ({"images__1__id": "1"}, r"image 1, field id: '?1'? is the id of two entries", set()),
        # F14: each entry had a dog, the picture has two
        (
            {"images__1__file_name": "./a.png"},
            r"image 1, field file_name: 'a.png' is the picture of image 2 too",
            set(),
        ),
        # F7
        ({"images__1__file_name": ...}, r"image 2, field file_name: None is neither a path", {"a"}),
        ({"annotations__3__category_id": 9}, r"annotation 4, field category_id: the file has no category 9", {"a"}),
        ({"categories": []}, r"field category_id: the file has no categories", set()),
        ({"categories__0__name": None}, r"category 1, field name: None is no text", set()),
        ({"annotations__3__bbox": ...}, r"annotation 4, field bbox: None is not \[x, y, w, h\]", {"a"}),
        ({"annotations__3__id": None}, r"annotation number 3, field id: None is no id", {"a"}),
        ({"annotations__3__iscrowd": "perhaps"}, r"annotation 4, field iscrowd: 'perhaps' is neither 0 nor 1", {"a"}),
        ({"images__1__width": "wide"}, r"image 2, field width: 'wide' is no whole number", {"a"}),
        ({"images__1__file_name": "b\0.png"}, r"image 2, field file_name: 'b\\x00.png' holds a NUL", {"a"}),
        ({"images__1__id": [2]}, r"image number 1, field id: \[2\] is no id", {"a"}),
        # Whose object it is can't be known: counted, since it may be a rival.
        ({"annotations__3__image_id": 7}, r"field image_id: 1 annotations are of no image .* annotation 4", {"a"}),
        ({"annotations__3__image_id": None}, r"field image_id: 1 annotations are of no image", {"a"}),
    ],
)
def test_entries_that_can_not_be_used_are_refused_or_cost_their_picture(tmp_path, changes, message, left):
    file = coco(tmp_path, **changes)
    with pytest.raises(InvalidData, match=message):
        expressions(file)
    skip = RowErrors("skip")
    if left:
        assert {picture for picture, _ in expressions(file, skip)} == left
    else:
        with pytest.raises(InvalidData, match="the split is empty"):
            expressions(file, skip)
    assert skip.skipped


@pytest.mark.parametrize(
    ("changes", "noted"),
    [
        ({"images__0__width": "64", "images__0__height": "48.0"}, []),  # F8
        ({"annotations__1__iscrowd": "0", "annotations__0__bbox": ["2", "2", "10", "10"]}, []),
        ({"images__0__id": 1.0, "annotations__2__category_id": "2"}, []),
        # F13: the second dog vanished, and "the dog" was the other one
        ({"annotations__1__image_id": "1"}, ["1 annotations and their images write the image's id differently"]),
        (
            {"annotations__new": {"id": 3, "image_id": 1, "category_id": 2, "bbox": [5, 30, 20, 12]}},
            ["repeated word by"],
        ),
        ({"annotations__1__id": 1}, ["1 ids are shared by several annotations"]),
    ],
)
def test_what_is_only_written_in_another_way_is_read_and_noted(tmp_path, changes, noted):
    row_errors = RowErrors()
    assert of_a(coco(tmp_path, **changes), row_errors) == A
    assert len(row_errors.notes) == len(noted)
    assert all(part in note for part, note in zip(noted, row_errors.notes, strict=True))


def test_ids_of_both_kinds_and_pictures_of_one_name(tmp_path):
    (tmp_path / "b").mkdir()
    file = coco(tmp_path, images__1__id="second", annotations__3__image_id="second", images__1__file_name="b\\a.png")
    Image.new("RGB", SIZE).save(tmp_path / "b/a.png")
    assert len(expressions(file)) == len(A) + 1


def test_a_byte_order_mark_and_what_is_no_coco_file(tmp_path):
    file = coco(tmp_path)
    file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
    assert of_a(file) == A
    file.write_text('{"images": [], "images": [], "annotations": []}')
    with pytest.raises(InvalidData, match=r"coco.json: not COCO's JSON \(the key 'images' is there twice\)"):
        expressions(file)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_boxes_by_corners_are_refused_whatever_on_error_says(tmp_path, on_error):
    """Of nine boxes five lie in the picture as [x, y, w, h], too: they were taught, twice as large."""
    boxes = [[2, 2, 20, 20], [10, 10, 50, 40], [40, 5, 60, 30], [35, 20, 60, 45], [5, 30, 30, 45]]
    file = coco(tmp_path)
    document = json.loads(file.read_text())
    entries = [{"id": i, "image_id": 1 + i % 2, "category_id": 1, "bbox": b} for i, b in enumerate(boxes)]
    file.write_text(json.dumps(document | {"annotations": entries}))
    with pytest.raises(
        InvalidData, match=r"field bbox: read as \[x, y, w, h\] in pixels, but . of its . values can't be"
    ):
        expressions(file, RowErrors(on_error))


def test_data_check_says_what_was_resolved(tmp_path):
    file = coco(tmp_path, annotations__1__image_id="1")
    (report,) = check(Grounding(CategoryBoxes(str(tmp_path), {"test": str(file)})), ["test"])
    assert report.good
    assert any(line.startswith("  note: ") and "write the image's id differently" in line for line in report.lines())


def refer(root, change_refs=None, change_instances=None):
    folder = write_release(root)
    refs = [dict(one, split="train") for one in json.loads(json.dumps(REFS["unc"]))]
    instances = json.loads((folder / "instances.json").read_text())
    for value, change in ((refs, change_refs), (instances, change_instances)):
        if change:
            change(value)
    (folder / "refs(unc).p").write_bytes(pickle.dumps(refs, 2))
    (folder / "instances.json").write_text(json.dumps(instances))
    return folder


def read(folder, row_errors=None):
    return refcoco.load(folder, "unc", ["train"], None, row_errors or RowErrors())["expression"]


ALL = ["left dog", "the big one", "right one", "man in caf\xe9", "man", "cup"]


@pytest.mark.parametrize(
    ("change", "message", "left"),
    [
        (lambda r: r[0].update(ann_id=[11, 12]), r"entry 0, field ann_id: \[11, 12\] is none or several", ALL[2:]),
        (lambda r: r[0].update(ann_id=[-1]), r"entry 0, field ann_id: \[-1\] is none or several objects", ALL[2:]),
        (lambda r: r[0].update(image_id=None), r"entry 0, field image_id: None is no id", ALL[2:]),
        (lambda r: r[0].update(sentences="left dog"), r"entry 0, field sentences: 'left dog' is no list", ALL[2:]),
        (lambda r: r[0]["sentences"].__setitem__(0, 5), r"entry 0, field sentences\[0\]: 5 is no object", ALL[1:]),
        (lambda r: r[0].update(split=None), r"entry 0, field split: None is no text", ALL[2:]),
        (lambda r: r.__setitem__(0, 5), r"entry 0: 5 is no object", ALL[2:]),
    ],
)
def test_references_that_can_not_be_used(tmp_path, change, message, left):
    folder = refer(tmp_path, change)
    with pytest.raises(InvalidData, match=message):
        read(folder)
    skip = RowErrors("skip")
    assert read(folder, skip) == left
    assert len(skip.skipped) == 1


def without_sizes(instances):
    for image in instances["images"]:
        del image["width"], image["height"]


def sizes_as_text(instances):
    for image in instances["images"]:
        image.update(width=str(image["width"]), height=str(image["height"]))


@pytest.mark.parametrize(
    ("change_refs", "change_instances"),
    [
        (None, without_sizes),
        (None, sizes_as_text),
        (lambda r: [one.update(sentences=[s["sent"] for s in one["sentences"]]) for one in r], None),
        (lambda r: [one.update(ann_id=[one["ann_id"]]) for one in r], None),
        (lambda r: [one.update(image_id=str(one["image_id"])) for one in r], None),
    ],
)
def test_other_notations_of_a_release_mean_the_same(tmp_path, change_refs, change_instances):
    assert read(refer(tmp_path, change_refs, change_instances)) == ALL


def test_two_annotations_with_one_id_are_told_apart_by_nobody(tmp_path):
    folder = refer(tmp_path, None, lambda i: i["annotations"].append({**i["annotations"][0], "bbox": [1, 1, 5, 5]}))
    with pytest.raises(InvalidData, match=r"annotation 11, field id: 11 is the id of two entries"):
        read(folder)
    assert read(folder, RowErrors("skip")) == ALL[2:]
