"""Build a dataset once, keep it on disk under a key of everything it depends on."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets import Dataset, are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, load_from_disk


def cache_folder() -> Path:
    """`$NTIL_CACHE`, else `~/.cache/ntil`."""
    return Path(os.environ.get("NTIL_CACHE", Path.home() / ".cache" / "ntil")).expanduser()


def cached_dataset(name: str, key: dict[str, Any], sources: list[Path], build: Callable[[], Dataset]) -> Dataset:
    """`build()`, or what an earlier call with the same key stored.

    The key includes the text of `sources`, so that editing a renderer never serves stale pictures. The folder appears
    by one rename: a killed build leaves nothing that looks finished, and two builders at once both end well.
    """
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode())
    for source in sources:
        digest.update(source.read_bytes())
    folder = cache_folder() / "datasets" / f"{name}-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            built = build()
            hidden = are_progress_bars_disabled()
            disable_progress_bars()
            built.save_to_disk(partial)
            if not hidden:
                enable_progress_bars()
            os.rename(partial, folder)
        except OSError:
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return load_from_disk(str(folder))
