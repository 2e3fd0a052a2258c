"""The frame that annotations are drawn on, where a picture's EXIF orientation turns it: its stored pixels, or as shown.

Viewers and `datasets.Image` turn such a picture; COCO's tools, MMOCR's converters of text data sets and the Matlab
scripts of their authors read the stored pixels; YOLO's loaders (`exif_size` of Ultralytics) turn it. The width and
height that an annotation file gives decide. Where they fit both (turned by 180 degrees, mirrored, square) or are
missing, the convention of the file's kind does.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from PIL import Image as PILImage

from data.common.counts import counted
from data.common.errors import InvalidData, RowErrors
from data.common.images import PictureSize, png, size_of
from data.common.rgb import rgb

Frame = Literal["stored", "shown"]
Sides = tuple[int | None, int | None]  # width and height, None where a file doesn't give them
Picture = dict[str, Any]  # a struct of bytes and path, as an image column stores it
_TURN = PILImage.Transpose
# What undoes the turn of each EXIF orientation.
_BACK = {
    2: _TURN.FLIP_LEFT_RIGHT,
    3: _TURN.ROTATE_180,
    4: _TURN.FLIP_TOP_BOTTOM,
    5: _TURN.TRANSPOSE,
    6: _TURN.ROTATE_90,
    7: _TURN.TRANSVERSE,
    8: _TURN.ROTATE_270,
}
_MODES_OF_PNG = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")
_NAMES = {"stored": "on the stored pixels, so they are taken unturned", "shown": "on the pictures as shown"}


class Frames:
    """Choice of the frame of every picture of a split, and the counts of what was chosen.

    Args:
        convention: the frame where sizes don't decide.
    """

    def __init__(self, convention: Frame) -> None:
        self.convention: Frame = convention
        self._by_size: Counter[Frame] = Counter()
        self._by_convention = 0

    def choose(
        self,
        picture: Picture,
        size: PictureSize,
        declared: Sides,
        where: str,
        source: str,
        remedy: str,
        field: str = "image",
    ) -> tuple[Picture, tuple[int, int]]:
        """The picture as its row stores it, and its width and height, both in the frame of the annotations.

        Args:
            declared: width and height by the table or annotation file.
            source, remedy: beginning and end of the error's message.

        Raises:
            InvalidData: the declared size is that of neither frame, or a picture that can't be turned back.
        """
        frames: dict[Frame, tuple[int, int]] = {"stored": size.stored, "shown": size.shown}
        fitting = [name for name, sides in frames.items() if _fits(declared, sides)]
        if not fitting:
            raise InvalidData(where, field, _mismatch(source, declared, size), remedy)
        if size.orientation == 1:
            return picture, size.stored
        if len(fitting) == 1:
            frame = fitting[0]
            self._by_size[frame] += 1
        else:
            frame = self.convention
            self._by_convention += 1
        if frame == "shown":
            return picture, frames[frame]
        try:
            return unturned(picture), frames[frame]
        except (OSError, ValueError) as error:  # of pixels that Pillow can't convert
            raise InvalidData(where, field, f"its orientation can't be undone ({error})", "store it upright") from error

    def note(self, where: str, row_errors: RowErrors) -> None:
        """Note how many pictures have an orientation, and which frame was taken for them."""
        total = self._by_size.total() + self._by_convention
        if not total:
            return
        parts = [f"the sizes of {count} say that boxes lie {_NAMES[frame]}" for frame, count in self._by_size.items()]
        if self._by_convention:
            what = f"{self._by_convention} fit both frames or give no size, and by convention boxes lie"
            parts.append(f"{what} {_NAMES[self.convention]}")
        row_errors.note(where, f"{counted(total, 'mention')} of a picture with an EXIF orientation: {'; '.join(parts)}")


def unturned(picture: Picture) -> Picture:
    """The picture without its orientation: as bytes, JPEG's own or, for other formats, PNG's of the same pixels.

    Raises:
        OSError, ValueError: pixels that can't be read, or be converted to a mode of PNG.
    """
    content = picture.get("bytes") or Path(picture["path"]).read_bytes()
    stripped = _without_metadata(content)
    if stripped is not None and _orientation(stripped) == 1:
        return {"path": None, "bytes": stripped}
    with PILImage.open(io.BytesIO(content)) as opened:
        orientation = size_of(opened).orientation
        opened.load()
        plain = PILImage.frombytes(opened.mode, opened.size, opened.tobytes())
        if opened.palette is not None:
            plain.putpalette(opened.palette.getdata()[1], opened.palette.mode)
        if "transparency" in opened.info:
            plain.info["transparency"] = opened.info["transparency"]
        turned_by_pillow = opened.format == "TIFF" and orientation in _BACK
        plain = plain.transpose(_BACK[orientation]) if turned_by_pillow else plain
        return png(plain if plain.mode in _MODES_OF_PNG else rgb(plain))


def _fits(declared: Sides, sides: tuple[int, int]) -> bool:
    return all(side is None or side == real for side, real in zip(declared, sides, strict=True))


def _mismatch(source: str, declared: Sides, size: PictureSize) -> str:
    width, height = ("?" if side is None else side for side in declared)
    real = f"{size.stored[0]} x {size.stored[1]}"
    if size.shown != size.stored:
        real += f" and shown as {size.shown[0]} x {size.shown[1]}"
    return f"{source} says {width} x {height}, the picture is {real}"


def _orientation(content: bytes) -> int:
    with PILImage.open(io.BytesIO(content)) as opened:
        return size_of(opened).orientation


def _without_metadata(content: bytes) -> bytes | None:
    """A JPEG file without its APP1 segments (EXIF and XMP), the pixels untouched; None where it is no JPEG."""
    if content[:2] != b"\xff\xd8":
        return None
    segments, at = [content[:2]], 2
    while at + 4 <= len(content) and content[at] == 0xFF and content[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")
        if content[at + 1] != 0xE1:
            segments.append(content[at:end])
        at = end
    return b"".join([*segments, content[at:]])
