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

import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

from datasets import Dataset
from pycocotools.coco import COCO

from data.common.errors import InvalidData, OnError, RowErrors
from data.common.images import check_picture, check_size, stored
from data.common.rows import RowWriter
from data.common.source import Source, optional_path, require_file
from data.grounding.schema import FEATURES, checked_box

NEEDED = ("ref_id", "ann_id", "image_id", "split", "sentences")


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
        official = self.official.get(split, split).split("+")
        return load(self.folder, self.split_by, official, self.images, self.row_errors)

    def check_split(self, split: str) -> None:
        """Accept any split, since the release's own names are known only when it is read."""

    def check_files(self) -> None:
        for file in (refs_file(self.folder, self.split_by), self.folder / "instances.json"):
            require_file(file, "set task.source.folder to the REFER release")


def load(folder: Path, split_by: str, splits: list[str], images: Path | None, row_errors: RowErrors) -> Dataset:
    """The expressions of some official splits.

    Raises:
        InvalidData: a missing file, an unknown split, or (on_error=raise) a row that can't be used.
    """
    refs = _refs(refs_file(folder, split_by))
    names = sorted({str(ref["split"]) for ref in refs})
    for split in splits:
        if split not in names:
            remedy = f"choose of {', '.join(names)}"
            raise InvalidData(str(refs_file(folder, split_by)), "split", f"there is no split {split!r}", remedy)
    coco = read_coco(folder / "instances.json")
    images = images or folder.parent / "images" / "mscoco" / "images" / "train2014"
    writer = RowWriter(FEATURES, f"{folder}, split {'+'.join(splits)}", row_errors)
    for split in splits:
        for number, ref in enumerate(refs):
            if ref["split"] == split:
                _add_sentences(writer, ref, coco, images, f"{folder / f'refs({split_by}).p'}, entry {number}")
    return writer.dataset()


def refs_file(folder: Path, split_by: str) -> Path:
    """Path of the release's references, <folder>/refs(<split_by>).p."""
    return folder / f"refs({split_by}).p"


def read_coco(path: Path) -> COCO:
    """COCO annotations through pycocotools, silently.

    Raises:
        InvalidData: missing, or not COCO's JSON.
    """
    if not path.is_file():
        raise InvalidData(str(path), None, "there is no such file", "put COCO's annotation file there")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(path))
    except (ValueError, KeyError, TypeError, AssertionError, UnicodeDecodeError) as error:
        raise InvalidData(str(path), None, f"not COCO's JSON ({error!r})", "fetch the file again") from error


def _refs(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        others_there = sorted(p.name for p in path.parent.glob("refs(*).p"))
        listed = (
            f"found {', '.join(others_there)}; set task.source.split_by"
            if others_there
            else "set task.source.folder to the REFER release"
        )
        raise InvalidData(str(path), None, "there is no such file", listed)
    try:
        with path.open("rb") as file:
            # The release was written by Python 2, whose text is bytes.
            refs = _PlainUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a broken pickle raises nearly anything
        raise InvalidData(str(path), None, f"can't be unpickled safely ({error})", "fetch the file again") from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise InvalidData(str(path), None, "is not a list of references", "fetch the file again")
    for number, ref in enumerate(refs):
        missing = [name for name in NEEDED if name not in ref]
        if missing:
            raise InvalidData(f"{path}, entry {number}", missing[0], "the field is missing", "fetch the file again")
    return refs


def _add_sentences(writer: RowWriter, ref: dict[str, Any], coco: COCO, images: Path, where: str) -> None:
    with writer.row_errors.row():
        image, annotation = coco.imgs.get(ref["image_id"]), coco.anns.get(ref["ann_id"])
        if image is None or annotation is None or annotation.get("image_id") != ref["image_id"]:
            problem = f"instances.json has no annotation {ref['ann_id']} of an image {ref['image_id']}"
            raise InvalidData(where, "ann_id", problem, "take both files from the same release")
        path = images / image["file_name"]
        size = check_picture(path, where)
        declared, remedy = (image["width"], image["height"]), "use COCO's own pictures, not resized ones"
        check_size(declared, size, where, f"of {path} instances.json", remedy)
        box = checked_box(annotation.get("bbox"), size, where, "bbox", xywh=True)
        for index, sentence in enumerate(ref["sentences"]):
            with writer.row_errors.row():
                _add_sentence(writer, ref, sentence, index, path, size, box, where)


def _add_sentence(
    writer: RowWriter,
    ref: dict[str, Any],
    sentence: dict[str, Any],
    index: int,
    path: Path,
    size: tuple[int, int],
    box: list[float],
    where: str,
) -> None:
    text = str(sentence.get("sent") or sentence.get("raw") or "").strip()
    if not text:
        raise InvalidData(where, f"sentences[{index}]", "has no text", "drop the sentence")
    row = {
        "id": f"{ref['ref_id']}-{sentence.get('sent_id', index)}",
        "image": stored(path),
        "width": size[0],
        "height": size[1],
        "expression": text,
        "box": box,
        "split": str(ref["split"]),
        "level": 0,
    }
    writer.add(f"{where}, sentence {index}", row)
