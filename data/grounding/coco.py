"""COCO's annotation files: images, annotations and categories by their ids, each checked before it is indexed.

pycocotools' own index keeps the later of two images with one id and gives its picture the objects of both, and an
annotation of an image that isn't there vanishes. Here what can't be told apart or belongs to nothing is kept as the
`InvalidData` that its use raises: of two images with one id neither can be used, as it is unknown whose the objects
are. 7, 7.0 and "7" are one id.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from data.common import fields
from data.common.errors import InvalidData, RowErrors, short
from data.common.fields import Key
from data.common.frames import Sides
from data.common.table_files import read_json

Entry = dict[str, Any]
FETCH = "fetch the file again"
CORRECT = "correct the file"


class Annotation(NamedTuple):
    """An annotation and where it stands."""

    where: str
    entry: Entry


class Index(NamedTuple):
    """Entries of one kind by id, and why those can't be used that can't."""

    entries: dict[Key, Entry]
    broken: dict[Key, InvalidData]

    def get(self, key: Key) -> Entry | None:
        """The entry; None where there is none.

        Raises:
            InvalidData: it can't be used.
        """
        if key in self.broken:
            raise self.broken[key]
        return self.entries.get(key)


class Coco(NamedTuple):
    """A file's images, annotations and categories."""

    path: Path
    images: Index
    annotations: Index
    categories: Index
    of_image: dict[Key, list[Annotation]]
    homeless: list[Annotation]  # those of no image of the file


def read_coco(path: Path, row_errors: RowErrors) -> Coco:
    """Entries of a file.

    Raises:
        InvalidData: missing, not COCO's JSON, or (on_error=raise) an entry without an id.
    """
    document = _document(path)
    images = _index(_records(_list(document, "images", path), path, "image", row_errors), path, "image", row_errors)
    listed = _list(document, "categories", path) if "categories" in document else []
    categories = _index(_records(listed, path, "category", row_errors), path, "category", row_errors)
    coco = Coco(path, images, Index({}, {}), categories, {key: [] for key in images.entries}, [])
    _add_annotations(coco, _list(document, "annotations", path), row_errors)
    return coco


def refuse_repeated_pictures(coco: Coco) -> None:
    """Mark images that are one picture under two ids as broken: which objects compete in it is unknown."""
    names: dict[str, list[Key]] = {}
    for key, image in coco.images.entries.items():
        if isinstance(name := image.get("file_name"), str):
            names.setdefault(posixpath.normpath(name.replace("\\", "/")), []).append(key)
    for keys in (keys for keys in names.values() if len(keys) > 1):
        for key in keys:
            others = ", ".join(short(other) for other in keys if other != key)
            problem = f"{short(coco.images.entries[key]['file_name'])} is the picture of image {others} too"
            remedy = "give a picture one id, and all its annotations that id"
            coco.images.broken.setdefault(key, InvalidData(_at(coco.path, "image", key), "file_name", problem, remedy))


def declared_size(image: Entry, where: str) -> Sides:
    """Width and height that the file gives an image, None where it has none.

    Raises:
        InvalidData: they are no numbers.
    """
    width, height = (fields.filled(image.get(name)) or None for name in ("width", "height"))
    return (
        None if width is None else fields.whole(width, where, "width"),
        None if height is None else fields.whole(height, where, "height"),
    )


def _document(path: Path) -> Entry:
    if not path.is_file():
        raise InvalidData(str(path), None, "there is no such file", "put COCO's annotation file there")
    try:
        document = read_json(path.read_text(encoding="utf-8-sig"), str(path))
    except (UnicodeDecodeError, InvalidData) as error:
        raise InvalidData(str(path), None, f"not COCO's JSON ({error.__cause__ or error})", FETCH) from error
    if not isinstance(document, dict):
        raise InvalidData(str(path), None, "not COCO's JSON (no object)", FETCH)
    return document


def _list(document: Entry, name: str, path: Path) -> list[Any]:
    if name not in document:
        raise InvalidData(str(path), name, "not COCO's JSON (the field is missing)", FETCH)
    return fields.items(document[name], str(path), name, "give COCO's annotation file")


def _records(entries: list[Any], path: Path, kind: str, row_errors: RowErrors) -> Iterator[tuple[Key, Entry]]:
    for number, value in enumerate(entries):
        where = f"{path}, {kind} number {number}"
        with row_errors.row():
            entry = fields.record(value, where, None, CORRECT)
            yield fields.key(entry.get("id"), where, "id", f"give every {kind} an id"), entry


def _index(records: Iterable[tuple[Key, Entry]], path: Path, kind: str, row_errors: RowErrors) -> Index:
    index, repeats = Index({}, {}), 0
    for key, entry in records:
        first = index.entries.setdefault(key, entry)
        if first is not entry:
            if first == entry:
                repeats += 1
                continue
            names = " and ".join(short(_name(one)) for one in (first, entry))
            problem = f"{short(key)} is the id of two entries, {names}, and which is meant can't be known"
            error = InvalidData(_at(path, kind, key), "id", problem, f"give every {kind} its own id")
            index.broken.setdefault(key, error)
    if repeats:
        row_errors.note(str(path), f"{repeats} {kind} entries are repeated word by word, and read once")
    return index


def _name(entry: Entry) -> Any:
    return next((entry[name] for name in ("file_name", "name", "bbox") if name in entry), entry)


def _at(path: Path, kind: str, key: Key) -> str:
    return f"{path}, {kind} {key}"


def _add_annotations(coco: Coco, values: list[Any], row_errors: RowErrors) -> None:
    """Give every image its annotations, those that share an id among them; one without an id breaks its image."""
    records, as_text = [], 0
    for number, value in enumerate(values):
        where = f"{coco.path}, annotation number {number}"
        try:
            entry = fields.record(value, where, None, CORRECT)
            image = fields.key(entry.get("image_id"), where, "image_id", CORRECT)
        except InvalidData:
            coco.homeless.append(Annotation(where, {}))
            continue
        try:
            key = fields.key(entry.get("id"), where, "id", "give every annotation an id")
        except InvalidData as error:
            coco.images.broken.setdefault(image, error)
            continue
        records.append((key, image, entry))
        as_text += isinstance(entry["image_id"], str) != _has_text_id(coco.images.entries.get(image))
    index = _index([(key, entry) for key, _, entry in records], coco.path, "annotation", row_errors)
    coco.annotations.entries.update(index.entries)
    coco.annotations.broken.update(index.broken)
    for key, image, entry in records:
        if entry is coco.annotations.entries[key] or entry != coco.annotations.entries[key]:
            annotation = Annotation(_at(coco.path, "annotation", key), entry)
            coco.of_image.get(image, coco.homeless).append(annotation)
    if as_text:
        what = f"{as_text} annotations and their images write the image's id differently, as a text and as a number"
        row_errors.note(str(coco.path), f"{what}; 7 and '7' are taken as one")
    if index.broken:
        row_errors.note(str(coco.path), f"{len(index.broken)} ids are shared by several annotations, and all are read")


def _has_text_id(entry: Entry | None) -> bool:
    return entry is not None and isinstance(entry["id"], str)
