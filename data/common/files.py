"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from data.common.errors import InvalidData


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a file or folder, which replaces `path` when the block ends without an error.

    A folder replaces no other folder: where two are made at once, the first stays.
    """
    # Of its own also between threads, and between containers of one host that share a cache.
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}-{token_hex(4)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield partial
        try:
            partial.replace(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        _remove(partial)


def write_text(file: Path, text: str) -> None:
    """Write a text file atomically: also after a power cut it is the old or the new one."""
    with replacing(file) as partial, partial.open("w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())


def check_size_on_disk(file: Path, most: int) -> None:
    """Check that a file has at most `most` bytes, before it is read.

    Raises:
        InvalidData: it is larger.
    """
    size = file.stat().st_size
    if size > most:
        problem = f"has {size:,} bytes, and such a file has {most:,} at most"
        raise InvalidData(str(file), None, problem, "it is damaged or made to exhaust the memory")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_hidden(path: Path) -> bool:
    """Whether a relative path names something hidden, or what macOS puts beside files, or lies in such a folder."""
    return any(name[0] in "._" for name in path.parts)
