"""MathVista's own problems, from its release: `testmini.json` beside `images/`, or the hub's parquet files.

    testmini.json   {"1": {pid, question, image, choices, unit, precision, answer, question_type, ..., metadata}}
    *.parquet       the same columns, `decoded_image` with the picture's bytes, `query` with the official prompt

The answers of the large `test` split aren't public, so it can't be scored here. Columns: as of data.mathvista.schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from data.common import fields
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors
from data.common.images import given_picture, is_file
from data.common.row_cache import Read, cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, optional_path, require_file
from data.common.table_files import matching, read_json, read_table
from data.mathvista import visual_math
from data.mathvista.schema import FEATURES, METADATA, checked
from data.mathvista.visual_math import LicenceError

NEEDED = ("pid", "question", "choices", "unit", "precision", "answer", "question_type", "answer_type", "metadata")
SUFFIXES = (".jpg", ".png", ".jpeg")


class MathVistaRelease(Source):
    """Source of the released problems for testing; its training rows are from elsewhere, as the licence demands.

    Args:
        test: testmini.json, or a parquet file or glob.
        train: a JSON, JSONL or parquet file in a layout of `data.mathvista.visual_math`.
        images, train_images: folders of the pictures, where they aren't beside the files.
        queries: the release's query.json, to read prompts there instead of making them.
        validation: of `train`: how many of 100 pictures are held out.
        on_error: what to do with a broken row.
        allow_urls: fetch pictures that are given by web address.
    """

    def __init__(
        self,
        test: str,
        train: str | None = None,
        images: str | None = None,
        train_images: str | None = None,
        queries: str | None = None,
        validation: int = 2,
        on_error: OnError = "raise",
        allow_urls: bool | None = None,
    ) -> None:
        self.allow_urls = bool(allow_urls)
        if not 0 <= validation < 100:
            raise InvalidOption(f"task.source.validation is a percentage of the pictures, 0 to 99, got {validation}")
        self.test, self.train, self.queries = test, optional_path(train), optional_path(queries)
        self.images, self.train_images, self.validation = optional_path(images), optional_path(train_images), validation
        self.splits = ("train", "validation", "test") if train else ("test",)
        self.row_errors = RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        if split in ("test", "testmini"):
            files = matching(self.test, "task.source.test")
            used = [*files, self.queries] if self.queries else files
            options: dict[str, Any] = {"images": str(self.images)}
            readers: dict[str, Read] = {"test": partial(load, files, self.images, self.queries)}
            return cached_rows(self, "test", used, options, self.row_errors, lambda _: readers)
        self.check_split(split)
        assert self.train is not None
        options = {"validation": self.validation, "images": str(self.train_images)}
        parts: tuple[Literal["train", "validation"], ...] = ("train", "validation")
        readers = {
            part: partial(visual_math.load, self.train, part, self.validation, self.train_images) for part in parts
        }
        return cached_rows(self, split, [self.train], options, self.row_errors, lambda _: readers)

    def check_split(self, split: str) -> None:
        if split in ("train", "validation") and self.train is None:
            raise LicenceError(
                "MathVista's licence prohibits training on it; set task.source.train=<a JSON file in the layout of "
                "MathV360K, Geo170K or ChartQA>, or train on task=mathvista_nano"
            )
        if split not in ("train", "validation", "test", "testmini"):
            raise InvalidOption(f"MathVista has the splits test (testmini), train and validation, not {split!r}")

    def check_files(self) -> None:
        matching(self.test, "task.source.test")
        for file in (self.train, self.queries):
            if file is not None:
                require_file(file, "correct the path")


def load(files: list[Path], images: Path | None, queries: Path | None, row_errors: RowErrors) -> Dataset:
    """All problems of the files.

    Args:
        images: the folder that `images/1.jpg` is relative to; by default the file's own.
        queries: the release's query.json, pid -> prompt; then prompts are read there instead of made.

    Raises:
        InvalidData: a missing or broken file, or (on_error=raise) a problem that can't be used.
    """
    prompts = _object(queries) if queries else {}
    writer = RowWriter(FEATURES, ", ".join(map(str, files)), row_errors)
    for path in files:
        for where, item in _items(path, row_errors):
            with row_errors.row():
                writer.add(where, _row(item, images or path.parent, prompts if queries else None, where))
    return writer.dataset()


def _items(path: Path, row_errors: RowErrors) -> Iterator[tuple[str, dict[str, Any]]]:
    if path.suffix.lower() == ".parquet":
        yield from ((where, item) for _, where, item in read_table(path, row_errors))
        return
    for pid, item in _object(path).items():
        where = f"{path}, problem {pid}"
        with row_errors.row():
            yield where, fields.record(item, where, None, "see the layout of testmini.json")


def _object(path: Path) -> dict[str, Any]:
    """The problems of a JSON file by their ids.

    Raises:
        InvalidData: no such file, no JSON object, or an id that it has twice.
    """
    if not path.is_file():
        raise InvalidData(str(path), None, "there is no such file", "correct the path")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidData(str(path), None, f"is not UTF-8 ({error})", "save it as UTF-8") from error
    value = read_json(text, str(path))
    if not isinstance(value, dict):
        raise InvalidData(str(path), None, "is no object of pid -> problem", "take the release's own file")
    return value


def _row(item: dict[str, Any], images: Path, prompts: dict[str, Any] | None, where: str) -> dict[str, Any]:
    missing = [name for name in NEEDED if name not in item]
    if missing:
        raise InvalidData(where, missing[0], f"the field is missing; found {', '.join(item)}", "see the layout")
    pid = str(fields.key(item["pid"], where, "pid"))
    metadata = {} if item["metadata"] is None else fields.record(item["metadata"], where, "metadata")
    skills = metadata.get("skills")
    prompt = None if prompts is None else prompts.get(pid)
    if prompts is not None and not isinstance(prompt, str):
        raise InvalidData(where, "pid", f"query.json has no prompt for {pid}", "take both from the same release")
    row = {name: item[name] for name in NEEDED if name not in ("pid", "metadata")}
    return checked(
        {
            **row,
            "id": pid,
            "image": _image(item, images, where),
            "prompt": prompt,
            **{name: metadata.get(name) for name in METADATA},
            "skills": [] if skills is None else _skills(skills, where),
        },
        where,
    )


def _skills(value: Any, where: str) -> list[str]:
    remedy = "write a list of texts"
    return [fields.text(one, where, "metadata, skills", remedy) for one in fields.items(value, where, "skills", remedy)]


def _image(item: dict[str, Any], images: Path, where: str) -> dict[str, Any]:
    embedded, name = item.get("decoded_image"), item.get("image")
    if isinstance(embedded, dict) and embedded.get("bytes"):
        return given_picture(embedded, images, where, "decoded_image")[0]
    if isinstance(name, str) and Path(name).name and not is_file(images / name):
        # Pictures are sometimes kept in another format than the one the release names.
        candidates = (Path(name).with_suffix(suffix) for suffix in SUFFIXES)
        name = str(next((other for other in candidates if is_file(images / other)), name))
    return given_picture(name, images, where, "image")[0]
