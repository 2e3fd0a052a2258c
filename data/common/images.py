"""Picture files: checks that they are whole, and their size, without decoding every pixel of a large data set."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage

from data.common.errors import InvalidData
from data.common.rgb import RANGELESS, REMEDY

# Bytes near the end of a whole file. They make truncated files cheap to find: 20,000 photographs take seconds instead
# of the minutes that decoding takes. A file without them is decoded to be sure.
_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
# Chunks of a PNG that may hold its orientation. Where they follow the pixels, only decoding reads them.
_ORIENTING = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


def check_picture(path: Path, where: str, field: str = "image") -> tuple[int, int]:
    """Width and height of a picture file that exists and is whole, as it is shown (see `shown_size`).

    Raises:
        InvalidData: missing, no picture, or truncated.
    """
    if not path.is_file():
        raise InvalidData(where, field, f"{path} does not exist", "put the picture there or correct the path")
    try:
        with PILImage.open(path) as picture:
            if not _ends_well(path, picture.format):
                picture.load()
            mode, size = picture.mode, shown_size(picture)
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        kind = "is no picture" if isinstance(error, UnidentifiedImageError) else "is broken or truncated"
        raise InvalidData(where, field, f"{path} {kind} ({error})", "fetch the file again or drop the row") from error
    _check_mode(mode, where, field)
    return size


def check_bytes(content: bytes, where: str, field: str = "image") -> tuple[int, int]:
    """Width and height, as shown, of a picture in memory, which is decoded whole."""
    try:
        with PILImage.open(io.BytesIO(content)) as picture:
            picture.load()
            mode, size = picture.mode, shown_size(picture)
    except (OSError, SyntaxError, ValueError, PILImage.DecompressionBombError) as error:
        raise InvalidData(where, field, f"the stored picture is broken ({error})", "export the row again") from error
    _check_mode(mode, where, field)
    return size


def _check_mode(mode: str, where: str, field: str) -> None:
    if mode == "F":
        raise InvalidData(where, field, f"the picture {RANGELESS}", REMEDY)


def shown_size(picture: PILImage.Image) -> tuple[int, int]:
    """Width and height as viewers and `datasets.Image` show the picture: turned as its EXIF orientation says."""
    # By the base class, because PNG's own way is to decode the picture first.
    turned = PILImage.Image.getexif(picture).get(ExifTags.Base.Orientation) in _SIDEWAYS
    return (picture.height, picture.width) if turned else picture.size


def stored_size(picture: dict[str, Any]) -> tuple[int, int]:
    """Width and height, as shown, of a picture as stored (a struct of bytes and path); its pixels aren't read.

    Raises:
        OSError: there is no such file, or it is no picture.
    """
    source = io.BytesIO(picture["bytes"]) if picture.get("bytes") else picture["path"]
    with PILImage.open(source) as opened:
        return shown_size(opened)


def check_size(
    declared: tuple[int, int], size: tuple[int, int], where: str, source: str, remedy: str, field: str = "image"
) -> None:
    """Check that width and height in a table or annotation file are those of the picture as it is shown.

    Raises:
        InvalidData: they aren't; the message begins with `source` and ends with `remedy`.
    """
    if declared == size:
        return
    if declared == size[::-1]:
        # Boxes may be drawn on the stored pixels of a rotated photo; turning them would be a guess.
        remedy = "perhaps its EXIF orientation turns it: store it upright, or give width, height and boxes as shown"
    problem = f"{source} says {declared[0]} x {declared[1]}, the picture is {size[0]} x {size[1]}"
    raise InvalidData(where, field, problem, remedy)


def given_picture(value: Any, folder: Path, where: str, field: str) -> tuple[dict[str, Any], tuple[int, int]]:
    """Read a table's picture, a path (from `folder`) or a struct with bytes: its value as stored, and its size.

    Raises:
        InvalidData: neither of them, or a picture that can't be used.
    """
    if isinstance(value, dict) and value.get("bytes"):
        return {"bytes": value["bytes"], "path": None}, check_bytes(value["bytes"], where, field)
    name = value.get("path") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name.strip():
        raise InvalidData(where, field, f"{name!r} is neither a path nor stored bytes", "give the picture's path")
    path = folder / Path(name).expanduser()
    return stored(path), check_picture(path, where, field)


def stored(path: Path) -> dict[str, Any]:
    """Value of a `datasets.Image` column that refers to a file without copying it."""
    return {"path": str(path.resolve()), "bytes": None}


def png(picture: PILImage.Image) -> dict[str, Any]:
    """Value of a `datasets.Image` column that holds a rendered picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=1)
    return {"path": None, "bytes": buffer.getvalue()}


def _ends_well(path: Path, kind: str | None) -> bool:
    ending = _ENDINGS.get(kind or "")
    if ending is None:
        return False
    if kind == "PNG":
        behind = path.read_bytes().rpartition(b"IDAT")[2]
        return ending in behind[-64:] and not any(chunk in behind for chunk in _ORIENTING)
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 64))
        return ending in file.read()
