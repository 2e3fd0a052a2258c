"""Which checkpoints of a run are whole, what wrote them, and whether a run can go on from them.

Imports nothing heavy: `ntil train` asks before it starts anything.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from ntil.config import ConfigError, EngineConfig

COMPLETE = "COMPLETE"


def read_mark(checkpoint: Path) -> dict[str, Any]:
    """What stands in the mark of a complete checkpoint: its step, score, and the engine that wrote it."""
    return json.loads((checkpoint / COMPLETE).read_text() or "{}")


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first; what a kill left half-written isn't among them."""
    found = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE).exists()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)


def remove_checkpoint(folder: Path) -> None:
    """The mark goes first: a kill in between must not leave a folder that looks complete."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_incomplete(folder: Path) -> None:
    """What a kill left half-written would mix with the files of the next save of the same step."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            remove_checkpoint(path)


def check_resumable(folder: Path, engine: EngineConfig, ranks: int) -> None:
    """
    Raises:
        ConfigError: the newest checkpoint is cut for another number of ranks.
    """
    for checkpoint in complete_checkpoints(folder)[:1]:
        wrote = read_mark(checkpoint).get("ranks", ranks)
        # Without DeepSpeed every rank holds all that a checkpoint needs.
        if engine.zero is not None and wrote != ranks:
            raise ConfigError(
                f"{checkpoint} holds ZeRO's shares of {wrote} rank(s) and can't go on with {ranks}; go on with "
                f"{wrote}, or remove {folder} to start anew"
            )
