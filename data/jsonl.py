"""User tables in .jsonl, .json, .csv, .tsv or .parquet: one row per question.

A row has the columns prompt, answer and perhaps image:

    {"image": "pictures/1.jpg", "prompt": "Where is the dog?", "answer": [12, 30, 200, 180]}

Which answer a row needs depends on the metric:

    exact     a text or a number, taken as it is written
    numeric   a number, or a text that is one
    box       [x1, y1, x2, y2] in pixels of the picture, or [x, y, w, h] with box_format=xywh
    polygon   [[x, y], [x, y], [x, y], ...] in pixels, or one flat list
    time      "HH:MM", or {"hour": 10, "minute": 8}; hours beyond 12 are taken modulo 12
    boxes     a list of boxes as above, or of {"box": [..], "label": "dog"}; [] where there is none
    points    a list of [x, y] or {"x": 12, "y": 30} in pixels; [] where there is none
    count     a whole number from 0 on

In .csv and .tsv lists are written as JSON. Optional columns: `id` (unique; else the file's name and the row's number),
`group` (metrics are reported per group too), `level` (0, 1, ... for a curriculum), `width` and `height` (where there is
no picture, boxes and polygons need them). Other columns are left alone. Image paths start from the table's folder.
A picture may also be stored in the table: as bytes, in base64, or as a data URI; with allow_urls=true it may be a web
address.
A column of weights is read only where columns.weight names it: how often its row stands in the training split. The
tables of other splits need none. `<image>` before or after a question, as in LLaVA's tables, is left out.
Pixels are those of the picture as viewers show it, turned by its EXIF orientation.

Columns given: id, image, width, height, prompt, answer (as text), group, level, and those of
`data.table_answers.TRUTH` for the metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

from datasets import Dataset

from data.common.errors import InvalidOption, OnError, RowErrors
from data.common.row_cache import cached_rows
from data.common.source import optional_path, without_nulls
from data.common.table_files import columns as table_columns
from data.common.table_files import matching, mostly_filled, read_table
from data.table_answers import Metric
from data.table_rows import Form, Table, TableSource, read_tables


class Jsonl(TableSource):
    """Source of a user's table.

    Args:
        metric: what the answers are: exact, numeric, box, polygon, time, boxes, points or count.
        train, validation, test: a file or a glob of files each. Without `validation` every twentieth row of `train` (at
            least one, from the first on) is held out for it; where rows share pictures, every twentieth picture.
        images: the folder that picture paths start from; null: the table's own.
        columns: role -> column, where they differ: image, prompt, answer, id, group, level, width, height; and weight,
            which is read only where it is named.
        box_format: xyxy or xywh, of the answers in the table.
        on_error: what to do with a broken row.
        question: of all rows of a table without a column of prompts.
        allow_urls: fetch pictures that are given by web address.
        repeat: how often every training row stands in the split; null: once.
    """

    def __init__(
        self,
        metric: Metric = "exact",
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
        images: str | None = None,
        columns: dict[str, str | None] | None = None,
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        on_error: OnError = "raise",
        question: str | None = None,
        allow_urls: bool | None = None,
        repeat: int | None = None,
    ) -> None:
        self.files = without_nulls({"train": train, "validation": validation, "test": test})
        if not self.files:
            raise InvalidOption("give a table: task.source.train=<file> task.source.test=<file>")
        form = Form(metric, without_nulls(columns), box_format, question)
        super().__init__(form, self.files, repeat, RowErrors(on_error))
        self.images, self.allow_urls = optional_path(images), bool(allow_urls)

    def read_table(self, split: str) -> Dataset:
        files = self._matching(split)
        form = self.form.of(split)
        options = {"how": [*form.key, str(self.images)]}

        def read(row_errors: RowErrors) -> Dataset:
            return load(files, form, self.images, row_errors)

        return cached_rows(self, split, files, options, self.row_errors, lambda _: {split: read})

    def check_files(self) -> None:
        for split in self.files:
            self._matching(split)

    def _matching(self, split: str) -> list[Path]:
        if split not in self.files:
            raise InvalidOption(f"there is no table for the split {split!r}; set task.source.{split}=<file>")
        return matching(self.files[split], f"task.source.{split}")


def load(files: list[Path], form: Form, images: Path | None, row_errors: RowErrors) -> Dataset:
    """The rows of one split's files.

    Raises:
        InvalidData: no file, no such column, a column of answers that isn't of its form, or (on_error=raise) a row that
            can't be used.
    """

    def tables(policy: RowErrors) -> Iterator[Table]:
        stems = Counter(path.stem for path in files)
        for path in files:
            there = partial(table_columns, path, policy)
            stem = path.stem if stems[path.stem] == 1 else path.name
            yield Table(str(path), stem, there, read_table(path, policy), images or path.parent)

    illustrated = mostly_filled(files, form.columns.get("image", "image"))
    return read_tables(tables, form, ", ".join(map(str, files)), illustrated, row_errors)
