"""Referring expressions as a table: the Hugging Face exports of RefCOCO and anything alike, in parquet, JSON or JSONL.

Which column holds what is given by `columns` and, where it isn't, found among the names in use:

    image       a path beside the table, a struct with bytes, or file_name/image_path
    expression  a text, or a list of texts or of {"sent": ...} (one row each): sent, sentence, sentences, expression,
                refexp, caption, answer
    box         gt_box_xywh, gt_box, bbox, box, and bbox_xyxy
    split       rows of the split asked for are taken, in a column of that name; where there is none, all rows are, and
                belong to what the file's name begins with, if that is an official split (testA-00000.parquet)
    width, height   checked against the picture where they are there

A box is x, y, w, h, except where its column's name ends in `xyxy` or `box_format` says so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from data import cells
from data.broken import BrokenInput, Table, Tolerance
from data.grounding_rows import FEATURES, checked_box
from data.pictures import check_size, given_picture
from data.table_files import columns as table_columns
from data.table_files import read_table

BoxFormat = Literal["xywh", "xyxy"]
KNOWN = {
    "image": ("image", "image_path", "file_name", "image_file"),
    "expression": ("sent", "sentence", "sentences", "expression", "refexp", "caption", "answer"),
    "box": ("gt_box_xywh", "gt_box", "bbox_xyxy", "bbox", "box"),
    "id": ("id", "question_id", "sent_id", "ref_id"),
    "split": ("split",),
}
OFFICIAL = ("train", "val", "validation", "test", "testA", "testB")


def load(
    files: list[Path],
    split: str,
    columns: dict[str, str],
    box_format: BoxFormat | None,
    images: Path | None,
    tolerance: Tolerance,
) -> Dataset:
    """The rows of one split (or several, joined by `+`) of a table that may lie in several files.

    Raises:
        BrokenInput: no file, a wrong column, or (on_error=raise) a row that can't be used.
    """
    table = Table(FEATURES, f"{', '.join(map(str, files))}, split {split}", tolerance)
    wanted = split.split("+")
    for path in files:
        prefix = re.split(r"[-_.]", path.name)[0]
        own = prefix if prefix in OFFICIAL else split
        names: dict[str, str] = {}
        for number, where, item in read_table(path, tolerance):
            names = names or _names(table_columns(path, tolerance), columns, path)
            with tolerance.row():
                found = _split(item, names["split"], where) if "split" in names else own
                if "split" in names and found not in wanted:
                    continue
                _add(table, item, names, box_format, images or path.parent, where, f"{path.stem}-{number}", found)
    return table.dataset()


def _names(found: list[str], columns: dict[str, str], path: Path) -> dict[str, str]:
    names = {}
    for role, known in KNOWN.items():
        if columns.get(role) and columns[role] not in found:
            problem = f"there is no such column; found {', '.join(found)}"
            raise BrokenInput(str(path), columns[role], problem, f"set task.columns.{role} to one of them")
        name = columns.get(role) or next((name for name in known if name in found), None)
        if name is None and role in ("image", "expression", "box"):
            problem = f"no column for the {role}; found {', '.join(found)}"
            raise BrokenInput(str(path), None, problem, f"name it with task.columns.{role}=...")
        if name is not None:
            names[role] = name
    return names


def _split(item: dict[str, Any], column: str, where: str) -> str:
    if item.get(column) is None:
        raise BrokenInput(where, column, "is missing", "give every row its split, or leave the column out")
    return str(item[column])


def _add(
    table: Table,
    item: dict[str, Any],
    names: dict[str, str],
    box_format: BoxFormat | None,
    images: Path,
    where: str,
    fallback: str,
    split: str,
) -> None:
    image, size = given_picture(item.get(names["image"]), images, where, names["image"])
    said = cells.size(item.get("width"), item.get("height"), where) or size
    check_size(said, size, where, "the table", "use the pictures that the boxes were drawn on", names["image"])
    xywh = box_format == "xywh" if box_format else not names["box"].endswith("xyxy")
    box = checked_box(item.get(names["box"]), size, where, names["box"], xywh=xywh)
    said = item.get(names["expression"])
    texts = said if isinstance(said, list) else [said]
    if "id" in names and item.get(names["id"]) is None:
        raise BrokenInput(where, names["id"], "is missing", "give every row its own id, or leave the column out")
    # Exports number each split from 0, so the split is part of the id.
    name = f"{split}-{item[names['id']]}" if "id" in names else fallback
    for place, text in enumerate(texts):
        text = text.get("sent") or text.get("raw") if isinstance(text, dict) else text
        with table.tolerance.row():
            if not isinstance(text, str) or not text.strip():
                raise BrokenInput(where, names["expression"], f"{text!r} is no expression", "give a text")
            row = {
                "id": name if len(texts) == 1 else f"{name}-{place}",
                "image": image,
                "width": size[0],
                "height": size[1],
                "expression": text.strip(),
                "box": box,
                "split": split,
                "level": 0,
            }
            table.add(f"{where}, expression {place}", row)
