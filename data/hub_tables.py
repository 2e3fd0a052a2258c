"""CSV and JSON files, tars, and pictures' metadata of data sets of the `datasets` library, read by our own readers.

The library's own readers guess a type for each column: they would teach 3 as 3.0 beside 2.5, 007 as 7, a date as a
moment, round long numbers, and shift the columns of a CSV file whose lines end in a separator. Here cells stay as they
were written, and a line that doesn't fit its header is refused, as for a user's own table. So they do in the JSON of
tars (`data.common.tar_files`), and in `metadata.csv` and `metadata.jsonl` beside pictures.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from datasets.packaged_modules.csv.csv import CsvConfig
from datasets.packaged_modules.imagefolder.imagefolder import ImageFolder
from datasets.packaged_modules.json.json import JsonConfig
from datasets.packaged_modules.webdataset.webdataset import WebDataset

from data.common import fields
from data.common.errors import InvalidData, RowErrors, short
from data.common.table_files import READERS, Located, Reader, columns, separated
from data.common.tar_files import read_tar, tar_columns

# Of a reader's config, what says which files and not how they are read, and what speed alone depends on.
_FREE = {"name", "version", "data_dir", "data_files", "description", "sep", "delimiter", "chunksize", "block_size"}
METADATA = ("metadata.csv", "metadata.jsonl")
_OF_PICTURES = ("_file_name", "file_names", "_file_names")


class Tables(NamedTuple):
    """The files of a split on this machine, how their rows are read, and the columns of each."""

    files: list[Path]
    reader: Reader
    columns: Callable[[Path], Iterable[str]]


def tables_of(built: datasets.DatasetBuilder, split: str) -> Tables | None:
    """The tables of a split; None for files of other kinds, with types that the data set states, or with own options.

    They are fetched from the hub where they aren't here, and unpacked, unless they are tars.
    """
    if built.info.features is not None:
        return None
    if isinstance(built, WebDataset):
        return Tables(list(_fetched(built, split).values()), read_tar, tar_columns)
    if isinstance(built, ImageFolder):
        return _picture_tables(built, split)
    if (reader := _reader(built.config)) is None:
        return None
    fetched = _manager(built).download_and_extract(_names(built, split))
    files = [Path(file) for file in _manager(built).iter_files(fetched)]
    return Tables(files, reader, lambda file: columns(file, RowErrors("skip"), reader))


def _reader(config: datasets.BuilderConfig) -> Reader | None:
    """What reads the files of CSV or JSON; None for others, or with options of their own."""
    if not isinstance(config, CsvConfig | JsonConfig) or not _is_default(config):
        return None
    if isinstance(config, JsonConfig):
        return READERS[".json"]
    separator = config.delimiter or config.sep
    return separated(separator) if len(separator) == 1 else None


def _is_default(config: datasets.BuilderConfig) -> bool:
    options = [f.name for f in dataclasses.fields(config) if f.name not in _FREE]
    return all(getattr(config, name) == getattr(type(config)(), name) for name in options)


def _picture_tables(built: datasets.DatasetBuilder, split: str) -> Tables | None:
    """The metadata files of a split of pictures, in CSV or JSON; None where there are none, or archives."""
    names = [Path(name) for name in _names(built, split)]
    if not _is_default(built.config) or any(name.suffix.lower() == ".zip" for name in names):
        return None
    if not {name.name for name in names} & set(METADATA) or any(name.name == "metadata.parquet" for name in names):
        return None
    fetched = _fetched(built, split)
    originals = {file: name for name, file in fetched.items() if posixpath.basename(name) in METADATA}
    others = {name for other in built.config.data_files for name in _names(built, other)} - set(fetched)

    def read(path: Path, row_errors: RowErrors) -> Iterator[Located]:
        original = originals[path]
        for number, where, row in READERS[posixpath.splitext(original)[1]](path, row_errors):
            with row_errors.row():
                joined = _joined(row, posixpath.dirname(original), fetched, others, where)
                if joined is not None:
                    yield number, where, joined

    def names_of(path: Path) -> list[str]:
        return list(dict.fromkeys(name for _, _, row in read(path, RowErrors("skip")) for name in row))

    return Tables(list(originals), read, names_of)


def _joined(
    row: dict[str, Any], folder: str, pictures: dict[str, Path], others: set[str], where: str
) -> dict[str, Any] | None:
    """A row of metadata with pictures in place of their names; None for one whose picture is of another split.

    Raises:
        InvalidData: a name of no picture of the data set.
    """
    if "file_name" not in row and not any(name.endswith(_OF_PICTURES) for name in row):
        problem = f"there is no such column; found {', '.join(row)}"
        raise InvalidData(where, "file_name", problem, "name the pictures in a column file_name")
    joined: dict[str, Any] = {}
    for column, value in row.items():
        if column != "file_name" and not column.endswith(_OF_PICTURES):
            joined[column] = value
            continue
        several = column.endswith("file_names")
        listed = fields.items(fields.unpacked(value, where, column), where, column) if several else [value]
        paths = [posixpath.normpath(posixpath.join(folder, fields.text(one, where, column))) for one in listed]
        if any(path in others for path in paths):
            return None
        if strange := [one for one, path in zip(listed, paths, strict=True) if path not in pictures]:
            remedy = "give its path from the metadata file"
            raise InvalidData(where, column, f"{short(strange[0])} is no picture of the data set", remedy)
        values = [{"path": str(pictures[path]), "bytes": None} for path in paths]
        name = column.removesuffix("file_names" if several else "file_name").removesuffix("_")
        joined[name or ("images" if several else "image")] = values if several else values[0]
    return joined


def _names(built: datasets.DatasetBuilder, split: str) -> list[str]:
    return [str(file) for file in (built.config.data_files or {})[split]]


def _fetched(built: datasets.DatasetBuilder, split: str) -> dict[str, Path]:
    """Where the files of a split are on this machine, as they are: not unpacked."""
    names = _names(built, split)
    return dict(zip(names, map(Path, _manager(built).download(names)), strict=True))


def _manager(built: datasets.DatasetBuilder) -> datasets.DownloadManager:
    return datasets.DownloadManager(
        dataset_name=built.dataset_name,
        data_dir=built.config.data_dir,
        download_config=datasets.DownloadConfig(cache_dir=built._cache_downloaded_dir, token=built.token),
    )


def options_of_csv(built: datasets.DatasetBuilder) -> dict[str, Any]:
    """What makes the library's own reader of CSV files give cells as they are written, and none as a row's name.

    For a stream, whose files are not fetched; empty for other files, and where the data set states types.
    """
    if not isinstance(built.config, CsvConfig) or built.info.features is not None:
        return {}
    splits = built.as_streaming_dataset()  # of which some may have columns that others lack
    names = dict.fromkeys(name for rows in splits.values() for name in next(iter(rows.take(1)), {}))
    return {"converters": dict.fromkeys(names, str), "keep_default_na": False, "index_col": False}
