"""`ntil` as a user calls it: a process of its own in a folder, whose cache lies there too."""

import os
import subprocess
import sys
from pathlib import Path


def start(place: Path, *words: str, output: int | None = subprocess.PIPE, **environment: str) -> subprocess.Popen:
    """`environment` comes on top of our own."""
    added = {"NTIL_CACHE": str(place / "cache"), "WANDB_MODE": "offline", **environment}
    command = [sys.executable, "-m", "ntil.cli", *words]
    return subprocess.Popen(command, cwd=place, env={**os.environ, **added}, stdout=output, stderr=output, text=True)


def ntil(place: Path, *words: str, timeout: float = 400, **environment: str) -> subprocess.CompletedProcess:
    with start(place, *words, output=subprocess.PIPE, **environment) as child:
        try:
            out, err = child.communicate(timeout=timeout)
        except BaseException:
            child.kill()
            raise
    return subprocess.CompletedProcess(words, child.returncode, out, err)
