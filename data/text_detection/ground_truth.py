"""Ground truth and results of scene text data sets, as the official downloads write them.

* `icdar2013`, .txt: `38, 43, 920, 215, "Tiredness"` (left, top, right, bottom); training files have spaces for commas.
* `icdar2015`, .txt: 8 coordinates and a transcription, which may hold commas, in RCTW after the flag of a difficult
  text (`..,1,"###"`).
* `totaltext`, .txt: any even number of coordinates and a transcription (TIoU's zips), or Total-Text's own
  `x: [[..]], y: [[..]], ornt: ['c'], transcriptions: ['..']`; .mat: rows `x:`, xs, `y:`, ys, text, orientation.
* `ctw1500`, .txt: 14 points (or fewer) and a transcription (perhaps after `####`), or 32 values: a box, then 14
  offsets from its corner; .xml: `<box>` with `<segs>` (points) and `<label>`.
* `mmocr`, .json: MMOCR's `data_list` with `polygon`, `ignore` and perhaps `text`.

In every format a transcription may follow `####`, as the text-spotting repositories write it: `####WORD` is `WORD`, and
`#######` is `###`. Where every line has a script before its transcription, as in MLT (`..,Latin,HOTEL`), it is no text.
Don't-care regions are transcribed `###` (in Total-Text also `#`, orientation `#`).

A path names a folder, a .zip as downloaded (read without unpacking; `truth.zip/Polygon/Test` is a folder inside), or
one file. Text is UTF-8 with or without a byte order mark, with any line ends. Where digits end a line of variable
length, as in `..,419,1996`, they are the transcription: coordinates come in pairs. A line of numbers in pairs is
an outline without a transcription where no line of the data set has one, or where its last pair is a point beside the
others; else that pair is text, such as `1,000`.

Pictures, annotations and results belong together by number: `gt_img_7.txt`, `poly_gt_img7.mat`, `res_img_7.txt`,
`img_7.jpg` and `0007.txt` all have the key `7`; a name without that form is its own key.
"""

from __future__ import annotations

import io
import lzma
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from xml.etree import ElementTree

import scipy.io

from data.common.counts import counted
from data.common.errors import InvalidData
from data.common.fields import filled
from data.common.fields import size as declared_size
from data.common.files import check_size_on_disk, is_hidden
from data.common.table_files import read_json

Format = Literal["icdar2013", "icdar2015", "totaltext", "ctw1500", "mmocr"]
FORMATS = ("icdar2013", "icdar2015", "totaltext", "ctw1500", "mmocr")
SUFFIXES = (".txt", ".mat", ".xml")
DONT_CARE = "###"
MARK = "####"  # before a transcription, in the text-spotting repositories
# What MLT (2017, 2019) and RCTW-17 write between the coordinates and the transcription.
_SCRIPT = re.compile(r"\s*(?:Arabic|Latin|Chinese|Japanese|Korean|Bangla|Hindi|Symbols|Mixed|None)\s*,", re.IGNORECASE)
_DIFFICULT = re.compile(r"\s*([01])\s*,(?=\s*\".*\"\s*$)")
BEZIER = "||||"  # between ABCNet's control points of two curves and the transcription
VARIABLE = ("totaltext", "ctw1500")  # outlines of any number of points
LARGEST = 1e9  # no coordinate is larger
LARGEST_MAT = 1 << 26  # bytes unpacked
LARGEST_FILE = 1 << 26  # bytes of one picture's annotations, unpacked
LARGEST_ARCHIVE = 1 << 30  # bytes of all that is read of a zip, unpacked
LARGEST_JSON = 1 << 30  # bytes
CHUNK = 4096  # bytes at once: of bzip2 and LZMA zipfile unpacks all that a chunk of them holds
COMPRESSED = 15  # MATLAB's miCOMPRESSED
# What `zipfile` raises for damaged or unsupported files, besides OSError.
DAMAGED_ZIP = (
    zipfile.BadZipFile,
    EOFError,
    RuntimeError,
    NotImplementedError,
    ValueError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
# Coordinates before the transcription, where a format fixes them.
WIDTH = {"icdar2013": 4, "icdar2015": 8, "ctw1500": 28}

Points = list[tuple[float, float]]


class Instance(NamedTuple):
    """One text: its outline in pixels and, in ground truth, its transcription; in results perhaps a confidence."""

    points: Points
    text: str = ""
    ignore: bool = False
    confidence: float | None = None


class Annotated(NamedTuple):
    """Annotations of one picture; `picture` is its path where the format names it."""

    where: str
    instances: list[Instance]
    picture: str | None = None
    declared: tuple[int, int] | None = None  # width and height, where the format gives them


def read_truth(path: Path, form: Format) -> dict[str, Annotated]:
    """Key -> annotations, in the order of the keys.

    Raises:
        InvalidData: no such path or folder in a zip, or a line that isn't of the format.
    """
    return {key: read() for key, read in truth_readers(path, form).items()}


def truth_readers(path: Path, form: Format) -> dict[str, Callable[[], Annotated]]:
    """Key -> a function that reads the annotations of one picture, in the order of the keys.

    So a picture whose annotations are broken can be left out, and is still known to have some.

    Raises:
        InvalidData: no such path or folder in a zip, or two annotations of one picture. The functions raise it for a
            line or entry that isn't of the format.
    """
    if form not in FORMATS:
        raise ValueError(f"the format must be one of {', '.join(FORMATS)}, got {form!r}")
    if form == "mmocr":
        return _mmocr(path)
    files = _files(path)
    bare = form in VARIABLE and not any(_has_text(content) for _, content in files.values())
    extra = _extra_column([content for _, content in files.values()], form)
    return {key: partial(_annotated, content, where, form, bare, extra) for key, (where, content) in files.items()}


def _extra_column(contents: list[bytes], form: Format) -> re.Pattern[str] | None:
    """The pattern of what every line has between its coordinates and its transcription; None: nothing."""
    lines = [line for content in contents for line, _ in _lines(content, "")]
    if form == "icdar2015" and lines:  # the flag is a number, as the 8 before it
        texts = [line.split(",", WIDTH[form])[-1] for line in lines]
        if all(map(_DIFFICULT.match, texts)):
            return _DIFFICULT
    after_numbers = re.compile(rf"(?:\s*[-+0-9.eE]+\s*,)+{_SCRIPT.pattern}", re.IGNORECASE)
    return _SCRIPT if lines and all(map(after_numbers.match, lines)) else None


def _annotated(content: bytes, where: str, form: Format, bare: bool, extra: re.Pattern[str] | None) -> Annotated:
    suffix = Path(where).suffix.lower()
    if suffix == ".mat":
        return Annotated(where, _mat(content, where))
    if suffix == ".xml":
        return Annotated(where, _xml(content, where))
    return Annotated(where, _text(content, where, form, bare, extra))


def read_found(path: Path, form: Format, y_first: bool = False) -> dict[str, Annotated]:
    """Key -> detections of a results folder or zip: lines of coordinates, perhaps a confidence and a transcription.

    A confidence is what follows the format's coordinates (in `totaltext`, the last of an odd number). Detections with
    confidences come highest first, as the official scripts match them. A .mat file holds a column of x, y tables, as
    Total-Text's own examples do.

    Args:
        y_first: coordinates are y, x, as in Total-Text's own result files.
    """
    annotations = {}
    for key, (where, content) in _files(path).items():
        if where.lower().endswith(".mat"):
            instances = [Instance(points) for points in _mat_found(content, where)]
        else:
            instances = [_detection(line, at, form, y_first) for line, at in _lines(content, where)]
        annotations[key] = Annotated(where, sorted(instances, key=lambda i: -(i.confidence or 0.0)))
    return annotations


def key_of(stem: str) -> str:
    """Key that the file names of a picture, its annotations and its results share."""
    name = re.sub(r"^(?:poly_)?(?:gt|res)_", "", stem)
    number = re.fullmatch(r"(?:img|image)?_?([0-9]+)", name)
    return (number[1].lstrip("0") or "0") if number else name


def _order(key: str) -> tuple[int, int, str]:
    """Numbers by their value (they have no leading zeros), then names."""
    return (0, len(key), key) if key.isascii() and key.isdecimal() else (1, 0, key)


def _files(path: Path) -> dict[str, tuple[str, bytes]]:
    """Key -> (where, content) of every annotation file below a path, which may lead into a zip."""
    contents: dict[str, tuple[str, bytes]] = {}
    for name, where, content in _contents(path):
        key = key_of(Path(name).stem)
        if key in contents:
            problem = f"the picture {key} was already annotated in {contents[key][0]}"
            raise InvalidData(where, None, problem, "point at one split and one kind of file only")
        contents[key] = (where, content)
    if not contents:
        raise InvalidData(str(path), None, f"no {', '.join(SUFFIXES)} file there", "correct the path")
    return dict(sorted(contents.items(), key=lambda item: _order(item[0])))


def _contents(path: Path) -> Iterator[tuple[str, str, bytes]]:
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.name[0] not in "._"):
            yield file.name, str(file), _content(file)
        return
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        yield path.name, str(path), _content(path)
        return
    archive = next((p for p in (path, *path.parents) if p.is_file()), None)
    if archive is None:
        raise InvalidData(str(path), None, "there is no such file or folder", "correct the path")
    inside = "" if archive == path else f"{path.relative_to(archive).as_posix()}/"
    if archive.suffix.lower() in (".json", ".jsonl", ".gz", ".tar", ".rar", ".7z"):
        formats = f"a folder, a .zip, or one of {', '.join(SUFFIXES)}"
        raise InvalidData(
            str(archive), None, f"is not {formats}", "unpack it; MMOCR's .json has task.source.format=mmocr"
        )
    left = LARGEST_ARCHIVE
    try:
        with zipfile.ZipFile(archive) as pack:
            for entry in pack.infolist():
                name, file = entry.filename, Path(entry.filename)
                if f"/{name}".find(f"/{inside}") >= 0 and file.suffix.lower() in SUFFIXES and not is_hidden(file):
                    content = _unpacked(pack, entry, f"{archive}/{name}", min(left, LARGEST_FILE))
                    left -= len(content)
                    yield file.name, f"{archive}/{name}", content
    except InvalidData:
        raise
    except (*DAMAGED_ZIP, OSError) as error:
        raise InvalidData(str(archive), None, f"can't be read as a zip ({error})", "fetch the file again") from error


def _content(file: Path) -> bytes:
    check_size_on_disk(file, LARGEST_FILE)
    return file.read_bytes()


def _unpacked(pack: zipfile.ZipFile, entry: zipfile.ZipInfo, where: str, most: int) -> bytes:
    """A file of a zip.

    Raises:
        InvalidData: it has more than `most` bytes, whatever the zip says of it.
    """
    content = bytearray()
    with pack.open(entry) as file:
        while entry.file_size <= most and len(content) <= most and (chunk := file.read(CHUNK)):
            content += chunk
    if max(entry.file_size, len(content)) > most:
        problem = f"has more than {LARGEST_FILE:,} bytes, or with the files before it more than {LARGEST_ARCHIVE:,}"
        raise InvalidData(where, None, problem, "it is damaged or made to exhaust the memory")
    return bytes(content)


def _lines(content: bytes, where: str) -> Iterator[tuple[str, str]]:
    """(line, where) of the lines that hold something. Bytes that aren't UTF-8 are kept as question marks."""
    text = content.decode("utf-8-sig", "replace")
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if line.strip():
            yield line, f"{where}, line {number}"


def _text(
    content: bytes, where: str, form: Format, bare: bool = False, extra: re.Pattern[str] | None = None
) -> list[Instance]:
    """The texts of a .txt file; `bare`: no line of its data set has a transcription; `extra`: see `_extra_column`."""
    if form == "totaltext" and _is_totaltext(content):
        return _totaltext(content.decode("utf-8-sig", "replace"), where)
    instances = (_annotation(line, at, form, bare, extra) for line, at in _lines(content, where))
    return [instance for instance in instances if instance]


def _is_totaltext(content: bytes) -> bool:
    return re.match(r"\s*x:\s*\[", content[:64].decode("utf-8-sig", "replace")) is not None


def _has_text(content: bytes) -> bool:
    """Whether any line is more than numbers in pairs."""
    lines = [line.strip().split(",") for line, _ in _lines(content, "")]
    return any(len(_numbers(fields)) < len(fields) or len(fields) % 2 for fields in lines)


def _annotation(
    line: str, where: str, form: Format, bare: bool, extra: re.Pattern[str] | None = None
) -> Instance | None:
    """Coordinates and transcription of a line; None for a don't-care region without extent."""
    separator = re.compile(r"[,\s]\s*" if form == "icdar2013" else r",")
    fields = separator.split(line.strip())
    values = _numbers(fields)
    if form == "ctw1500" and len(values) == len(fields) == 32 and _offsets_from_box(values):
        return Instance([(values[0] + x, values[1] + y) for x, y in _points(values[4:])])
    if BEZIER in line:
        raise InvalidData(where, None, f"{line[:80]!r} holds a Bezier curve, no outline", "fetch the polygons")
    count = _coordinates(values, fields, form, bare)
    text = separator.split(line.strip(), maxsplit=count)[count] if len(fields) > count else ""
    mark = extra.match(text) if extra else None
    text, ignore = _label(_unquoted(text[mark.end() :] if mark else text), form)
    ignore = ignore or bool(mark and mark.lastindex and mark[1] == "1")
    if ignore and form in VARIABLE and count < 6 and len(values) == count:
        return None
    if len(values) < count or not (4 if form == "icdar2013" else 6) <= count <= WIDTH.get(form, count):
        raise _no_line(line, where, form)
    if len(values) - count > 3:  # a transcription may begin with numbers, but hardly with four in a row
        problem = f"{line[:80]!r} goes on with {len(values) - count} numbers after {count} coordinates"
        raise InvalidData(where, None, problem, f"is this the {form} format?")
    points = _corners(values[:4]) if form == "icdar2013" else _points(values[:count])
    return Instance(points, text, ignore)


def _coordinates(values: list[float], fields: list[str], form: Format, bare: bool) -> int:
    """How many of the numbers that a line begins with are coordinates."""
    if form not in VARIABLE:
        return WIDTH[form]
    most = WIDTH.get(form)
    if len(values) < len(fields) or len(values) % 2:
        pairs = len(values) // 2 * 2
        return min(pairs, most) if most else pairs
    if bare or len(values) == most or _ends_in_point(values, fields[-1]):
        return len(values)
    return len(values) - 2


def _ends_in_point(values: list[float], last: str) -> bool:
    """Whether the last pair of numbers is a point of an outline rather than a text such as 1,000.

    A point is beside the others, at most as far from their box as that is large.
    """
    if len(values) < 8:
        return True
    if re.match(r"\s*0[0-9]", last):
        return False
    *others, (x, y) = _points(values)
    xs, ys = zip(*others, strict=True)
    reach = max(max(xs) - min(xs), max(ys) - min(ys))
    return min(xs) - reach <= x <= max(xs) + reach and min(ys) - reach <= y <= max(ys) + reach


def _label(text: str, form: str) -> tuple[str, bool]:
    """A transcription without the mark before it, and whether it says don't-care."""
    text = text.strip()
    text = text.removeprefix(MARK).strip()
    return text, text == DONT_CARE or (form == "totaltext" and text == "#")


def _detection(line: str, where: str, form: Format, y_first: bool) -> Instance:
    fields = re.split(r"[,\s]\s*" if form == "icdar2013" else r",", line.strip())
    values = _numbers(fields)
    count = len(values) // 2 * 2 if form in ("totaltext", "ctw1500", "mmocr") else WIDTH[form]
    if len(values) < count or count < (4 if form == "icdar2013" else 6):
        raise _no_line(line, where, form)
    confidence = values[count] if len(values) > count else None
    points = _corners(values[:4]) if form == "icdar2013" else _points(values[:count])
    return Instance([(y, x) for x, y in points] if y_first else points, confidence=confidence)


def _no_line(line: str, where: str, form: Format) -> InvalidData:
    expected = f"{WIDTH[form]} coordinates" if form in WIDTH else "pairs of coordinates"
    return InvalidData(where, None, f"{line[:80]!r} doesn't begin with {expected}", f"is this the {form} format?")


def _numbers(fields: list[str]) -> list[float]:
    """The numbers that a list of fields begins with."""
    values: list[float] = []
    for field in fields:
        if not re.fullmatch(r"\s*[-+]?[0-9]{1,12}(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,2})?\s*", field, re.ASCII):
            break
        value = float(field)
        if abs(value) > LARGEST:
            break
        values.append(value)
    return values


def _points(values: list[float]) -> Points:
    return list(zip(values[::2], values[1::2], strict=True))


def _corners(values: list[float]) -> Points:
    x1, y1, x2, y2 = values
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)]


def _offsets_from_box(values: list[float]) -> bool:
    """Whether the 28 values after a box are points within it, counted from its corner."""
    x1, y1, x2, y2 = values[:4]
    offsets = _points(values[4:])
    return all(0 <= x <= x2 - x1 + 1 and 0 <= y <= y2 - y1 + 1 for x, y in offsets)


def _unquoted(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        return text[1:-1].replace("\\\\", "\\").replace('\\"', '"')
    return text


def _totaltext(text: str, where: str) -> list[Instance]:
    """Total-Text's own .txt: one entry per text, its lists perhaps broken over lines."""
    number = r"x:\s*\[\[([^\]]*)\]\]\s*,\s*y:\s*\[\[([^\]]*)\]\]"
    labels = r"\s*,\s*ornt:\s*\[?(?:u?'(.?)')?\]?\s*,\s*transcriptions:\s*\[?(?:u?(['\"])(.*?)\4)?\]?\s*$"
    entry = re.compile(number + labels, re.M)
    texts: list[Instance | None] = []
    starts = len(re.findall(r"^\s*x:", text, re.M))
    for match in entry.finditer(text):
        xs, ys = (_numbers(match[i].split()) for i in (1, 2))
        texts.append(_outline(xs, ys, match[5] or "", match[3] or "", where, f"entry {len(texts)}"))
    if len(texts) != starts:
        raise InvalidData(
            where,
            None,
            f"{starts - len(texts)} of {counted(starts, 'entry', 'entries')} can't be read",
            "fetch it again",
        )
    return [instance for instance in texts if instance]


def _outline(xs: list[float], ys: list[float], text: str, orientation: str, where: str, field: str) -> Instance | None:
    """An entry of Total-Text's own files; None for a don't-care region without extent, which the script ignores too."""
    text, ignore = _label(text, "totaltext")
    ignore = ignore or orientation == "#"
    if ignore and len(xs) < 3:
        return None
    if len(xs) != len(ys) or len(xs) < 3 or not all(abs(value) <= LARGEST for value in xs + ys):  # NaN isn't
        raise InvalidData(where, field, f"{len(xs)} x and {len(ys)} y are no polygon", "repair or drop the entry")
    return Instance(list(zip(xs, ys, strict=True)), text, ignore)


def _mat(content: bytes, where: str) -> list[Instance]:
    try:
        rows = [(_list(row[1]), _list(row[3]), _cell(row[4]), _cell(row[5])) for row in _table(content)]
    except Exception as error:  # a broken .mat raises nearly anything
        raise InvalidData(where, None, f"no ground truth of Total-Text ({error!r})", "fetch the file again") from error
    outlines = [_outline(*row, where=where, field=f"row {number}") for number, row in enumerate(rows)]
    return [instance for instance in outlines if instance]


def _mat_found(content: bytes, where: str) -> list[Points]:
    try:
        outlines = [_points(_list(row[0])) for row in _table(content)]
    except Exception as error:  # as above
        raise InvalidData(where, None, f"no column of x, y tables ({error!r})", "fetch the file again") from error
    if any(len(points) < 3 for points in outlines):
        raise InvalidData(where, None, "a detection has fewer than 3 points", "drop it")
    return outlines


def _table(content: bytes) -> Any:
    """The one variable of a .mat file, compressed as MATLAB saves it and as the official ones are.

    SciPy's reader runs no code, but a damaged file can crash the process. So the file is checked first: every element
    must unpack to its end, which its checksum confirms.
    """
    if len(content) < 136 or content[124:128] != b"\x00\x01IM":
        raise ValueError("it is no MATLAB 5 file")
    offset, left = 128, LARGEST_MAT
    while offset < len(content):
        kind, size = struct.unpack_from("<II", content, offset)
        inflater = zlib.decompressobj()
        if kind != COMPRESSED:
            raise ValueError("it isn't compressed; save it again with MATLAB's defaults")
        left -= len(inflater.decompress(content[offset + 8 : offset + 8 + size], left))
        if left < 1 or not inflater.eof or inflater.unused_data:
            raise ValueError("it is cut off, or larger than any ground truth")
        offset += 8 + size
    return next(v for k, v in scipy.io.loadmat(io.BytesIO(content)).items() if not k.startswith("__"))


def _list(cell: Any) -> list[float]:
    return [float(v) for v in cell.ravel()]


def _cell(cell: Any) -> str:
    return str(cell.ravel()[0]) if cell.size else ""


def _xml(content: bytes, where: str) -> list[Instance]:
    try:
        boxes = list(ElementTree.fromstring(content).iter("box"))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter for unknown encodings
        raise InvalidData(where, None, f"not XML ({error})", "fetch the file again") from error
    texts = []
    for number, box in enumerate(boxes):
        fields = (box.findtext("segs") or "").split(",")
        values = _numbers(fields)
        text, ignore = _label(box.findtext("label") or "", "ctw1500")
        if len(values) % 2 or len(values) < len(fields) or (len(values) < 6 and not ignore):
            problem = f"{counted(len(values), 'number')} in {counted(len(fields), 'field')} can be no polygon"
            raise InvalidData(where, f"box {number}, segs", problem, "write x1,y1,...,x14,y14")
        if len(values) >= 6:
            texts.append(Instance(_points(values), text, ignore))
    return texts


def _mmocr(path: Path) -> dict[str, Callable[[], Annotated]]:
    if not path.is_file():
        raise InvalidData(str(path), None, "there is no such file", "correct the path")
    check_size_on_disk(path, LARGEST_JSON)
    try:
        entries = read_json(path.read_text(encoding="utf-8-sig"), str(path))["data_list"]
        if not isinstance(entries, list):
            raise TypeError("data_list is no list")
    except InvalidData:
        raise
    except (UnicodeDecodeError, KeyError, TypeError) as error:
        problem = f"not MMOCR's annotation file ({error!r})"
        raise InvalidData(str(path), "data_list", problem, "write {data_list: [{img_path, instances}]}") from error
    readers: dict[str, Callable[[], Annotated]] = {}
    first: dict[str, str] = {}
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        picture = entry.get("img_path") if isinstance(entry, dict) else None
        # An entry without a picture is a row of its own, which its reader refuses.
        key = picture if isinstance(picture, str) and picture.strip() else where
        if key in first:
            raise InvalidData(where, "img_path", f"{key} was already in {first[key]}", "join the entries")
        first[key] = where
        readers[key] = partial(_entry, entry, where)
    if not readers:
        raise InvalidData(str(path), "data_list", "is empty", "correct the path")
    return readers


def _entry(entry: Any, where: str) -> Annotated:
    picture, instances = (entry.get(name) if isinstance(entry, dict) else None for name in ("img_path", "instances"))
    if not isinstance(picture, str) or not picture.strip():
        raise InvalidData(where, "img_path", f"{picture!r} is no path", "write img_path and instances")
    if not isinstance(instances, list):
        raise InvalidData(where, "instances", f"{str(instances)[:80]!r} is no list", "write img_path and instances")
    texts = [_mmocr_instance(one, where, f"instances, {number}") for number, one in enumerate(instances)]
    width, height = entry.get("width"), entry.get("height")
    size = None if filled(width) is None or filled(height) is None else declared_size(width, height, where)
    return Annotated(where, [instance for instance in texts if instance], picture, size)


def _mmocr_instance(one: Any, where: str, field: str) -> Instance | None:
    """One text of MMOCR's; None for a don't-care region without extent."""
    polygon = one.get("polygon") if isinstance(one, dict) else None
    # 1 and 0 are flags in some exports; any other value would be a guess (bool("false") is true).
    flag, text = (one.get("ignore") or False, one.get("text") or "") if isinstance(one, dict) else (False, "")
    if flag not in (True, False) or not isinstance(text, str):
        problem = f"ignore {flag!r} or text {text!r} is none"
        raise InvalidData(where, field, problem, "write ignore as true or false, and text as text")
    text, dont_care = _label(text, "mmocr")
    ignore = bool(flag) or dont_care
    try:
        values = [float(value) for value in polygon]  # type: ignore[union-attr]
    except (TypeError, ValueError, OverflowError):
        values = []
    finite = all(math.isfinite(value) and abs(value) <= LARGEST for value in values)
    if not values or len(values) % 2 or not finite or (len(values) < 6 and not ignore):
        remedy = "write a polygon of 3 points or more as [x1, y1, x2, y2, x3, y3, ..]"
        raise InvalidData(where, field, f"{str(polygon)[:80]} is no polygon", remedy)
    return Instance(_points(values), text, ignore) if len(values) >= 6 else None
