"""Software and hardware that a result may depend on."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ntil.runs.variables import removed_variables

_GIT = 30  # seconds that git gets on a slow file system


def environment() -> dict[str, Any]:
    """Commit, Python, platform, CPUs, the versions of all packages, and the variables that were left out."""
    # Of a package that is there twice the first is imported, so the first stays.
    versions = {d.metadata["Name"]: d.version for d in reversed([*distributions()]) if d.metadata["Name"]}
    return {
        "commit": commit(),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "removed_variables": removed_variables(),
        "packages": dict(sorted(versions.items(), key=lambda item: item[0].lower())),
    }


def commit() -> str | None:
    """The commit of the checkout that this code runs from, `-dirty` where files differ from it; None without one."""
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--match", "", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_GIT).stdout.strip() or None
    except subprocess.TimeoutExpired:
        return None
