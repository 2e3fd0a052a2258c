"""Expressions that mean any number of objects, none among them: gRefCOCO (Liu et al., 2023).

The release lies as the REFER release does: <folder>/grefs(unc).json and <folder>/instances.json. `ann_id` is a
list, [-1] for an expression that means nothing in its picture. A release of one object an expression is read too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset

from data.common import fields
from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, RowErrors
from data.common.frames import Frames
from data.common.images import check_picture, picture_path, stored
from data.common.row_cache import Read, cached_rows
from data.common.rows import RowWriter
from data.common.source import require_file
from data.common.table_files import read_json
from data.grounding.coco import FETCH, Coco, declared_size, read_coco
from data.grounding.refcoco import NEEDED, NO_TARGET, RefCOCO, pictures_of, sentence_row
from data.grounding.schema import BoxColumn
from data.objects.schema import FEATURES, TRUTH, objects_row

Located = tuple[str, dict[str, Any]]  # a reference and its place


class GRefCOCO(RefCOCO):
    """Source of gRefCOCO; its options are those of `data.grounding.refcoco`."""

    @property
    def _file(self) -> Path:
        return self.folder / f"grefs({self.split_by}).json"

    def check_files(self) -> None:
        for file in (self._file, self.folder / "instances.json"):
            require_file(file, "set task.source.folder to the gRefCOCO release")

    def rows(self, split: str) -> Dataset:
        official = self.official.get(split, split)
        files = [self._file, self.folder / "instances.json"]
        options = {"pictures": str(pictures_of(self.folder, self.images))}
        return cached_rows(self, official, files, options, self.row_errors, partial(self._open, official))

    def _open(self, asked_for: str, row_errors: RowErrors) -> dict[str, Read]:
        refs = _refs(self._file, row_errors)
        coco = read_coco(self.folder / "instances.json", row_errors)
        names = sorted({ref["split"] for _, ref in refs})
        splits = dict.fromkeys([asked_for, "train", *self.official.values(), *names])
        read = partial(self._read, refs, coco, names)
        return {split: partial(read_with_evidence, partial(read, split.split("+"))) for split in splits}

    def _read(
        self, refs: list[Located], coco: Coco, names: list[str], splits: list[str], row_errors: RowErrors
    ) -> Dataset:
        for name in splits:
            if name not in names:
                problem = f"there is no split {name!r}"
                raise InvalidData(str(self._file), "split", problem, f"choose of {', '.join(names)}")
        pictures, boxes, frames = pictures_of(self.folder, self.images), BoxColumn("xywh"), Frames("stored")
        where = f"{self.folder}, split {'+'.join(splits)}"
        writer = RowWriter(FEATURES, where, row_errors, "question", TRUTH)
        for name in splits:
            for place, ref in refs:
                if ref["split"] == name:
                    _add(writer, ref, coco, pictures, (boxes, frames), place)
        frames.note(where, row_errors)
        boxes.check(str(coco.path), "bbox", row_errors)
        return writer.dataset()


def _refs(path: Path, row_errors: RowErrors) -> list[Located]:
    if not path.is_file():
        raise InvalidData(str(path), None, "there is no such file", "set task.source.folder to the gRefCOCO release")
    try:
        values = fields.items(read_json(path.read_text(encoding="utf-8-sig"), str(path)), str(path), None, FETCH)
    except UnicodeDecodeError as error:
        raise InvalidData(str(path), None, f"is no text ({error})", FETCH) from error
    refs = []
    for number, value in enumerate(values):
        where = f"{path}, entry {number}"
        with row_errors.row():
            ref = fields.record(value, where, None, FETCH)
            if missing := [name for name in NEEDED if name not in ref]:
                raise InvalidData(where, missing[0], "the field is missing", FETCH)
            refs.append((where, {**ref, "split": fields.text(ref["split"], where, "split", FETCH)}))
    return refs


def _add(
    writer: RowWriter,
    ref: dict[str, Any],
    coco: Coco,
    pictures: Path,
    columns: tuple[BoxColumn, Frames],
    where: str,
) -> None:
    boxes, frames = columns
    with writer.row_errors.row():
        image_key = fields.key(ref["image_id"], where, "image_id", FETCH)
        image = coco.images.get(image_key)
        if image is None:
            raise InvalidData(where, "image_id", f"instances.json has no image {image_key}", "take both files together")
        path = picture_path(image.get("file_name"), pictures, where, "file_name")
        declared, remedy = declared_size(image, where), "use COCO's own pictures"
        picture, size = frames.choose(stored(path), check_picture(path, where), declared, where, "the file", remedy)
        meant = [boxes.read(entry.get("bbox"), size, where, "bbox") for entry in _meant(ref, coco, image_key, where)]
        sentences = fields.items(ref["sentences"], where, "sentences", FETCH)
        if not sentences:
            raise InvalidData(where, "sentences", "is an empty list", "drop the entry")
        for index, sentence in enumerate(sentences):
            with writer.row_errors.row():
                row = sentence_row(ref, sentence, index, where)
                objects = objects_row(row["id"], (picture, size), row["expression"], meant, row["split"])
                writer.add(f"{where}, sentence {index}", objects)


def _meant(ref: dict[str, Any], coco: Coco, image_key: fields.Key, where: str) -> list[dict[str, Any]]:
    """Annotations of the objects meant; none for [-1].

    Raises:
        InvalidData: one isn't there, or is of another image.
    """
    listed = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    keys = [fields.key(one, where, "ann_id", FETCH) for one in listed]
    if keys == [NO_TARGET] or (not keys and ref.get("no_target")):
        return []
    if not keys or NO_TARGET in keys:
        problem = f"{keys} names objects and none" if keys else "is empty, and the entry doesn't say no_target"
        raise InvalidData(where, "ann_id", problem, "write [-1] for an expression that means nothing")
    there = [annotation.entry for annotation in coco.of_image[image_key]]
    entries = []
    for key in dict.fromkeys(keys):
        entry = coco.annotations.get(key)
        if entry is None or entry not in there:
            problem = f"instances.json has no annotation {key} of the image {image_key}"
            raise InvalidData(where, "ann_id", problem, "take both files from the same release")
        entries.append(entry)
    return entries
