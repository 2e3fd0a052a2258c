"""What the splits of a run hold, as short texts: so that no run is resumed on other data without anybody noticing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset

from ntil.config import ConfigError
from ntil.runs import write
from ntil.spread import pictures, spread


def fingerprint(rows: Dataset) -> str:
    """Twelve hex digits over the columns, the count, every value, and the pictures of 64 rows spread over the split.

    Of a picture that lies in a file, its path.
    """
    digest = hashlib.sha256(f"{len(rows)} {sorted(rows.features.items(), key=lambda item: item[0])}".encode())
    seen = pictures(rows)
    values = rows.remove_columns(seen)
    if values.column_names:
        values = values.select_columns(sorted(values.column_names)).with_format("arrow")
        for batch in values.iter(batch_size=1000):
            digest.update(_json(batch.to_pydict()))
    if seen:
        for row in spread(rows.select_columns(sorted(seen))):
            digest.update(_json(row))
    return digest.hexdigest()[:12]


def check_data(file: Path, splits: Mapping[str, Dataset], resuming: bool, accept: bool) -> None:
    """Keep what the splits are in `file`, or compare with what they were when the run began.

    Raises:
        ConfigError: a run with a checkpoint would go on with other data, and `accept_changes` is not set.
    """
    now = {name: {"rows": len(rows), "fingerprint": fingerprint(rows)} for name, rows in splits.items()}
    before = recorded(file) if resuming and not accept else {}
    for name in now.keys() & before.keys():
        was, own = before[name], now[name]
        if was != own:
            raise ConfigError(
                f"{file.parent}: the {name} split has changed since the checkpoint ({was['rows']} rows "
                f"{was['fingerprint']}, now {own['rows']} rows {own['fingerprint']}); set accept_changes=true to go on "
                "with it, or remove the folder to start again"
            )
    write(file, json.dumps(now))


def recorded(file: Path) -> dict[str, dict[str, Any]]:
    """Split -> its `rows` and `fingerprint` as kept in `file`. Earlier versions took fingerprints of 64 rows: those say
    nothing that could be compared, so there is none."""
    kept = json.loads(file.read_text()) if file.exists() else {}
    return {name: split for name, split in kept.items() if isinstance(split, dict)}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, default=_bytes).encode()


def _bytes(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
