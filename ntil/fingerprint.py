"""What a split of a task holds, as a short text: so that no run is resumed on other data without anybody noticing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, Sequence

from ntil.config import ConfigError
from ntil.runs import write

SAMPLED = 64


def fingerprint(rows: Dataset) -> str:
    """Twelve hex digits over the columns, the count and the content of 64 rows spread over the split."""
    digest = hashlib.sha256(f"{len(rows)} {sorted(rows.features.items(), key=lambda item: item[0])}".encode())
    raw = rows
    for name, feature in rows.features.items():
        if isinstance(feature, Image):
            raw = raw.cast_column(name, Image(decode=False))
        elif isinstance(feature, Sequence) and isinstance(feature.feature, Image):
            raw = raw.cast_column(name, Sequence(Image(decode=False)))
    for place in range(min(SAMPLED, len(rows))):
        row = raw[place * len(rows) // min(SAMPLED, len(rows))]
        digest.update(json.dumps(row, sort_keys=True, default=_bytes).encode())
    return digest.hexdigest()[:12]


def check_data(file: Path, rows: Dataset, resuming: bool, accept: bool) -> None:
    """Keep what the train split is in `file`, or compare with what it was when the run began.

    Raises:
        ConfigError: a run with a checkpoint would go on with other data, and `accept_changes` is not set.
    """
    now = {"train": fingerprint(rows), "rows": len(rows)}
    if file.exists() and resuming and not accept:
        before = json.loads(file.read_text())
        if before != now:
            raise ConfigError(
                f"{file.parent}: the train split has changed since the checkpoint ({before['rows']} rows "
                f"{before['train']}, now {now['rows']} rows {now['train']}); set accept_changes=true to go on with it, "
                "or remove the folder to start again"
            )
    write(file, json.dumps(now))


def _bytes(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else str(value)
