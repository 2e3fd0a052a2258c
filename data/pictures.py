"""Picture files: whole or not, and how large, without decoding every pixel of a large data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image as PILImage
from PIL import UnidentifiedImageError

from data.broken import BrokenInput

# What the last bytes of a whole file hold. A truncated file is cheap to tell by them: 20,000 photographs take seconds
# instead of the minutes that decoding takes. A file without its mark is decoded to know for sure.
_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


def check_picture(path: Path, where: str, field: str = "image") -> tuple[int, int]:
    """Width and height of a picture file that exists and is whole.

    Raises:
        BrokenInput: missing, no picture, or truncated.
    """
    if not path.is_file():
        raise BrokenInput(where, field, f"{path} does not exist", "put the picture there or correct the path")
    try:
        with PILImage.open(path) as picture:
            size = picture.size
            if not _ends_well(path, picture.format):
                picture.load()
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        kind = "is no picture" if isinstance(error, UnidentifiedImageError) else "is broken or truncated"
        raise BrokenInput(where, field, f"{path} {kind} ({error})", "fetch the file again or drop the row") from error
    return size


def check_bytes(content: bytes, where: str, field: str = "image") -> tuple[int, int]:
    """Width and height of a picture held in memory, decoded whole."""
    try:
        with PILImage.open(io.BytesIO(content)) as picture:
            picture.load()
            return picture.size
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise BrokenInput(where, field, f"the stored picture is broken ({error})", "export the row again") from error


def given_picture(value: Any, folder: Path, where: str, field: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """What a table gives as a picture - a path (from `folder`), or a struct with its bytes - as stored, and its size.

    Raises:
        BrokenInput: neither of them, or a picture that can't be used.
    """
    if isinstance(value, dict) and value.get("bytes"):
        return {"bytes": value["bytes"], "path": None}, check_bytes(value["bytes"], where, field)
    name = value.get("path") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name.strip():
        raise BrokenInput(where, field, f"{name!r} is neither a path nor stored bytes", "give the picture's path")
    path = folder / Path(name).expanduser()
    return stored(path), check_picture(path, where, field)


def stored(path: Path) -> dict[str, Any]:
    """How a `datasets.Image` column refers to a file without copying it."""
    return {"path": str(path.resolve()), "bytes": None}


def png(picture: PILImage.Image) -> dict[str, Any]:
    """How a `datasets.Image` column holds a rendered picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return {"path": None, "bytes": buffer.getvalue()}


def _ends_well(path: Path, kind: str | None) -> bool:
    ending = _ENDINGS.get(kind or "")
    if ending is None:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return ending in file.read()
