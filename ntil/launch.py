"""From a composed config to a child process: Hydra's multirun shares one process, so each of our jobs gets its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from ntil.config import check_keys, locate, run_folder, typed
from ntil.interrupt import Interrupt
from ntil.runs import RunFolder


class Sweep:
    """The runs of one call of `ntil train`, one after the other; what failed is kept for the end.

    `refused` counts the jobs whose config can't be run at all.
    """

    def __init__(self) -> None:
        self.done: list[Path] = []
        self.failed: list[tuple[Path, str]] = []
        self.refused = 0

    def run(self, config: dict[str, Any]) -> None:
        """Check, freeze and run one job; skip it when its metrics are there.

        Raises:
            ConfigError: the config can't be run.
            KeyboardInterrupt: the job was interrupted and can be resumed.
        """
        check(config)
        folder = RunFolder(run_folder(config))
        if folder.done:
            print(f"{folder.path}: done before, skipped", flush=True)
            self.done.append(folder.path)
            return
        folder.freeze(config)
        code = spawn(folder.path)
        if code == Interrupt.EXIT_CODE:
            raise KeyboardInterrupt
        if code == 0 and folder.done:
            self.done.append(folder.path)
            return
        self.failed.append((folder.path, last_error(folder, code)))
        print(f"{folder.path}: FAILED: {self.failed[-1][1]}", file=sys.stderr, flush=True)


def check(config: dict[str, Any]) -> None:
    """All that can be known to be wrong without building anything.

    Raises:
        ConfigError: named key, and the remedy.
    """
    run = typed(config)
    given = {"model": (), "task": ("coords",), "loss": ("vocab",)}
    for group, names in given.items():
        check_keys(group, config[group], names)
    from ntil.tuning import check as check_tuning

    check_tuning(run.tuning, locate(config["model"]["target"]))


def spawn(folder: Path) -> int:
    """Run the worker on a folder, in a session of its own so that an interrupt reaches it exactly once, from here."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "ntil.worker", str(folder)]
    child = subprocess.Popen(command, env={**os.environ, **ranks}, start_new_session=True)

    def forward(number: int, frame: Any) -> None:
        child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def last_error(folder: RunFolder, code: int) -> str:
    """The last line of the traceback, or how the process ended."""
    if folder.error.exists():
        return folder.error.read_text().strip().splitlines()[-1]
    return f"killed by signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
