"""Picture files: checks that they are whole, and their size, without decoding every pixel of a large data set."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple

from PIL import ExifTags, UnidentifiedImageError
from PIL import Image as PILImage

from data.common import fields
from data.common.errors import InvalidData, short
from data.common.rgb import REMEDY, unfit
from data.common.web_pictures import fetched, is_web_address

# Bytes near the end of a whole file. They make truncated files cheap to find: 20,000 photographs take seconds instead
# of the minutes that decoding takes. A file without them is decoded to be sure.
_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
# Chunks of a PNG that may hold its orientation. Where they follow the pixels, only decoding reads them.
_ORIENTING = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")
_DATA_URI = re.compile(r"\s*data:[^,]{0,100};base64,", re.IGNORECASE)
# JPEG, PNG, GIF, WebP, TIFF (both byte orders) and BMP in base64.
_BASE64_BEGINNINGS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "SUkqA", "TU0AK", "Qk")
# A list of one picture as a table's text: as JSON, or as pandas and VLMEvalKit write it.
_LIST_OF_ONE = re.compile(r"\s*\[\s*(['\"])([^'\"]+)\1\s*\]\s*")
SHORTEST_BASE64 = 40  # characters; no picture is smaller
REEXPORT = "export the row again"
LONGEST_NAME = 400  # characters of a path in a message
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # in both byte orders, of 32 and of 64 bits
_SEEN: ContextVar[set[Path] | None] = ContextVar("_SEEN", default=None)


class PictureSize(NamedTuple):
    """Width and height of a picture's stored pixels, and its EXIF orientation (1 to 8; 1: shown as stored)."""

    stored: tuple[int, int]
    orientation: int = 1

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as viewers and `datasets.Image` show the picture: turned as its orientation says."""
        return self.stored[::-1] if self.orientation in _SIDEWAYS else self.stored


@contextmanager
def seen_pictures() -> Iterator[set[Path]]:
    """Collect the picture files that are looked for within the block, also those that aren't there."""
    seen: set[Path] = set()
    token = _SEEN.set(seen)
    try:
        yield seen
    finally:
        _SEEN.reset(token)


def check_picture(path: Path, where: str, field: str = "image") -> PictureSize:
    """Size of a picture file that exists and is whole.

    Raises:
        InvalidData: missing, no picture, or truncated.
    """
    if (seen := _SEEN.get()) is not None:
        seen.add(path)
    if not is_file(path):
        raise InvalidData(where, field, f"{_named(path)} does not exist", "put the picture there or correct the path")
    try:
        with PILImage.open(path) as picture:
            size = size_of(picture) if _ends_well(path, picture.format) else _loaded(picture)
            problem = unfit(picture)
    except Exception as error:  # a broken picture raises nearly anything
        kind = "is no picture" if isinstance(error, UnidentifiedImageError) else "is broken or truncated"
        problem = f"{_named(path)} {kind} ({error})"
        raise InvalidData(where, field, problem, "fetch the file again or drop the row") from error
    if problem:
        raise InvalidData(where, field, f"the picture {problem}", REMEDY)
    return size


def check_bytes(content: bytes, where: str, field: str = "image") -> PictureSize:
    """Size of a picture in memory, which is decoded whole.

    Raises:
        InvalidData: no picture, or a broken one.
    """
    try:
        with PILImage.open(io.BytesIO(content)) as picture:
            size, problem = _loaded(picture), unfit(picture)
    except Exception as error:  # as above
        why = "in no known format" if isinstance(error, UnidentifiedImageError) else error
        raise InvalidData(where, field, f"the stored picture is broken ({why})", REEXPORT) from error
    if problem:
        raise InvalidData(where, field, f"the picture {problem}", REMEDY)
    return size


def size_of(picture: PILImage.Image) -> PictureSize:
    """Size and orientation of an opened picture; its pixels aren't read."""
    # By the base class, because PNG's own way is to decode the picture first.
    orientation: Any = PILImage.Image.getexif(picture).get(ExifTags.Base.Orientation)
    size = PictureSize(picture.size, orientation if orientation in range(1, 9) else 1)
    # Pillow (12, 13) turns a TIFF itself while it decodes it, and gives the size of then.
    return size._replace(stored=size.shown) if picture.format == "TIFF" else size


def _loaded(picture: PILImage.Image) -> PictureSize:
    """`size_of` a picture, which is decoded: a PNG's orientation may stand behind its pixels."""
    size = size_of(picture) if picture.format == "TIFF" else None
    picture.load()
    return size or size_of(picture)


def stored_key(stored: dict[str, Any]) -> str:
    """What tells a picture from others, of one as `datasets.Image` stores it: its path, or a hash of its bytes."""
    if not stored.get("bytes"):
        return str(stored["path"])
    return hashlib.blake2b(stored["bytes"], digest_size=16).hexdigest()


def stored_size(picture: dict[str, Any]) -> tuple[int, int]:
    """Width and height, as shown, of a picture as stored (a struct of bytes and path); its pixels aren't read.

    Raises:
        OSError: there is no such file, or it is no picture.
    """
    source = io.BytesIO(picture["bytes"]) if picture.get("bytes") else picture["path"]
    with PILImage.open(source) as opened:
        return size_of(opened).shown


def given_picture(value: Any, folder: Path, where: str, field: str) -> tuple[dict[str, Any], PictureSize]:
    """Read a table's picture: its value as stored, and its size.

    It is a path (from `folder`), the file's bytes, those as base64 or as a data URI, a web address (where they may be
    fetched, see `web_pictures`), or a struct with `bytes` or `path`, as `datasets` exports pictures; or a list of one
    of them.

    Raises:
        InvalidData: none of them, or a picture that can't be used.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str) and (listed := _LIST_OF_ONE.fullmatch(value)):
        value = listed[2]
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if is_web_address(value):
        value = fetched(value, where, field)
    content = value if isinstance(value, bytes) else embedded_bytes(value, where, field)
    if content:
        return {"bytes": content, "path": None}, check_bytes(content, where, field)
    path = picture_path(value, folder, where, field)
    size = check_picture(path, where, field)
    return stored(path), size


def embedded_bytes(value: Any, where: str, field: str) -> bytes | None:
    """The bytes of a picture written as text, by itself in base64 or in a data URI; None for any other value.

    Raises:
        InvalidData: a data URI that holds no base64.
    """
    if not isinstance(value, str):
        return None
    uri = _DATA_URI.match(value)
    if uri is None and not (len(value) >= SHORTEST_BASE64 and value.lstrip().startswith(_BASE64_BEGINNINGS)):
        return None
    try:
        text = "".join(value[uri.end() if uri else 0 :].split())
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        if uri is None:
            return None  # a path that begins like a picture
        raise InvalidData(where, field, f"is a data URI without base64 ({error})", REEXPORT) from error


def picture_path(value: Any, folder: Path, where: str, field: str) -> Path:
    """Path of a picture that a file names, from `folder`; also with Windows' separators.

    Raises:
        InvalidData: no text, a web address, or a text that can't be a path.
    """
    remedy = "give the picture's path"
    if not isinstance(value, str) or not value.strip():
        raise InvalidData(where, field, f"{short(value)} is neither a path nor stored bytes", remedy)
    name = fields.text(value, where, field, remedy)
    if name.startswith(("http://", "https://")):
        raise InvalidData(where, field, f"{short(name)} is a web address", "fetch the pictures and give their paths")
    try:
        path = folder / Path(name).expanduser()
    except RuntimeError as error:  # a home folder of nobody
        raise InvalidData(where, field, f"{short(name)} is no path ({error})", remedy) from error
    if "\\" in name and not is_file(path):
        if PureWindowsPath(name).drive:
            remedy = "give paths relative to the table, or to task.source.images"
            raise InvalidData(where, field, f"{short(name)} is a path of another machine", remedy)
        return folder / PureWindowsPath(name).as_posix()
    return path


def is_file(path: Path) -> bool:
    """Whether a file is there; no path is too long or too odd for the question."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _named(path: Path) -> str:
    name = str(path)
    return name if len(name) < LONGEST_NAME else short(name)


def stored(path: Path) -> dict[str, Any]:
    """Value of a `datasets.Image` column that refers to a file without copying it, unless its path would be misread."""
    if _is_sideways_tiff(path):
        return {"path": None, "bytes": path.read_bytes()}
    return {"path": str(path.resolve()), "bytes": None}


def _is_sideways_tiff(path: Path) -> bool:
    """Whether Pillow (13) gives scrambled pixels when it opens the file by its path, and the right ones from its bytes.

    It exchanges the sides of such a TIFF when it opens it, and maps uncompressed pixels into memory with these.
    """
    try:
        with path.open("rb") as file:
            if file.read(4) not in _TIFF:
                return False
        with PILImage.open(path) as picture:
            return size_of(picture).orientation in _SIDEWAYS
    except Exception:  # no file or no picture, which `check_picture` says
        return False


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
