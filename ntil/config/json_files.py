"""JSON objects in files that others may have written: read, or refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data.common.files import check_size_on_disk
from ntil.config.errors import ConfigError

JSON_BYTES = 64 << 20  # of a run folder's .json files; the largest seen is digits.json with some kilobytes


def read_json(file: Path) -> dict[str, Any]:
    """Read the object in a .json file; empty if there is no file.

    Raises:
        InvalidData: too large.
        ConfigError: no JSON object.
    """
    if not file.exists():
        return {}
    check_size_on_disk(file, JSON_BYTES)
    try:
        value = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: no JSON ({error}); the file is damaged") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{file}: holds {type(value).__name__} where an object belongs; the file is damaged")
    return value


def read_text(file: Path) -> str:
    """Read a file as UTF-8.

    Raises:
        ConfigError: it is none.
    """
    try:
        return file.read_text()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: no UTF-8 ({error.reason}); the file is damaged") from error
