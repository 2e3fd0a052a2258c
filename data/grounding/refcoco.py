"""Referring expressions as the REFER release lays them out: RefCOCO, RefCOCO+ and RefCOCOg.

    <folder>/refs(unc).p         a pickled list, one entry per object, with its sentences and split
    <folder>/instances.json      COCO's annotations of the same pictures
    <images>/COCO_train2014_...  by default <folder>/../images/mscoco/images/train2014

Splits: `unc` has train, val, testA (people), testB (things); `google` has train and val for RefCOCOg and train, val,
test for the other two; `umd` has train, val, test. One row is one sentence.

The pickle is opened by an unpickler that can make lists, dicts, numbers and text only: an untrusted pickle can
otherwise run arbitrary code.
"""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from data.common import fields
from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors, short
from data.common.frames import Frames
from data.common.images import check_picture, picture_path, stored
from data.common.row_cache import Read, cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, optional_path, require_file
from data.grounding.coco import FETCH, Coco, Entry, declared_size, read_coco
from data.grounding.schema import FEATURES, BoxColumn

NEEDED = ("ref_id", "ann_id", "image_id", "split", "sentences")
# Sentences of (name of the release's folder, authors of the splits, official split), as the releases have them; of
# RefCOCO's other splits as FlagEval's page of the data set lists them.
PUBLISHED = {
    ("refcoco", "unc", "train"): 120_624,
    ("refcoco", "unc", "val"): 10_834,
    ("refcoco", "unc", "testA"): 5_657,
    ("refcoco", "unc", "testB"): 5_095,
    ("refcoco+", "unc", "train"): 120_191,
    ("refcocog", "umd", "train"): 80_512,
}
# Official splits by their authors; google's test split has never been published, should it be there.
SPLITS_BY = {
    "unc": {"train", "val", "testA", "testB"},
    "umd": {"train", "val", "test"},
    "google": {"train", "val", "test"},
}
# Expressions and pictures of a release, all splits together (Yu et al., 2016, arXiv 1608.00272).
EXPRESSIONS_AND_PICTURES = {"refcoco": (142_209, 19_994), "refcoco+": (141_564, 19_992)}
NO_TARGET = -1  # gRefCOCO's ann_id of an expression that means nothing in its picture


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, but lists of plain values need no class")


class RefCOCO(Source):
    """Source of RefCOCO, RefCOCO+ and RefCOCOg, from the REFER release.

    Args:
        folder: of the release.
        split_by: authors of the splits: unc, google or umd.
        images: the folder of pictures; null: <folder>/../images/mscoco/images/train2014.
        splits: split as asked for -> the release's own name, several joined by `+`. Other names are taken as they are.
        on_error: what to do with a broken row.
    """

    def __init__(
        self,
        folder: str,
        split_by: str = "unc",
        images: str | None = None,
        splits: dict[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.folder, self.split_by, self.images = Path(folder).expanduser(), split_by, optional_path(images)
        self.official, self.row_errors = splits or {}, RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        official = self.official.get(split, split)
        files = [refs_file(self.folder, self.split_by), self.folder / "instances.json"]
        options = {"pictures": str(pictures_of(self.folder, self.images))}
        return cached_rows(self, official, files, options, self.row_errors, partial(self._open, official))

    def _open(self, asked_for: str, row_errors: RowErrors) -> dict[str, Read]:
        release = read_release(self.folder, self.split_by, self.images, row_errors)
        splits = dict.fromkeys([asked_for, "train", *self.official.values(), *release.splits])
        return {split: partial(rows_of, release, split.split("+")) for split in splits}

    def expected_rows(self, split: str) -> int | None:
        names = self.official.get(split, split).split("+")
        counts = [PUBLISHED.get((self.folder.name, self.split_by, name)) for name in names]
        return None if None in counts else sum(filter(None, counts))

    def expected_rows_per_picture(self, split: str) -> float | None:
        """Of all splits together."""
        expressions, pictures = EXPRESSIONS_AND_PICTURES.get(self.folder.name, (0, 0))
        return expressions / pictures if pictures else None

    def check_split(self, split: str) -> None:
        """Refuse what a published release doesn't have; the names of others are known only when they are read."""
        splits = SPLITS_BY.get(self.split_by)
        if splits and not splits.issuperset(self.official.get(split, split).split("+")):
            raise InvalidOption(
                f"{self.folder}, by {self.split_by}, has no split {split!r}, only {', '.join(sorted(splits))}"
            )

    def check_files(self) -> None:
        for file in (refs_file(self.folder, self.split_by), self.folder / "instances.json"):
            require_file(file, "set task.source.folder to the REFER release")


def load(folder: Path, split_by: str, splits: list[str], images: Path | None, row_errors: RowErrors) -> Dataset:
    """The expressions of some official splits.

    Raises:
        InvalidData: a missing file, an unknown split, or (on_error=raise) a row that can't be used.
    """
    return rows_of(read_release(folder, split_by, images, row_errors), splits, row_errors)


class Release(NamedTuple):
    """A release's references, each with its place, and the annotations and pictures that they point into."""

    folder: Path
    file: Path
    refs: list[tuple[str, dict[str, Any]]]
    coco: Coco
    pictures: Path

    @property
    def splits(self) -> list[str]:
        """The release's own names."""
        return sorted({ref["split"] for _, ref in self.refs})


def read_release(folder: Path, split_by: str, images: Path | None, row_errors: RowErrors) -> Release:
    """The two files of a release, which all splits share.

    Raises:
        InvalidData: a missing or broken file, or (on_error=raise) an entry that can't be used.
    """
    file = refs_file(folder, split_by)
    refs = _refs(file, row_errors)
    coco = read_coco(folder / "instances.json", row_errors)
    return Release(folder, file, refs, coco, pictures_of(folder, images))


def rows_of(release: Release, splits: list[str], row_errors: RowErrors) -> Dataset:
    """The expressions of some of the release's splits.

    Raises:
        InvalidData: an unknown split, or (on_error=raise) a row that can't be used.
    """

    def read(policy: RowErrors) -> Dataset:
        for split in splits:
            if split not in release.splits:
                remedy = f"choose of {', '.join(release.splits)}"
                raise InvalidData(str(release.file), "split", f"there is no split {split!r}", remedy)
        where = f"{release.folder}, split {'+'.join(splits)}"
        writer = RowWriter(FEATURES, where, policy, "expression", ["box"])
        boxes, frames = BoxColumn("xywh"), Frames("stored")
        for split in splits:
            for entry, ref in release.refs:
                if ref["split"] == split:
                    _add_sentences(writer, ref, release, boxes, frames, entry)
        frames.note(where, policy)
        boxes.check(str(release.coco.path), "bbox", policy)
        return writer.dataset()

    return read_with_evidence(read, row_errors)


def pictures_of(folder: Path, images: Path | None) -> Path:
    """Folder of the pictures; by default the REFER release's."""
    return images or folder.parent / "images" / "mscoco" / "images" / "train2014"


def refs_file(folder: Path, split_by: str) -> Path:
    """Path of the release's references, <folder>/refs(<split_by>).p."""
    return folder / f"refs({split_by}).p"


def _refs(path: Path, row_errors: RowErrors) -> list[tuple[str, dict[str, Any]]]:
    """The references, each with its place."""
    if not path.is_file():
        others_there = sorted(p.name for p in path.parent.glob("refs(*).p"))
        remedy = (
            f"found {', '.join(others_there)}; set task.source.split_by"
            if others_there
            else "set task.source.folder to the REFER release"
        )
        raise InvalidData(str(path), None, "there is no such file", remedy)
    try:
        with path.open("rb") as file:
            # The release was written by Python 2, whose text is bytes.
            refs = _PlainUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a broken pickle raises nearly anything
        raise InvalidData(str(path), None, f"can't be unpickled safely ({error})", FETCH) from error
    listed = []
    for number, value in enumerate(fields.items(refs, str(path), None, FETCH)):
        where = f"{path}, entry {number}"
        with row_errors.row():
            ref = fields.record(value, where, None, FETCH)
            missing = [name for name in NEEDED if name not in ref]
            if missing:
                raise InvalidData(where, missing[0], "the field is missing", FETCH)
            ref = {**ref, "split": fields.text(ref["split"], where, "split", FETCH)}
            listed.append((where, ref))
    return listed


def _add_sentences(
    writer: RowWriter, ref: dict[str, Any], release: Release, boxes: BoxColumn, frames: Frames, where: str
) -> None:
    with writer.row_errors.row():
        image, annotation = _referred(ref, release.coco, where)
        path = picture_path(image.get("file_name"), release.pictures, where, "file_name")
        declared, remedy = declared_size(image, where), "use COCO's own pictures, not resized ones"
        source = f"of {path} instances.json"
        upright, size = frames.choose(stored(path), check_picture(path, where), declared, where, source, remedy)
        box = boxes.read(annotation.get("bbox"), size, where, "bbox")
        picture = {"image": upright, "width": size[0], "height": size[1], "box": box}
        sentences = fields.items(ref["sentences"], where, "sentences", FETCH)
        if not sentences:
            raise InvalidData(where, "sentences", "is an empty list", "drop the entry")
        for index, sentence in enumerate(sentences):
            with writer.row_errors.row():
                row = sentence_row(ref, sentence, index, where)
                writer.add(f"{where}, sentence {index}", {**row, **picture})


def _referred(ref: dict[str, Any], coco: Coco, where: str) -> tuple[Entry, Entry]:
    """The image and the annotation that a reference means.

    Raises:
        InvalidData: they aren't there, aren't one image's, or are several: gRefCOCO's expressions mean any number.
    """
    one = ref["ann_id"]
    listed = one if isinstance(one, list) else [one]
    if len(listed) != 1 or listed[0] == NO_TARGET:
        problem = f"{short(one)} is none or several objects, and an answer here is one box"
        raise InvalidData(where, "ann_id", problem, "leave out such expressions with task.source.on_error=skip")
    one = listed[0]
    key, image_key = fields.key(one, where, "ann_id", FETCH), fields.key(ref["image_id"], where, "image_id", FETCH)
    image, annotation = coco.images.get(image_key), coco.annotations.get(key)
    # Which annotation is meant is told by its id alone, so its image is looked at in the same way.
    if image is None or annotation is None or annotation not in [a.entry for a in coco.of_image[image_key]]:
        problem = f"instances.json has no annotation {key} of an image {image_key}"
        raise InvalidData(where, "ann_id", problem, "take both files from the same release")
    return image, annotation


def sentence_row(ref: dict[str, Any], sentence: Any, index: int, where: str) -> dict[str, Any]:
    """Id, expression, split and level of one sentence of a reference."""
    field = f"sentences[{index}]"
    if isinstance(sentence, str):
        sentence = {"sent": sentence}
    sentence = fields.record(sentence, where, field, "give a text, or an object with sent")
    text = fields.text(sentence.get("sent") or sentence.get("raw"), where, field, "drop the sentence")
    sentence_id = sentence.get("sent_id")
    sentence_id = fields.key(index if sentence_id is None else sentence_id, where, f"{field}.sent_id", FETCH)
    name = f"{fields.key(ref['ref_id'], where, 'ref_id', FETCH)}-{sentence_id}"
    return {"id": name, "expression": text, "split": ref["split"], "level": 0}
