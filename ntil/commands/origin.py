"""The origin of an exported folder: its run and the files exported, so that no run's weights go by another's name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ntil.config.errors import ConfigError
from ntil.config.identity import run_path
from ntil.runs.folder import RunFolder, read_json
from ntil.runs.inputs import contents

FILE = "ntil_export.json"


def origin(folder: RunFolder, merge: bool) -> dict[str, Any]:
    """What an export of the run records: the run below its folder of runs, and the SHA-256 of its files."""
    model = contents(folder.model)
    merges = merge and "adapter_config.json" in model
    return {"run": _name(folder), "merged": merges, "model": model}


def write_origin(folder: RunFolder, target: Path, merge: bool) -> None:
    """Write the origin into the folder of an export."""
    (target / FILE).write_text(json.dumps(origin(folder, merge), indent=1))


def check_origin(folder: RunFolder, target: Path, merge: bool, pushes: bool) -> None:
    """Check that a folder that is there already is an export of this run, with its present weights.

    Args:
        pushes: whether it is to be sent. Exports of versions that recorded nothing are left, but not sent.

    Raises:
        ConfigError: it is of another run, or nothing says that it is of this one.
    """
    recorded = read_json(target / FILE)
    if not recorded and not pushes:
        return
    problem = _difference(recorded, origin(folder, merge)) if recorded else f"has no {FILE} to say what it is"
    if problem:
        raise ConfigError(
            f"{target}: exists and {problem}, so it is not taken for {_name(folder)}; name a new folder in to=, or "
            "remove this one to export it again"
        )


def _difference(recorded: dict[str, Any], now: dict[str, Any]) -> str:
    if recorded.get("run") != now["run"]:
        return f"is of the run {recorded.get('run')}"
    if recorded.get("merged") != now["merged"]:
        return f"was exported with merge={str(not now['merged']).lower()}"
    return "" if recorded.get("model") == now["model"] else "has weights of an earlier training of the run"


def _name(folder: RunFolder) -> str:
    return run_path(replace(folder.config(), runs=".")).as_posix()
