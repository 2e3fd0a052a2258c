"""Fingerprints of a run's splits, so that no run silently resumes on other data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from datasets import Dataset

from data.common.counts import counted
from data.common.files import write_text
from data.common.rows import image_columns, sample_rows
from ntil.config.errors import ConfigError
from ntil.runs.folder import read_json

_COMPUTED: WeakKeyDictionary[Dataset, str] = WeakKeyDictionary()


def fingerprint(rows: Dataset) -> str:
    """Hash, 12 hex digits, of the columns, the count, every value, and the pictures of 64 rows spread over the split.

    Of a picture in a file its path is hashed, not the content.
    """
    if rows not in _COMPUTED:
        _COMPUTED[rows] = _fingerprint(rows)
    return _COMPUTED[rows]


def _fingerprint(rows: Dataset) -> str:
    digest = hashlib.sha256(f"{len(rows)} {sorted(rows.features.items(), key=lambda item: item[0])}".encode())
    pictures = image_columns(rows)
    values = rows.remove_columns(pictures)
    if values.column_names:
        values = values.select_columns(sorted(values.column_names)).with_format("arrow")
        for batch in values.iter(batch_size=1000):
            digest.update(_json(batch.to_pydict()))
    if pictures:
        for row in sample_rows(rows.select_columns(sorted(pictures))):
            digest.update(_json(row))
    return digest.hexdigest()[:12]


def check_data(
    file: Path,
    splits: Mapping[str, Dataset],
    resuming: bool,
    accept: bool,
    origins: Mapping[str, str | None] | None = None,
) -> None:
    """Write the splits' fingerprints to `file`; when resuming, compare them with those of the run's start first.

    A resumed run may check some of the splits; the record of the others stays.

    Args:
        origins: split -> where it comes from and in which revision, as far as its source knows; recorded, too.

    Raises:
        ConfigError: a run with a checkpoint would go on with other data, and `accept_changes` is not set.
    """
    now: dict[str, dict[str, Any]] = {
        name: {"rows": len(rows), "fingerprint": fingerprint(rows)} for name, rows in splits.items()
    }
    for name, origin in (origins or {}).items():
        if origin is not None and name in now:
            now[name]["origin"] = origin
    before = recorded(file) if resuming else {}
    for name in now.keys() & before.keys() if not accept else ():
        was, split = before[name], now[name]
        if (was["rows"], was["fingerprint"]) != (split["rows"], split["fingerprint"]):
            raise ConfigError(
                f"{file.parent}: the {name} split has changed since the checkpoint ({counted(was['rows'], 'row')} "
                f"{_named(was)}, now {counted(split['rows'], 'row')} {_named(split)}); "
                "set accept_changes=true to go on with it, or remove the folder to start again"
            )
    write_text(file, json.dumps({**before, **now}))


def recorded(file: Path) -> dict[str, dict[str, Any]]:
    """Map a split to its `rows` and `fingerprint` in `file`.

    Fingerprints of earlier versions, over 64 rows, can't be compared and are left out.
    """
    stored = read_json(file)
    return {name: split for name, split in stored.items() if isinstance(split, dict)}


def described(file: Path) -> str:
    """Text that describes the train split recorded in `file`."""
    stored = read_json(file)
    train = stored.get("train")
    if isinstance(train, str):  # as early runs of format 1 have it
        return f"{counted(stored['rows'], 'row', form=',')}, fingerprint {train} (of 64 of them)"
    return f"{counted(train['rows'], 'row', form=',')}, fingerprint {_named(train)}" if train else "not recorded"


def _named(split: Mapping[str, Any]) -> str:
    """A recorded fingerprint, with where its rows come from."""
    return f"{split['fingerprint']} of {split['origin']}" if "origin" in split else str(split["fingerprint"])


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=_bytes).encode()


def _bytes(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
