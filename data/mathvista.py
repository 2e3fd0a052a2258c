"""MathVista's own problems, from its release: `testmini.json` beside `images/`, or the hub's parquet files.

    testmini.json   {"1": {pid, question, image, choices, unit, precision, answer, question_type, ..., metadata}}
    *.parquet       the same columns, `decoded_image` with the picture's bytes, `query` with the official prompt

The answers of the large `test` split aren't public, so it can't be scored here. Columns: as of data.mathvista_rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datasets import Dataset

from data.broken import BrokenInput, Table, Tolerance
from data.mathvista_rows import FEATURES, METADATA, checked
from data.pictures import given_picture
from data.table_files import read_table

NEEDED = ("pid", "question", "choices", "unit", "precision", "answer", "question_type", "answer_type", "metadata")
SUFFIXES = (".jpg", ".png", ".jpeg")


def load(files: list[Path], images: Path | None, queries: Path | None, tolerance: Tolerance) -> Dataset:
    """All problems of the files.

    Args:
        images: the folder that `images/1.jpg` is relative to; by default the file's own.
        queries: the release's query.json, pid -> prompt; then prompts are read there instead of made.

    Raises:
        BrokenInput: a missing or broken file, or (on_error=raise) a problem that can't be used.
    """
    prompts = _object(queries) if queries else {}
    table = Table(FEATURES, ", ".join(map(str, files)), tolerance)
    for path in files:
        for where, item in _items(path, tolerance):
            with tolerance.row():
                table.add(where, _row(item, images or path.parent, prompts if queries else None, where))
    return table.dataset()


def _items(path: Path, tolerance: Tolerance) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix == ".parquet":
        yield from ((where, item) for _, where, item in read_table(path, tolerance))
        return
    for pid, item in _object(path).items():
        if not isinstance(item, dict):
            raise BrokenInput(f"{path}, problem {pid}", None, "is not an object", "see the layout of testmini.json")
        yield f"{path}, problem {pid}", item


def _object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BrokenInput(str(path), None, "there is no such file", "correct the path")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BrokenInput(str(path), None, f"not JSON ({error})", "fetch the file again") from error
    if not isinstance(value, dict):
        raise BrokenInput(str(path), None, "is no object of pid -> problem", "take the release's own file")
    return value


def _row(item: dict[str, Any], images: Path, prompts: dict[str, Any] | None, where: str) -> dict[str, Any]:
    missing = [name for name in NEEDED if name not in item]
    if missing:
        raise BrokenInput(where, missing[0], f"the field is missing; found {', '.join(item)}", "see the layout")
    pid, metadata = str(item["pid"]), item["metadata"] or {}
    prompt = None if prompts is None else prompts.get(pid)
    if prompts is not None and not isinstance(prompt, str):
        raise BrokenInput(where, "pid", f"query.json has no prompt for {pid}", "take both from the same release")
    row = {name: item[name] for name in NEEDED if name not in ("pid", "metadata")}
    return checked(
        {
            **row,
            "id": pid,
            "image": _image(item, images, where),
            "prompt": prompt,
            **{name: metadata.get(name) for name in METADATA},
            "skills": list(metadata.get("skills") or []),
        },
        where,
    )


def _image(item: dict[str, Any], images: Path, where: str) -> dict[str, Any]:
    held, name = item.get("decoded_image"), item.get("image")
    if isinstance(held, dict) and held.get("bytes"):
        return given_picture(held, images, where, "decoded_image")[0]
    if isinstance(name, str) and name and not (images / name).is_file():
        # Pictures are sometimes kept in another format than the one the release names.
        others = (Path(name).with_suffix(suffix) for suffix in SUFFIXES)
        name = str(next((other for other in others if (images / other).is_file()), name))
    return given_picture(name, images, where, "image")[0]
