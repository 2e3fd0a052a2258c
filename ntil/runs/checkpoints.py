"""Checkpoints of a run: which are complete, what wrote them, and whether a run can resume from them.

Imports neither torch nor transformers, since `ntil train` checks before it starts a process.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from ntil.config.errors import ConfigError
from ntil.config.json_files import read_json
from ntil.config.schema import EngineConfig, RunConfig
from ntil.runs.folder import RunFolder

COMPLETE = "COMPLETE"


def read_mark(checkpoint: Path) -> dict[str, Any]:
    """Read the mark of a complete checkpoint: its step, score, and the engine that wrote it; an empty one says nothing.

    Raises:
        ConfigError: no JSON object.
    """
    mark = checkpoint / COMPLETE
    return read_json(mark) if mark.stat().st_size else {}


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first, without those that a kill left half-written."""
    complete = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE).exists()]
    return sorted(complete, key=step_of, reverse=True)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was saved."""
    return int(checkpoint.name.rpartition("-")[2])


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint, its mark first, so that a kill in between leaves no folder that looks complete."""
    (folder / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def remove_leftovers(folder: RunFolder, config: RunConfig) -> None:
    """Remove what a finished run needs no more: its best weights, which are saved, and checkpoints that aren't to stay.

    Also of a process that was killed as it removed them, by the same command's next call.
    """
    shutil.rmtree(folder.best, ignore_errors=True)
    if not config.keep_checkpoints_when_done:
        shutil.rmtree(folder.checkpoints, ignore_errors=True)


def flush_to_disk(folder: Path) -> None:
    """Have all files of a folder, and the folder, on the disk and not only in the system's memory."""
    for file in (*(f for f in folder.rglob("*") if f.is_file()), folder):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_incomplete(folder: Path) -> None:
    """Remove half-written checkpoints, whose files would mix with those of the next save of the same step."""
    for path in folder.glob("checkpoint-*"):
        if not (path / COMPLETE).exists():
            remove_checkpoint(path)


def check_resumable(folder: Path, engine: EngineConfig, ranks: int) -> None:
    """Check that the newest checkpoint can be resumed from by so many ranks.

    Raises:
        ConfigError: it is partitioned for another number of ranks.
    """
    for checkpoint in complete_checkpoints(folder)[:1]:
        wrote = read_mark(checkpoint).get("ranks", ranks)
        # Without DeepSpeed every rank holds all that a checkpoint needs.
        if engine.zero_stage is not None and wrote != ranks:
            raise ConfigError(
                f"{checkpoint} holds ZeRO's shares of {wrote} rank(s) and can't go on with {ranks}; go on with "
                f"{wrote}, or remove {folder} to start anew"
            )
