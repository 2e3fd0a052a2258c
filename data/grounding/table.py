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

from data.common import fields
from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors, short
from data.common.frames import Frames
from data.common.images import given_picture
from data.common.row_cache import cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, matching_files, optional_path, without_nulls
from data.common.table_files import columns as table_columns
from data.common.table_files import read_table
from data.grounding.schema import FEATURES, BoxColumn

KNOWN = {
    "image": ("image", "image_path", "file_name", "image_file"),
    "expression": ("sent", "sentence", "sentences", "expression", "refexp", "caption", "answer"),
    "box": ("gt_box_xywh", "gt_box", "bbox_xyxy", "bbox", "box"),
    "id": ("id", "question_id", "sent_id", "ref_id"),
    "split": ("split",),
}
_ONE_NAME = {"validation": "val"}  # of a split, which tables call either
BoxFormat = Literal["xywh", "xyxy"]
OFFICIAL = ("train", "val", "validation", "test", "testA", "testB")


class ExpressionTable(Source):
    """Source of referring expressions in tables.

    Args:
        files: split -> path or glob of its tables.
        images: the folder that picture paths start from; null: the table's own.
        columns: role (image, expression, box, id, split) -> column; null: found by name.
        box_format: xywh or xyxy; null: xywh unless the column's name ends in xyxy.
        splits: split as asked for -> its name in the split column, several joined by `+`.
        on_error: what to do with a broken row.
        allow_urls: fetch pictures that are given by web address.
    """

    def __init__(
        self,
        files: dict[str, str | None],
        images: str | None = None,
        columns: dict[str, str | None] | None = None,
        box_format: BoxFormat | None = None,
        splits: dict[str, str] | None = None,
        on_error: OnError = "raise",
        allow_urls: bool | None = None,
    ) -> None:
        self.allow_urls = bool(allow_urls)
        self.files, self.columns = without_nulls(files), without_nulls(columns)
        if not self.files:
            raise InvalidOption("give a table: task.source.files.<split>=<a .parquet, .json or .jsonl file>")
        self.images, self.box_format, self.official = optional_path(images), box_format, splits or {}
        self.splits, self.row_errors = tuple(self.files), RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        official = self.official.get(split, split)
        files = matching_files(self.files, split)
        options = {"columns": self.columns, "box_format": self.box_format, "images": str(self.images)}

        def read(row_errors: RowErrors) -> Dataset:
            return load(files, official, self.columns, self.box_format, self.images, row_errors)

        return cached_rows(self, official, files, options, self.row_errors, lambda _: {official: read})

    def check_files(self) -> None:
        for split in self.files:
            matching_files(self.files, split)


def load(
    files: list[Path],
    split: str,
    columns: dict[str, str],
    box_format: BoxFormat | None,
    images: Path | None,
    row_errors: RowErrors,
) -> Dataset:
    """The rows of one split (or several, joined by `+`) of a table in one or several files.

    Raises:
        InvalidData: no file, a wrong column, or (on_error=raise) a row that can't be used.
    """
    official = {_ONE_NAME.get(name, name) for name in split.split("+")}

    def read(policy: RowErrors) -> Dataset:
        writer = RowWriter(FEATURES, f"{', '.join(map(str, files))}, split {split}", policy, "expression", ["box"])
        others: dict[str, str] = {}  # splits of rows that were passed over, with the column that has them
        for path in files:
            prefix = re.split(r"[-_.]", path.name)[0]
            default_split = prefix if prefix in OFFICIAL else split
            names: dict[str, str] = {}
            boxes, frames = BoxColumn(), Frames("shown")
            for number, where, item in read_table(path, policy):
                if not names:
                    names = _names(table_columns(path, policy), columns, path)
                    boxes = BoxColumn(box_format or ("xyxy" if names["box"].endswith("xyxy") else "xywh"))
                with policy.row():
                    row_split = _split(item, names["split"], where) if "split" in names else default_split
                    if "split" in names and _ONE_NAME.get(row_split, row_split) not in official:
                        others[row_split] = names["split"]
                        continue
                    fallback = f"{path.stem}-{number}"
                    _add(writer, item, names, boxes, frames, images or path.parent, where, fallback, row_split)
            frames.note(f"{path}, split {split}", policy)
            if names:
                boxes.check(str(path), names["box"], policy)
        if others and writer.empty:
            problem = f"no row is of the split {split}, only of {', '.join(others)}"
            raise InvalidData(
                writer.where, next(iter(others.values())), problem, "set task.source.splits to their names"
            )
        return writer.dataset()

    return read_with_evidence(read, row_errors)


def _names(columns_there: list[str], columns: dict[str, str], path: Path) -> dict[str, str]:
    names = {}
    for role, aliases in KNOWN.items():
        if columns.get(role) and columns[role] not in columns_there:
            problem = f"there is no such column; found {', '.join(columns_there)}"
            raise InvalidData(str(path), columns[role], problem, f"set task.source.columns.{role} to one of them")
        name = columns.get(role) or next((name for name in aliases if name in columns_there), None)
        if name is None and role in ("image", "expression", "box"):
            problem = f"no column for the {role}; found {', '.join(columns_there)}"
            raise InvalidData(str(path), None, problem, f"name it with task.source.columns.{role}=...")
        if name is not None:
            names[role] = name
    return names


def _split(item: dict[str, Any], column: str, where: str) -> str:
    remedy = "give every row its split, or leave the column out"
    if fields.filled(item.get(column)) is None:
        raise InvalidData(where, column, "is missing", remedy)
    return str(fields.key(item[column], where, column, remedy))


def _expressions(cell: Any, where: str, field: str) -> Any:
    """A text or list of expressions; a list may be written as JSON, a text in brackets may also be one."""
    packed = isinstance(cell, str) and cell.strip()[:2] in ('["', "['", "[{") and cell.strip().endswith("]")
    return fields.unpacked(cell, where, field) if packed else cell


def _id(value: Any, where: str, field: str) -> str:
    remedy = "give every row its own id, or leave the column out"
    if fields.filled(value) is None:
        raise InvalidData(where, field, "is missing", remedy)
    fields.key(value, where, field, remedy)
    return str(value)


def _add(
    writer: RowWriter,
    item: dict[str, Any],
    names: dict[str, str],
    boxes: BoxColumn,
    frames: Frames,
    images: Path,
    where: str,
    fallback: str,
    split: str,
) -> None:
    image, true_size = given_picture(item.get(names["image"]), images, where, names["image"])
    declared = fields.size(item.get("width"), item.get("height"), where) or (None, None)
    remedy = "use the pictures that the boxes were drawn on"
    image, size = frames.choose(image, true_size, declared, where, "the table", remedy, names["image"])
    box = boxes.read(item.get(names["box"]), size, where, names["box"])
    expression = _expressions(item.get(names["expression"]), where, names["expression"])
    texts = expression if isinstance(expression, list) else [expression]
    # Exports number each split from 0, so the split is part of the id.
    name = f"{split}-{_id(item.get(names['id']), where, names['id'])}" if "id" in names else fallback
    if not texts:
        raise InvalidData(where, names["expression"], "is an empty list", "give a text, or drop the row")
    for index, text in enumerate(texts):
        text = text.get("sent") or text.get("raw") if isinstance(text, dict) else text
        with writer.row_errors.row():
            row_id = name if len(texts) == 1 else f"{name}-{index}"
            if names.get("id") == "ref_id":  # of an object, which several rows may describe
                row_id = writer.distinct(row_id, fallback)
            if not isinstance(text, str) or not text.strip():
                raise InvalidData(where, names["expression"], f"{short(text)} is no expression", "give a text")
            row = {
                "id": row_id,
                "image": image,
                "width": size[0],
                "height": size[1],
                "expression": fields.text(text, where, names["expression"]),
                "box": box,
                "split": split,
                "level": 0,
            }
            writer.add(f"{where}, expression {index}", row)
