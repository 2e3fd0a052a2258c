"""Files that a run was made from, by content: whether a finished run is the one that the same command would make now.

Names and times don't tell: a table may be replaced by an older file, and two projects with tables of the same name may
share a folder of runs.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.runs.folder import RunFolder, read_json

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
CHECKPOINT = "model.checkpoint"  # the key of the weights that a run starts from
WEIGHTS = (".safetensors", ".bin")
_NAMES = ("name", "target")  # options of a component that are no path, even where such a folder exists
_PICTURE_FOLDERS = ("images", "train_images", "backgrounds")
_SETTLED = 2.0  # seconds after which a file's times tell a later change from the one that was read
Inputs = dict[str, dict[str, dict[str, Any]]]  # key of the configuration -> file as named below it -> its content


def inputs(config: RunConfig) -> Inputs:
    """The files that the task and `model.checkpoint` name by path, glob or folder, each with its size and SHA-256.

    Of pictures below a folder the size alone counts, since reading them all takes as long as an epoch.
    """
    return {
        key: {name: _content(file, by_content) for name, (file, by_content) in files.items()}
        for key, value in _paths(config)
        if (files := _files(value, key, config))
    }


def changed_inputs(recorded: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Paths whose content isn't the recorded one; of a path that isn't here any more nothing can be told.

    A file whose identity on the disk (inode, size, time of the last change of content or inode) is the recorded one
    isn't read again.
    """
    changed = []
    for key, value in _paths(config):
        before, now = recorded.get(key), _files(value, key, config)
        if not isinstance(before, dict) or not now:
            continue
        differing = sorted({*before} ^ {*now})
        differing += [name for name in sorted({*before} & {*now}) if not _same(before[name], *now[name])]
        changed += [str(now[name][0]) if name in now else f"{value} ({name} is gone)" for name in differing[:3]]
    return changed


def weights_of(files: Mapping[str, Any]) -> list[str]:
    """Names of the files of a checkpoint that hold weights, sorted."""
    return sorted(name for name in files if name.endswith(WEIGHTS))


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its name there."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): _digest(str(file.absolute()), _identity(file)) for file in files}


def check_start(folder: RunFolder, config: RunConfig, accept: bool) -> None:
    """Check that the checkpoint that a run began from is still the one that it was.

    Raises:
        ConfigError: it has other files or contents, and `accept` is not set.
    """
    recorded = {key: files for key, files in read_json(folder.inputs).items() if key == CHECKPOINT}
    if not accept and (changed := changed_inputs(recorded, config)):
        raise ConfigError(
            f"{folder.path}: {', '.join(changed)} changed since the run began from model.checkpoint="
            f"{config.model.options['checkpoint']}; put back what was there, or set accept_changes=true to take what is"
        )


def missing_inputs(recorded: Mapping[str, Any], config: RunConfig) -> list[str]:
    """Keys of recorded paths of the task that name no file here."""
    return [key for key, value in _paths(config) if key in recorded and not _files(value, key, config)]


def _paths(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Options that may be paths, with their dotted keys."""
    yield from _texts(config.task.to_dict(), "task")
    if checkpoint := config.model.options.get("checkpoint"):
        yield CHECKPOINT, str(checkpoint)


def _texts(part: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(part, str) and key.rpartition(".")[2] not in _NAMES:
        yield key, part
    for name, value in part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ():
        yield from _texts(value, f"{key}.{name}")


def _files(value: str, key: str, config: RunConfig) -> dict[str, tuple[Path, bool]]:
    """Files of what a value names, by name, each with whether its content counts; none if it is no path."""
    return {name: (file, by_content) for name, file, by_content in _named(value, key, config)}


def _named(value: str, key: str, config: RunConfig) -> Iterator[tuple[str, Path, bool]]:
    """Name, file, and whether its content counts, of what a value names; nothing if it is no path."""
    try:
        path = Path(value).expanduser()
        if path.is_file():
            yield path.name, path, True
        elif path.is_dir() and (".source." in key or key == CHECKPOINT):
            for file in _below(path, Path(config.runs).expanduser().resolve()):
                is_picture = file.suffix.lower() in PICTURES
                # A folder of pictures may be one that holds other things, too, as the working folder.
                if is_picture or not key.rpartition("source.")[2].startswith(_PICTURE_FOLDERS):
                    yield str(file.relative_to(path)), file, not is_picture
        elif path.suffix:  # the "*" among the operations of arithmetic is no glob
            for file in sorted(path.parent.glob(path.name)):
                if file.is_file():
                    yield file.name, file, True
    except (OSError, ValueError, RuntimeError, NotImplementedError):
        return  # a text that can't be a path


def _below(folder: Path, runs: Path) -> list[Path]:
    """Files below a folder, without hidden ones and without the runs."""
    files = (file for file in folder.rglob("*") if file.is_file() and runs not in file.resolve().parents)
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _content(file: Path, by_content: bool) -> dict[str, Any]:
    identity = _identity(file)
    if not by_content:
        return {"size": identity[1]}
    settled = time.time() - identity[3] / 1e9 > _SETTLED
    digest = _digest(str(file.absolute()), identity)
    return {"size": identity[1], "sha256": digest, **({"identity": list(identity)} if settled else {})}


def _same(before: Any, file: Path, by_content: bool) -> bool:
    identity = _identity(file)
    if not isinstance(before, dict) or before.get("size") != identity[1]:
        return False
    if not by_content or before.get("identity") == list(identity):
        return True
    return before.get("sha256") == _digest(str(file.absolute()), identity)


def _identity(file: Path) -> tuple[int, ...]:
    """Inode, size, and times of content and inode; the last can't be set by hand."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


@lru_cache(maxsize=4096)
def _digest(file: str, _identity: tuple[int, ...]) -> str:
    """SHA-256 of a file; once per process for jobs of a sweep that share it."""
    with Path(file).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
