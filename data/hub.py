"""Data sets that the `datasets` library reads: on the Hugging Face hub, or in a folder here.

A folder holds parquet, JSON, CSV, text or Arrow files, pictures with a `metadata.jsonl` (the library's imagefolder),
tars of pictures and JSON files that share a name (webdataset), or what `Dataset.save_to_disk` wrote. No code of a data
set is run: one with a loading script is refused, and so is every builder but `BUILDERS`.

Roles are given by columns, as in `data.jsonl`; `json.answer` is the entry `answer` of the objects in the column `json`.
A column of class labels is read as their names. A split is read once, in its own order, and its rows are written to
disk, so that they can be shuffled; streaming doesn't download the files of a data set first, and so needs `limit`.

Columns given: as `data.jsonl`.
"""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import datasets
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset
from pandas.errors import ParserWarning

from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors, UserError, short
from data.common.row_cache import cached_rows
from data.common.source import optional_path, without_nulls
from data.common.table_files import (
    Located,
    at_least_half,
    holds_short_floats,
    read_table,
    shortest,
)
from data.common.web_pictures import web_pictures
from data.hub_tables import Tables, options_of_csv, tables_of
from data.table_answers import Metric
from data.table_rows import ROLES, Form, Table, TableSource, read_tables

Builder = Literal["parquet", "json", "csv", "text", "arrow", "imagefolder", "webdataset"]
BUILDERS = ("parquet", "json", "csv", "text", "arrow", "imagefolder", "webdataset")
SAVED = ("state.json", "dataset_dict.json")  # of `save_to_disk`
ARCHIVES = ("zip://", "tar://", "gzip://")
NOT_READ = (datasets.Audio, datasets.Video)  # columns of sounds and films
LOOKED_AT = 200  # rows, of which most have pictures or most have none
MOST_BYTES = 64 << 20  # of a picture that lies in an archive
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


class _Records(NamedTuple):
    """The records of one split.

    Attributes:
        columns: names of their columns. first: at most `LOOKED_AT` of them.
        records: gives all, up to the limit, with their places.
    """

    columns: list[str]
    first: list[dict[str, Any]]
    records: Callable[[RowErrors], Iterator[Located]]


class HubDataset(TableSource):
    """Source of a data set of the `datasets` library.

    Args:
        path: owner/name on the hub, or a folder here.
        metric: what the answers are, see `data.jsonl`.
        subset: which configuration of the data set; null: its default.
        splits: split -> its name in the data set, or in `files`; without `validation` every twentieth row of `train`,
            or picture where rows share pictures, is held out.
        revision: commit, tag or branch on the hub; null: the newest.
        columns: role -> column, where they differ, see `data.jsonl`.
        builder: of a folder: parquet, json, csv, text, arrow, imagefolder or webdataset; null: by its files.
        files: split -> files of a folder, as a glob; null: by their names.
        streaming: read rows from the hub without downloading all of the data set; needs `limit`.
        limit: how many rows of each split are read, from the first on; null: all.
        images, question, box_format, on_error, allow_urls, repeat: as of `data.jsonl:Jsonl`.
    """

    def __init__(
        self,
        path: str | None = None,
        metric: Metric = "exact",
        subset: str | None = None,
        splits: dict[str, str | None] | None = None,
        revision: str | None = None,
        columns: dict[str, str | None] | None = None,
        builder: Builder | None = None,
        files: dict[str, str | None] | None = None,
        streaming: bool | None = None,
        limit: int | None = None,
        images: str | None = None,
        question: str | None = None,
        box_format: Literal["xyxy", "xywh"] = "xyxy",
        on_error: OnError = "raise",
        allow_urls: bool | None = None,
        repeat: int | None = None,
    ) -> None:
        if not path:
            raise InvalidOption("give a data set: task.source.path=<owner/name on the hub, or a folder here>")
        form = Form(metric, without_nulls(columns), box_format, question)
        self.files = without_nulls(files)
        self.names = _official_names(without_nulls(splits), self.files)
        super().__init__(form, self.names, repeat, RowErrors(on_error))
        self.path, self.subset, self.revision, self.builder = path, subset, revision, builder
        self.streaming, self.limit, self.images = bool(streaming), limit, optional_path(images)
        self.allow_urls = bool(allow_urls)
        self.folder = Path(path).expanduser() if Path(path).expanduser().exists() else None
        self._check_options()

    def _check_options(self) -> None:
        if self.folder is None and not _HUB_NAME.fullmatch(self.path):
            raise InvalidOption(f"task.source.path={self.path!r} is neither a folder here nor owner/name on the hub")
        if self.folder is not None and not self.folder.is_dir():
            raise InvalidOption(f"task.source.path={self.path!r} is a file: give its folder, or take task=jsonl")
        if self.folder is not None and self.revision:
            raise InvalidOption(f"task.source.revision={self.revision} is of the hub, and {self.path} is a folder here")
        if self.folder is None and (self.files or self.builder):
            raise InvalidOption(
                "task.source.files and task.source.builder are for folders here; a data set of the hub has its own"
            )
        if self.files and not self.builder:
            raise InvalidOption("task.source.files needs what they are: task.source.builder=parquet, webdataset, ...")
        if self.limit is not None and self.limit < 1:
            raise InvalidOption(f"task.source.limit must be at least 1 (null: all rows), got {self.limit}")
        if self.streaming and self.limit is None:
            raise InvalidOption(
                "task.source.streaming=true reads rows in their order, and a training shuffles them: set "
                "task.source.limit to how many rows are to be read and kept here"
            )

    def check_files(self) -> None:
        if self.folder is not None and not any(self.folder.iterdir()):
            raise InvalidData(str(self.folder), None, "the folder is empty", "correct task.source.path")

    def origin(self, split: str) -> str | None:
        """The data set with its commit on the hub; None for a folder, whose files a run records by content."""
        return f"{self.path}@{self._commit or 'unknown revision'}" if self.folder is None else None

    def read_table(self, split: str) -> Dataset:
        if split not in self.names:
            raise InvalidOption(f"there is no table for the split {split!r}; set task.source.splits.{split}=<its name>")
        official = self.names[split]
        options: dict[str, Any] = {
            "how": [*self.form.of(split).key, str(self.images), self.path, self._commit, self.subset, self.builder]
        }
        options |= {"split": official, "limit": self.limit, "files": sorted(self.files.items())}
        folders = [folder for folder in (self.folder,) if folder is not None]

        def read(row_errors: RowErrors) -> Dataset:
            return self._load(split, official, row_errors)

        if self.folder is None and self._commit is None:  # nothing tells whether kept rows are still those of the hub
            with web_pictures(self.allow_urls):
                return read(self.row_errors)
        return cached_rows(self, split, folders, options, self.row_errors, lambda _: {split: read})

    def _load(self, split: str, official: str, row_errors: RowErrors) -> Dataset:
        where = f"{self.path}, split {official}"
        with _one_sentence(where):
            fetched = self._tables(official)
            table = self._streamed(official, where) if fetched is None else self._fetched(where, fetched)
        form, image = self.form.of(split), self.form.columns.get("image", "image")
        used = _used(form, table.columns)

        def rows(policy: RowErrors) -> Iterator[Located]:
            """The records, with entries of objects under their dotted names."""
            for number, row_name, record in table.records(policy):
                yield number, row_name, record | {name: _entry(record, name) for name in used}

        def tables(policy: RowErrors) -> Iterable[Table]:
            images = self.images or self.folder or Path()
            yield Table(where, split, lambda: list(dict.fromkeys([*table.columns, *used])), rows(policy), images)

        illustrated = at_least_half(bool(_entry(record, image)) for record in table.first)
        return read_tables(tables, form, where, illustrated, row_errors)

    def _tables(self, official: str) -> Tables | None:
        """The files of a split that are read by our own readers; None where the library's read them."""
        if self._saved or (self.folder is None and self.streaming):
            return None
        splits = list(self._built.config.data_files or {})
        if splits and official not in splits:
            raise self._no_split(official, splits)
        return tables_of(self._built, official) if splits else None

    def _streamed(self, official: str, where: str) -> _Records:
        """The records of a split as the library streams them."""
        stream = self._stream(official)
        features, first = stream.features or Features(), list(stream.take(LOOKED_AT))
        # The library's stream of CSV or JSON files doesn't tell its columns.
        columns = list(features) or list(dict.fromkeys(name for record in first for name in record))
        plain = _PlainRecord(features, self.folder)
        return _Records(columns, first, lambda policy: _located(stream, plain, where, self.limit, policy))

    def _fetched(self, where: str, tables: Tables) -> _Records:
        """The records of a split's files, read by our own readers."""

        def located(policy: RowErrors) -> Iterator[tuple[str, dict[str, Any]]]:
            for file_number, file in enumerate(tables.files):
                for number, row_name, record in read_table(file, policy, tables.reader):
                    # A file that was fetched has a digest for a name.
                    yield row_name if self.folder else f"{where}, file {file_number}, row {number}", record

        def records(policy: RowErrors) -> Iterator[Located]:
            for number, (row_name, record) in enumerate(islice(located(policy), self.limit)):
                yield number, row_name, record

        columns = dict.fromkeys(name for file in tables.files for name in tables.columns(file))
        first = [record for _, record in islice(located(RowErrors("skip")), LOOKED_AT)]
        return _Records(list(columns), first, records)

    @cached_property
    def _commit(self) -> str | None:
        """The commit of a data set on the hub; None where it can't be known."""
        if self.folder is not None:
            return None
        return next((name for name in (self._built.hash, self.revision) if name and _COMMIT.fullmatch(name)), None)

    @cached_property
    def _built(self) -> datasets.DatasetBuilder:
        """The library's reader of the data set, which has read no row yet.

        Raises:
            InvalidData: no such data set, one with a script, or one of a builder that isn't trusted.
        """
        files = {split: str(Path(str(self.folder), glob)) for split, glob in self.files.items()}
        path: str = self.builder or str(self.folder or self.path)
        options: dict[str, Any] = {"data_files": files} if files else {"data_dir": str(self.folder)}
        options = options if self.builder else {}
        with _one_sentence(self.path):
            built = datasets.load_dataset_builder(path, self.subset, revision=self.revision, **options)
            if self.folder is None and self.streaming and (as_written := options_of_csv(built)):
                built = datasets.load_dataset_builder(
                    path, self.subset, revision=self.revision, **(options | as_written)
                )
        kind = type(built).__module__.removeprefix("datasets.packaged_modules.").partition(".")[0]
        if not type(built).__module__.startswith("datasets.packaged_modules.") or kind not in BUILDERS:
            problem = f"is read by the builder {kind!r}, and only {', '.join(BUILDERS)} are known to run nothing of it"
            raise InvalidData(self.path, None, problem, "convert it to parquet")
        return built

    def _stream(self, official: str) -> IterableDataset:
        """The rows of one split, in their order, with pictures as stored."""
        if self._saved:
            stored = datasets.load_from_disk(str(self.folder))
            splits = stored if isinstance(stored, dict) else {str(stored.split or "train"): stored}
        elif self.streaming or self.folder is not None:
            splits = self._built.as_streaming_dataset()
        else:
            self._built.download_and_prepare()
            splits = self._built.as_dataset()
        if official not in splits:
            raise self._no_split(official, splits)
        rows = splits[official]
        stream = rows.to_iterable_dataset() if isinstance(rows, Dataset) else rows
        for column, feature in (stream.features or {}).items():
            if isinstance(feature, NOT_READ):
                stream = stream.remove_columns(column)
            else:
                stream = stream.cast_column(column, _undecoded(feature))
        return stream

    @property
    def _saved(self) -> bool:
        """Whether the folder is of `save_to_disk`."""
        return self.folder is not None and any((self.folder / name).exists() for name in SAVED)

    def _no_split(self, official: str, names: Iterable[object]) -> InvalidData:
        problem = f"has no split {official!r}, only {', '.join(map(str, names))}"
        return InvalidData(self.path, None, problem, "set task.source.splits")


def _official_names(splits: dict[str, str], files: dict[str, str]) -> dict[str, str]:
    """Split -> its name in the data set; files are of the split that they are named for, unless `splits` takes them.

    Raises:
        InvalidOption: files that no split is of.
    """
    if not files:
        return splits or {"train": "train", "test": "test"}
    names = {name: name for name in files} | splits
    if unused := [name for name in files if name not in names.values()]:
        remedy = f"leave it out, or set task.source.splits.<split>={unused[0]}"
        raise InvalidOption(f"task.source.files.{unused[0]} is read by no split: {remedy}")
    return {split: name for split, name in names.items() if name in files}


def _undecoded(feature: Any) -> Any:
    """The feature with pictures as they are stored, also those in lists and objects."""
    if isinstance(feature, Image):
        return Image(decode=False)
    if isinstance(feature, dict):
        return {name: _undecoded(one) for name, one in feature.items()}
    if isinstance(feature, datasets.List | datasets.LargeList):
        return dataclasses.replace(feature, feature=_undecoded(feature.feature))
    return feature


def _located(
    stream: IterableDataset, plain: _PlainRecord, where: str, limit: int | None, policy: RowErrors
) -> Iterator[Located]:
    """The records with their places."""
    with _one_sentence(where):
        for number, record in enumerate(islice(stream, limit)):
            row_name = f"{where}, row {number}"
            with policy.row():
                yield number, row_name, plain(record, row_name)


def _used(form: Form, columns: list[str]) -> dict[str, str]:
    """Columns named with a dot whose first part is a column."""
    names = [form.columns.get(role, role) for role in ROLES]
    return {name: name for name in names if name not in columns and name.partition(".")[0] in columns}


class _PlainRecord:
    """Records with class labels as names, short floats as they were written, and pictures of archives as bytes."""

    def __init__(self, features: Features, folder: Path | None) -> None:
        self.folder = folder
        self.labels = {name: feature for name, feature in features.items() if isinstance(feature, ClassLabel)}
        kinds = {field.name: field.type for field in features.arrow_schema} if features else {}
        self.short = {name: kind for name, kind in kinds.items() if holds_short_floats(kind)}

    def __call__(self, record: dict[str, Any], where: str) -> dict[str, Any]:
        """The record.

        Raises:
            InvalidData: a class that the data set doesn't name, or a picture that can't be read.
        """
        return {name: self._value(name, value, where) for name, value in record.items()}

    def _value(self, name: str, value: Any, where: str) -> Any:
        if name in self.labels and isinstance(value, int):
            label = self.labels[name]
            if not -1 <= value < label.num_classes:
                raise InvalidData(where, name, f"{value} is none of its {label.num_classes} classes", "correct the row")
            return None if value == -1 else label.int2str(value)  # -1: has no label
        if name in self.short:
            return shortest(value, self.short[name])
        path = value.get("path") if isinstance(value, dict) and set(value) == {"bytes", "path"} else None
        if not isinstance(path, str) or value["bytes"] or "://" not in path or path.startswith(("http://", "https://")):
            return value
        return {"bytes": self._content(path, where, name), "path": None}

    def _content(self, path: str, where: str, name: str) -> bytes:
        """A picture that only the library can open: `zip://a.png::all.zip`, `hf://...`."""
        if not self._is_part(path):
            problem = f"the picture {short(path)} is no part of the data set"
            raise InvalidData(where, name, problem, "fetch it, and name the file here")
        from datasets.utils.file_utils import xopen

        try:
            with xopen(path, "rb") as file:
                content: bytes = file.read(MOST_BYTES + 1)
        except Exception as error:  # the library lets through those of its file systems
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InvalidData(where, name, f"{short(path)} can't be read ({reason})", "fetch it again") from error
        if len(content) > MOST_BYTES:
            raise InvalidData(where, name, f"{short(path)} has more than {MOST_BYTES >> 20} MB", "drop the row")
        return content

    def _is_part(self, path: str) -> bool:
        """Whether a picture lies in the data set's folder or on the hub, perhaps in archives."""
        *archives, last = path.split("::")
        if not all(archive.startswith(ARCHIVES) for archive in archives):
            return False
        if "://" in last:
            return last.startswith("hf://")
        folder = self.folder or Path(datasets.config.HF_CACHE_HOME)
        return Path(last).resolve().is_relative_to(folder.resolve())


def _entry(item: dict[str, Any], name: str) -> Any:
    """The value of a column, or of an entry of its objects; None where there is none."""
    if name in item:
        return item[name]
    value: Any = item
    for key in name.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


@contextmanager
def _one_sentence(where: str) -> Iterator[None]:
    """Turn whatever the library raises into one sentence.

    Raises:
        InvalidData: the data set can't be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ParserWarning)  # of CSV lines that are longer than the header
            yield
    except UserError:
        raise
    except Exception as error:  # the library lets through those of its file systems and formats
        reason = " ".join(str(error.__cause__ or error).split()) or type(error).__name__
        remedy = "correct task.source.path, subset or splits; a data set with a script has to be converted to parquet"
        raise InvalidData(where, None, f"`datasets` can't read it ({reason})", remedy) from error
