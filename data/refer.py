"""Referring expressions as the REFER release lays them out: RefCOCO, RefCOCO+ and RefCOCOg.

    <folder>/refs(unc).p         a pickled list, one entry per object, with its sentences and split
    <folder>/instances.json      COCO's annotations of the same pictures
    <images>/COCO_train2014_...  by default <folder>/../images/mscoco/images/train2014

Splits: `unc` has train, val, testA (people), testB (things); `google` has train and val for RefCOCOg and train, val,
test for the other two; `umd` has train, val, test. One row is one sentence.

The pickle is opened by an unpickler that can make lists, dicts, numbers and text only: a pickle from a stranger can
otherwise run any program.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

from datasets import Dataset
from pycocotools.coco import COCO

from data.broken import BrokenInput, Table, Tolerance
from data.grounding_rows import FEATURES, checked_box
from data.pictures import check_picture, check_size, stored

NEEDED = ("ref_id", "ann_id", "image_id", "split", "sentences")


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, but lists of plain values need no class")


def load(folder: Path, split_by: str, splits: list[str], images: Path | None, tolerance: Tolerance) -> Dataset:
    """The expressions of some official splits.

    Raises:
        BrokenInput: a missing file, an unknown split, or (on_error=raise) a row that can't be used.
    """
    refs = _refs(folder / f"refs({split_by}).p")
    known = sorted({str(ref["split"]) for ref in refs})
    for split in splits:
        if split not in known:
            remedy = f"choose of {', '.join(known)}"
            raise BrokenInput(str(folder / f"refs({split_by}).p"), "split", f"there is no split {split!r}", remedy)
    coco = read_coco(folder / "instances.json")
    images = images or folder.parent / "images" / "mscoco" / "images" / "train2014"
    table = Table(FEATURES, f"{folder}, split {'+'.join(splits)}", tolerance)
    for split in splits:
        for number, ref in enumerate(refs):
            if ref["split"] == split:
                _add_sentences(table, ref, coco, images, f"{folder / f'refs({split_by}).p'}, entry {number}")
    return table.dataset()


def read_coco(path: Path) -> COCO:
    """COCO annotations through pycocotools, silently.

    Raises:
        BrokenInput: missing, or not COCO's JSON.
    """
    if not path.is_file():
        raise BrokenInput(str(path), None, "there is no such file", "put COCO's annotation file there")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(str(path))
    except (ValueError, KeyError, TypeError, AssertionError, UnicodeDecodeError) as error:
        raise BrokenInput(str(path), None, f"not COCO's JSON ({error!r})", "fetch the file again") from error


def _refs(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        others = sorted(p.name for p in path.parent.glob("refs(*).p"))
        found = f"found {', '.join(others)}; set task.split_by" if others else "set task.folder to the REFER release"
        raise BrokenInput(str(path), None, "there is no such file", found)
    try:
        with path.open("rb") as file:
            # The release was written by Python 2, whose text is bytes.
            refs = _PlainUnpickler(file, encoding="latin1").load()
    except Exception as error:  # a broken pickle raises nearly anything
        raise BrokenInput(str(path), None, f"can't be unpickled safely ({error})", "fetch the file again") from error
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise BrokenInput(str(path), None, "is not a list of references", "fetch the file again")
    for number, ref in enumerate(refs):
        missing = [name for name in NEEDED if name not in ref]
        if missing:
            raise BrokenInput(f"{path}, entry {number}", missing[0], "the field is missing", "fetch the file again")
    return refs


def _add_sentences(table: Table, ref: dict[str, Any], coco: COCO, images: Path, where: str) -> None:
    with table.tolerance.row():
        image, annotation = coco.imgs.get(ref["image_id"]), coco.anns.get(ref["ann_id"])
        if image is None or annotation is None or annotation.get("image_id") != ref["image_id"]:
            problem = f"instances.json has no annotation {ref['ann_id']} of an image {ref['image_id']}"
            raise BrokenInput(where, "ann_id", problem, "take both files from the same release")
        path = images / image["file_name"]
        size = check_picture(path, where)
        said, remedy = (image["width"], image["height"]), "use COCO's own pictures, not resized ones"
        check_size(said, size, where, f"of {path} instances.json", remedy)
        box = checked_box(annotation.get("bbox"), size, where, "bbox", xywh=True)
        for place, sentence in enumerate(ref["sentences"]):
            with table.tolerance.row():
                _add_sentence(table, ref, sentence, place, path, size, box, where)


def _add_sentence(
    table: Table,
    ref: dict[str, Any],
    sentence: dict[str, Any],
    place: int,
    path: Path,
    size: tuple[int, int],
    box: list[float],
    where: str,
) -> None:
    text = str(sentence.get("sent") or sentence.get("raw") or "").strip()
    if not text:
        raise BrokenInput(where, f"sentences[{place}]", "has no text", "drop the sentence")
    row = {
        "id": f"{ref['ref_id']}-{sentence.get('sent_id', place)}",
        "image": stored(path),
        "width": size[0],
        "height": size[1],
        "expression": text,
        "box": box,
        "split": str(ref["split"]),
        "level": 0,
    }
    table.add(f"{where}, sentence {place}", row)
