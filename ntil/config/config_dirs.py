"""`--config-dir <folder>` of every command: plug-ins of this call and of the processes that it starts."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

OPTION = "--config-dir"
CONFIG_PATH = "NTIL_CONFIG_PATH"


def split_config_dirs(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without `--config-dir <folder>` or `--config-dir=<folder>`, and the folders.

    A folder is "" where none follows the option.
    """
    others, folders, pending = [], [], iter(arguments)
    for word in pending:
        option, equals, folder = word.partition("=")
        if option == OPTION:
            folders.append(folder if equals else next(pending, ""))
        else:
            others.append(word)
    return others, folders


def problem(folders: Sequence[str]) -> str | None:
    """One sentence where a folder can't be one of configs; None where nothing speaks against them."""
    if "" in folders:
        return f"{OPTION} needs a folder of configs after it"
    joined = next((folder for folder in folders if os.pathsep in str(Path(folder).expanduser().absolute())), None)
    if joined is None:
        return None
    return f"{OPTION} {joined}: a folder of configs can't have {os.pathsep!r} in its path; rename it, or link to it"


@contextmanager
def declared(folders: Sequence[str]) -> Iterator[None]:
    """Put folders before those that the environment declares, within the block."""
    before = os.environ.get(CONFIG_PATH)
    paths = [str(Path(folder).expanduser().absolute()) for folder in folders]
    if paths:
        os.environ[CONFIG_PATH] = os.pathsep.join([*paths, *([before] if before else [])])
    try:
        yield
    finally:
        if before is not None:
            os.environ[CONFIG_PATH] = before
        elif paths:
            del os.environ[CONFIG_PATH]
