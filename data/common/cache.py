"""Disk cache of built datasets, under a key of everything that they depend on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
from datasets import (
    Dataset,
    Features,
    are_progress_bars_disabled,
    disable_progress_bars,
    enable_progress_bars,
    load_from_disk,
)

from data.common.cores import usable_cores
from data.common.files import replacing

log = logging.getLogger(__name__)
ROWS_A_PROCESS = 1000  # at least; a process takes as long to start as dozens of rows to draw


def cache_folder() -> Path:
    """Folder of all caches: `$NTIL_CACHE`, else `~/.cache/ntil`."""
    return Path(os.environ.get("NTIL_CACHE", Path.home() / ".cache" / "ntil")).expanduser()


def cached_dataset(name: str, key: dict[str, Any], sources: list[Path], build: Callable[[], Dataset]) -> Dataset:
    """Return `build()`, or what an earlier call with the same key stored.

    The key includes the text of `sources`, so that editing a renderer never serves stale pictures. The folder appears
    by one rename: a killed build leaves nothing that looks finished, and concurrent builds don't disturb each other.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = cache_folder() / "datasets" / f"{name}-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        try:
            return load_from_disk(str(folder))
        except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
            log.warning("%s: damaged, made anew (%s)", folder, error)
            shutil.rmtree(folder)
    with replacing(folder) as partial, _hidden_progress_bars(build()) as rows:
        rows.save_to_disk(partial)
    return load_from_disk(str(folder))


def drawn_rows(draw: Callable[..., dict[str, Any]], rows: int, features: Features, title: str) -> Dataset:
    """Rows that `draw` makes of `{"index": i}`; many are drawn by several processes, up to one a core of this one."""
    index = Dataset.from_dict({"index": list(range(rows))})
    processes = min(usable_cores(), rows // ROWS_A_PROCESS)
    return index.map(
        draw, remove_columns=["index"], features=features, num_proc=processes if processes > 1 else None, desc=title
    )


@contextmanager
def _hidden_progress_bars(rows: Dataset) -> Iterator[Dataset]:
    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield rows
    finally:
        if not hidden:
            enable_progress_bars()
