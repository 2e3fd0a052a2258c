"""Jobs of one `ntil train`, each in its own processes; Hydra's multirun would run all in one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from data.common.files import write_text
from ntil import preflight
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.distributed.interrupt import Interrupt
from ntil.launch.prepared import Prepared
from ntil.launch.processes import spawn
from ntil.runs.checkpoints import check_resumable, complete_checkpoints, remove_leftovers
from ntil.runs.code import changed_code, check_classes
from ntil.runs.folder import RunFolder, folder_of, read_json
from ntil.runs.inputs import changed_inputs
from ntil.runs.lock import Busy, locked
from ntil.train.worker import USER_ERROR


class Sweep:
    """Runs of one call of `ntil train`, one after the other; failures are collected for the end.

    `refused` counts the jobs whose config can't be run at all; `busy` those that another process is running.
    """

    def __init__(self) -> None:
        self.done: list[Path] = []
        self.failed: list[tuple[Path, str]] = []
        self.refused = 0
        self.busy = 0
        self._process = os.getpid()
        self._prepared = Prepared()
        self._started = 0
        self._elsewhere = Path.cwd() / f".ntil-sweep-{socket.gethostname()}-{self._process}"

    def run(self, config: RunConfig) -> None:
        """Check, freeze and run one job; skip it if it is done, failed before, or is running in another process.

        Raises:
            UserError: the config can't be run.
            KeyboardInterrupt: the job was interrupted and can be resumed.
        """
        preflight.check(config)
        folder = folder_of(config)
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder.path) as lock:
                self._run(config, folder, lock)
        except Busy as busy:
            print(f"{folder.path}: {busy} is running it, skipped", flush=True)
            self.busy += 1

    def _run(self, config: RunConfig, folder: RunFolder, lock: int) -> None:
        if _begun(folder):
            check_classes(folder.config_file, config)
        if folder.done:
            print(f"{folder.path}: done before, skipped{_changes_since(folder, config)}", flush=True)
            # A run that was to keep its checkpoints does so whatever this command says.
            frozen = folder.config() if folder.config_file.exists() else config
            remove_leftovers(folder, frozen if frozen.keep_checkpoints_when_done else config)
            self._note(folder.path)
            return
        if folder.error.exists() and not config.retry:
            reason = folder.last_error()
            hint = f"{folder.path}: failed before, skipped (retry=true runs it again): {reason}"
            print(hint, file=sys.stderr, flush=True)
            self._note(folder.path, reason)
            return
        check_resumable(folder.checkpoints, config.engine, preflight.rank_count(config.engine))
        folder.freeze(config)
        for remark in preflight.remarks(config):
            print(f"{folder.path}: {remark}", file=sys.stderr, flush=True)
        # A single run would wait as long for the process to fork from as for its own imports.
        code = spawn(folder, config, lock, prepared=self._prepared if self._started else None)
        self._started += 1
        if code == Interrupt.EXIT_CODE:
            if folder.error.exists():
                print(f"{folder.path}: what was trained could not be saved", file=sys.stderr)
                print(folder.error.read_text().rstrip(), file=sys.stderr, flush=True)
                folder.error.unlink()  # the same command goes on from what was saved before
            raise KeyboardInterrupt
        if code == 0 and folder.done:
            self._note(folder.path)
            return
        print(f"{folder.path}: FAILED", file=sys.stderr)
        if folder.error.exists():
            # One sentence is enough for an error that the user can fix.
            text = folder.last_error() if code == USER_ERROR else folder.error.read_text().rstrip()
            print(text, file=sys.stderr, flush=True)
        self._note(folder.path, folder.last_error())

    def collect(self) -> None:
        """Collect the results that jobs in other processes (on a cluster) have written."""
        for file in sorted(self._elsewhere.glob("*.json")):
            folder, error = json.loads(file.read_text())
            self._note(Path(folder), error)
        shutil.rmtree(self._elsewhere, ignore_errors=True)

    def _note(self, folder: Path, error: str | None = None) -> None:
        if os.getpid() != self._process:
            # A launcher such as submitit's has sent a copy of this object to another process.
            self._elsewhere.mkdir(exist_ok=True)
            write_text(self._elsewhere / f"{time.time_ns()}-{os.getpid()}.json", json.dumps([str(folder), error]))
        elif error is None:
            self.done.append(folder)
        else:
            self.failed.append((folder, error))


def _begun(folder: RunFolder) -> bool:
    """Whether the folder holds results, or weights that a training goes on from."""
    return folder.done or folder.trained.exists() or bool(complete_checkpoints(folder.checkpoints))


def _changes_since(folder: RunFolder, config: RunConfig) -> str:
    """Remark on a finished run of a version that recorded no contents, whose files were written since.

    Raises:
        ConfigError: the run was made from other contents, so its results are not this command's.
    """
    recorded = read_json(folder.inputs)
    changed = [*(changed_inputs(recorded, config) if recorded else ()), *changed_code(read_json(folder.code))]
    if changed and not config.accept_changes:
        raise ConfigError(
            f"{folder.path}: done before, with other content: {', '.join(changed)} changed since: remove the folder to "
            "run it again, set another name= or runs= to keep both, or accept_changes=true to take its results"
        )
    changed = [] if recorded else [*map(str, edited(config.task.to_dict(), folder.metrics.stat().st_mtime))]
    return f"; {', '.join(changed)} changed since: remove the folder to run it again" if changed else ""


def edited(part: Any, since: float) -> list[Path]:
    """Files that values of a config name, by path or glob, and that were written after `since` (Unix time)."""
    if isinstance(part, dict | list):
        inner = part.values() if isinstance(part, dict) else part
        return sorted({file for value in inner for file in edited(value, since)})
    try:
        path = Path(part).expanduser() if isinstance(part, str) else None
        # A table has a suffix; the "*" among the operations of arithmetic is no glob.
        files = path.parent.glob(path.name) if path and (path.suffix or path.is_file()) else ()
        return [file for file in files if file.is_file() and file.stat().st_mtime > since]
    except (OSError, ValueError, RuntimeError):
        return []  # a text that can't be a path
