"""Referring expressions as a table: the Hugging Face exports of RefCOCO and anything alike, in parquet, JSON or JSONL.

Which column holds what is given by `columns` and, where it isn't, found among the names in use:

    image       a path beside the table, a struct with bytes, or file_name/image_path
    expression  a text, or a list of texts or of {"sent": ...} (one row each): sent, sentence, sentences, expression,
                refexp, caption, answer
    box         gt_box_xywh, gt_box, bbox, box, and bbox_xyxy
    split       kept where there is one; else the file's name before its first '-', '_' or '.'

A box is x, y, w, h, except where its column's name ends in `xyxy` or `box_format` says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow
import pyarrow.parquet
from datasets import Dataset

from data.broken import BrokenInput, Table, Tolerance
from data.grounding_rows import FEATURES, checked_box
from data.pictures import check_bytes, check_picture, stored

BoxFormat = Literal["xywh", "xyxy"]
KNOWN = {
    "image": ("image", "image_path", "file_name", "image_file"),
    "expression": ("sent", "sentence", "sentences", "expression", "refexp", "caption", "answer"),
    "box": ("gt_box_xywh", "gt_box", "bbox_xyxy", "bbox", "box"),
    "id": ("id", "question_id", "ref_id", "sent_id"),
    "split": ("split",),
}


def load(
    files: list[Path],
    split: str,
    columns: dict[str, str],
    box_format: BoxFormat | None,
    images: Path | None,
    tolerance: Tolerance,
) -> Dataset:
    """The rows of one split of a table that may lie in several files.

    Raises:
        BrokenInput: no file, a wrong column, or (on_error=raise) a row that can't be used.
    """
    table = Table(FEATURES, f"{', '.join(map(str, files))}, split {split}", tolerance)
    for path in files:
        names: dict[str, str] = {}
        for number, item in enumerate(read_table(path)):
            names = names or _names(item, columns, path)
            if str(item.get(names.get("split", ""), split)) == split:
                where = f"{path}, row {number}"
                with tolerance.row():
                    _add(table, item, names, box_format, images or path.parent, where, f"{path.stem}-{number}", split)
    return table.dataset()


def read_table(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a .parquet, .json (a list) or .jsonl file, parquet in batches.

    Raises:
        BrokenInput: missing or unreadable, with the line where there are lines.
    """
    if not path.is_file():
        raise BrokenInput(str(path), None, "there is no such file", "correct the path")
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _json(line, f"{path}, line {number}", dict)
    elif path.suffix == ".json":
        rows = _json(path.read_text(encoding="utf-8"), str(path), list)
        for number, row in enumerate(rows):
            if not isinstance(row, dict):
                raise BrokenInput(f"{path}, row {number}", None, "is not an object", "write a list of objects")
            yield row
    else:
        raise BrokenInput(
            str(path), None, f"can't read {path.suffix or 'a file without suffix'}", "use parquet or JSON"
        )


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64):
                yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise BrokenInput(str(path), None, f"no whole parquet file ({error})", "fetch the file again") from error


def _json(text: str, where: str, kind: type) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BrokenInput(where, None, f"not JSON ({error})", "mend the line or fetch the file again") from error
    if not isinstance(value, kind):
        raise BrokenInput(where, None, f"is no {'object' if kind is dict else 'list of objects'}", "see the layout")
    return value


def _names(item: dict[str, Any], columns: dict[str, str], path: Path) -> dict[str, str]:
    names = {}
    for role, known in KNOWN.items():
        if role in columns and columns[role] not in item:
            problem = f"there is no such column; found {', '.join(item)}"
            raise BrokenInput(str(path), columns[role], problem, f"set task.columns.{role} to one of them")
        found = columns.get(role) or next((name for name in known if name in item), None)
        if found is None and role in ("image", "expression", "box"):
            problem = f"no column for the {role}; found {', '.join(item)}"
            raise BrokenInput(str(path), None, problem, f"name it with task.columns.{role}=...")
        if found is not None:
            names[role] = found
    return names


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
    image, size = _image(item.get(names["image"]), images, where, names["image"])
    xywh = box_format == "xywh" if box_format else not names["box"].endswith("xyxy")
    box = checked_box(item.get(names["box"]), size, where, names["box"], xywh=xywh)
    said = item.get(names["expression"])
    texts = said if isinstance(said, list) else [said]
    name = str(item[names["id"]]) if "id" in names else fallback
    for place, text in enumerate(texts):
        text = text.get("sent") or text.get("raw") if isinstance(text, dict) else text
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


def _image(value: Any, images: Path, where: str, field: str) -> tuple[dict[str, Any], tuple[int, int]]:
    if isinstance(value, dict) and value.get("bytes"):
        return {"bytes": value["bytes"], "path": None}, check_bytes(value["bytes"], where, field)
    name = value.get("path") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name:
        raise BrokenInput(where, field, f"{name!r} is neither a path nor stored bytes", "give the picture's path")
    path = images / name
    return stored(path), check_picture(path, where, field)
