"""CSV and JSON files of data sets of the `datasets` library, read by `data.common.table_files`.

The library's own readers guess a type for each column: they would teach 3 as 3.0 beside 2.5, 007 as 7, a date as a
moment, round long numbers, and shift the columns of a CSV file whose lines end in a separator. Here cells stay as they
were written, and a line that doesn't fit its header is refused, as for a user's own table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
from datasets.packaged_modules.csv.csv import CsvConfig
from datasets.packaged_modules.json.json import JsonConfig

from data.common.table_files import READERS, Reader, separated

# Of a reader's config, what says which files and not how they are read, and what speed alone depends on.
_FREE = {"name", "version", "data_dir", "data_files", "description", "sep", "delimiter", "chunksize", "block_size"}


def reader_of(built: datasets.DatasetBuilder) -> Reader | None:
    """What reads its files; None for other files, with types that the data set states, or with options of its own."""
    config = built.config
    if not isinstance(config, CsvConfig | JsonConfig) or built.info.features is not None:
        return None
    options = [f.name for f in dataclasses.fields(config) if f.name not in _FREE]
    if any(getattr(config, name) != getattr(type(config)(), name) for name in options):
        return None
    if isinstance(config, JsonConfig):
        return READERS[".json"]
    separator = config.delimiter or config.sep
    return separated(separator) if len(separator) == 1 else None


def fetched_files(built: datasets.DatasetBuilder, split: str) -> Iterator[Path]:
    """The files of a split on this machine: fetched from the hub where they aren't, and unpacked."""
    manager = datasets.DownloadManager(
        dataset_name=built.dataset_name,
        data_dir=built.config.data_dir,
        download_config=datasets.DownloadConfig(cache_dir=built._cache_downloaded_dir, token=built.token),
    )
    fetched = manager.download_and_extract([str(file) for file in (built.config.data_files or {})[split]])
    yield from (Path(file) for file in manager.iter_files(fetched))


def options_of_csv(built: datasets.DatasetBuilder) -> dict[str, Any]:
    """What makes the library's own reader of CSV files give cells as they are written, and none as a row's name.

    For a stream, whose files are not fetched; empty for other files, and where the data set states types.
    """
    if not isinstance(built.config, CsvConfig) or built.info.features is not None:
        return {}
    splits = built.as_streaming_dataset()  # of which some may have columns that others lack
    names = dict.fromkeys(name for rows in splits.values() for name in next(iter(rows.take(1)), {}))
    return {"converters": dict.fromkeys(names, str), "keep_default_na": False, "index_col": False}
