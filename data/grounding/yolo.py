"""YOLO data sets: a YAML file that names folders of pictures, and a text file of labels beside each picture.

    <folder>/config.yaml (data.yaml, dataset.yaml)   path, train/val/test (a folder of pictures each, or a .txt
                                                     that lists them), names
    .../images/train/a.jpg, .../labels/train/a.txt   class cx cy w h, or class x1 y1 x2 y2 x3 y3 ..., as parts of 1;
                                                   with kpt_shape in the YAML, class cx cy w h and keypoints

Roboflow's exports write `train: ../train/images` into a file that lies beside `train`.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from data.common import fields
from data.common.errors import InvalidData, RowErrors, short
from data.common.images import is_file

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".mpo", ".gif")
CONFIGS = ("config.yaml", "data.yaml", "dataset.yaml")
LABEL = "write: class cx cy w h, as parts of 1"


class Label(NamedTuple):
    """One object; `box` is cx, cy, w, h, `area` their part of the picture."""

    where: str
    category: str
    box: list[float]
    area: float


class Layout(NamedTuple):
    """A split's pictures, in a fixed order, the folders of them and of labels, and the names of categories."""

    config: Path
    folder: Path
    labels: Path
    pictures: list[Path]
    names: dict[int, str]
    keypoints: int = 0  # numbers of a pose label's keypoints, after its box

    def relative_names(self) -> list[str]:
        """Paths of the pictures from their folder."""
        return [path.relative_to(self.folder).as_posix() for path in self.pictures]

    def files(self) -> list[Path]:
        """Files and folders that the split's rows are read from."""
        return [self.config, self.labels, *(self.pictures or [self.folder])]

    def labels_of(self, picture: Path) -> Path:
        """The picture's file of labels, which need not exist."""
        return self.labels / picture.relative_to(self.folder).with_suffix(".txt")

    def sharing_labels(self) -> dict[Path, InvalidData]:
        """The pictures that share their labels with others, so that they are one's at most."""
        pictures: dict[Path, list[Path]] = {}
        for picture in self.pictures:
            pictures.setdefault(self.labels_of(picture), []).append(picture)
        errors = {}
        for labels, sharing in pictures.items():
            for picture in sharing if len(sharing) > 1 else ():
                other = next(one for one in sharing if one != picture)
                problem = f"shares its labels, {labels.name}, with {other.name}"
                errors[picture] = InvalidData(str(picture), None, problem, "give every picture a name of its own")
        return errors


def description_file(folder: Path) -> Path:
    """The YAML file that describes the data set in a folder.

    Raises:
        InvalidData: there is none.
    """
    config = next((folder / name for name in CONFIGS if (folder / name).is_file()), None)
    if config is None:
        problem = "no config.yaml or data.yaml"
        raise InvalidData(str(folder), None, problem, "give a YOLO folder or task.source.annotations")
    return config


def read_layout(folder: Path, split: str, row_errors: RowErrors) -> Layout:
    """Pictures and labels of a split; what else lies there is noted.

    Raises:
        InvalidData: see `locate`.
    """
    layout = locate(folder, split)
    if layout.pictures:
        return layout
    files = sorted(path for path in layout.folder.rglob("*") if path.is_file())
    layout = layout._replace(pictures=[path for path in files if _is_picture(path)])
    _note_leftovers(layout, files, row_errors)
    return layout


def locate(folder: Path, split: str) -> Layout:
    """A split's layout, with its pictures where a file lists them; those of a folder aren't looked for.

    Raises:
        InvalidData: no description of the data set, no such split, or no folder of pictures or labels.
    """
    config = description_file(folder)
    described = _described(config)
    image_folder = described.get(split)
    if isinstance(image_folder, list) and len(image_folder) == 1:
        image_folder = image_folder[0]
    if not described.get("names") or not isinstance(image_folder, str):
        splits = [s for s in ("train", "val", "test") if described.get(s)]
        problem = "no such split with one folder or list of pictures, or no names"
        remedy = f"choose of {', '.join(splits) or 'none'}, or write names and {split}: <folder or .txt file>"
        raise InvalidData(str(config), split, problem, remedy)
    names = _names(described["names"], config)
    root = described.get("path") or "."
    root = fields.text(root, str(config), "path", "write the folder's path")
    keypoints = _keypoints(described, config)
    if image_folder.lower().endswith(".txt"):
        listed = _listed(folder, root, image_folder, config)
        return Layout(config, *_common_folders(listed, config), listed, names, keypoints)
    pictures, labels = _folders(folder, root, image_folder, config)
    return Layout(config, pictures, labels, [], names, keypoints)


def _listed(folder: Path, root: str, file_name: str, config: Path) -> list[Path]:
    """The pictures that a file lists, one a line, as COCO's YOLO files and CVAT's exports do.

    Their paths start from the file, from `path` or from the folder; `data/` before them is CVAT's.
    """
    bases = [folder / root.replace("\\", "/"), folder]
    file = next((base / file_name for base in bases if is_file(base / file_name)), None)
    if file is None:
        raise InvalidData(str(config), "path", f"no list of pictures at {bases[0] / file_name}", "put it there")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidData(str(file), None, f"is not UTF-8 ({error})", "save it as UTF-8") from error
    names = [line.strip().replace("\\", "/") for line in lines if line.strip()]
    if not names:
        raise InvalidData(str(file), None, "lists no pictures", "write a path a line")
    readings = [(base, prefix) for prefix in ("", "data/") for base in (file.parent, *bases)]
    base, prefix = next(
        (one for one in readings if any(is_file(one[0] / name.removeprefix(one[1])) for name in names)), readings[0]
    )
    return sorted({Path(os.path.normpath(base / name.removeprefix(prefix))) for name in names})


def _common_folders(pictures: list[Path], config: Path) -> tuple[Path, Path]:
    """The folder that listed pictures share, and that of their labels: images/ in its path is labels/ there.

    Raises:
        InvalidData: no images/ in it, or no labels/ beside that.
    """
    shared = Path(os.path.commonpath([path.parent for path in pictures]))
    parts = shared.parts
    if "images" in parts:
        last = len(parts) - 1 - parts[::-1].index("images")
        labels = Path(*parts[:last], "labels", *parts[last + 1 :])
        if labels.is_dir():
            return shared, labels
    problem = f"the listed pictures lie in {shared}, and there is no folder of labels beside an images/"
    raise InvalidData(str(config), "path", problem, "put labels/ beside images/, and correct the list's paths")


def _keypoints(described: dict[str, Any], config: Path) -> int:
    """Numbers of a label's keypoints: `kpt_shape: [17, 3]` of a pose data set gives 51; without it 0."""
    shape = described.get("kpt_shape")
    if shape is None:
        return 0
    remedy = "write [number of keypoints, 2 or 3]"
    counts = [fields.whole(v, str(config), "kpt_shape", remedy) for v in fields.items(shape, str(config), "kpt_shape")]
    if len(counts) != 2 or counts[0] < 1 or counts[1] not in (2, 3):
        raise InvalidData(str(config), "kpt_shape", f"{short(shape)} is no shape", remedy)
    return counts[0] * counts[1]


def read_labels(file: Path, names: dict[int, str], keypoints: int = 0) -> list[Label]:
    """Labels of one picture, lines that are there twice too; no file means no objects: that is YOLO's own rule.

    Raises:
        InvalidData: a line that is no label, or a file that is no text.
    """
    if not file.is_file():
        return []
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InvalidData(str(file), None, f"is not UTF-8 ({error})", "save it as UTF-8") from error
    numbered = enumerate(lines, start=1)
    return [_label(line, f"{file}, line {number}", names, keypoints) for number, line in numbered if line.strip()]


def _label(line: str, where: str, names: dict[int, str], keypoints: int) -> Label:
    cells = line.split()
    is_class = fields.is_number(cells[0]) and float(cells[0]).is_integer()  # some write 0.0
    kind = int(float(cells[0])) if is_class else -1
    values = [float(cell) for cell in cells[1:]] if all(map(_is_written_number, cells[1:])) else []
    is_pose = keypoints and len(values) == 4 + keypoints
    box = values[:4] if is_pose or len(values) == 4 else None if keypoints else _box_of_outline(values)
    if kind not in names or box is None:
        raise InvalidData(where, None, f"{short(line)} is no YOLO label", LABEL)
    return Label(where, names[kind], box, box[2] * box[3])


def _is_written_number(cell: str) -> bool:
    return fields.is_number(cell) or cell.lower() in ("nan", "inf", "-inf")  # refused with the box


def _box_of_outline(numbers: list[float]) -> list[float] | None:
    """The box of a YOLO segmentation label; None where it is no outline."""
    xs, ys = numbers[::2], numbers[1::2]
    if len(xs) != len(ys) or len(xs) < 3:
        return None
    return [(min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)]


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML without its silent rule that the later of two equal keys counts."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in getattr(node, "value", [])]
        repeated = [key for key, count in Counter(map(repr, keys)).items() if count > 1]
        if repeated:
            raise yaml.YAMLError(f"the key {short(repeated[0])} is there twice")
        return super().construct_mapping(node, deep)


def _described(config: Path) -> dict[str, Any]:
    try:
        # The loader makes plain values only, as yaml.safe_load does.
        described = yaml.load(config.read_text(encoding="utf-8-sig"), Loader=_UniqueKeyLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidData(str(config), None, f"is not YAML ({error})", "repair it") from error
    if not isinstance(described, dict) or not isinstance(described.get("names"), list | dict | None):
        raise InvalidData(str(config), None, "does not describe a data set", "write path, train, val and names")
    return described


def _names(names: list[Any] | dict[Any, Any], config: Path) -> dict[int, str]:
    """Names by class number. YAML reads an unquoted `no` or `on` as false or true."""
    words = {}
    for key, value in enumerate(names) if isinstance(names, list) else names.items():
        number = fields.whole(key, str(config), "names", "number the names from 0")
        word = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
        words[number] = fields.text(word, str(config), f"names[{number}]", "write the name in quotes")
    return words


def _folders(folder: Path, root: str, image_folder: str, config: Path) -> tuple[Path, Path]:
    """The split's pictures - YOLO's path/place, or beside the folder of labels, as in shared exports - and labels."""
    image_folder = image_folder.replace("\\", "/")
    root = root.replace("\\", "/")
    beside = image_folder
    while beside.startswith("../"):
        beside = beside.removeprefix("../")
    places = [(folder / root, image_folder), (folder.parent, image_folder), (folder / root, beside), (folder, beside)]
    existing = [base / name for base, name in places if _is_folder(base / name) and any((base / name).iterdir())]
    if not existing:
        problem = f"no pictures at {folder / root / image_folder}"
        raise InvalidData(str(config), "path", problem, "put the pictures there")
    label_places = [(base, "labels".join(name.rsplit("images", 1))) for base, name in [*places, (folder, image_folder)]]
    labels = next((base / name for base, name in label_places if _is_folder(base / name)), None)
    if labels is None or "images" not in image_folder:
        # Without this a wrong path would read as pictures without objects.
        problem = f"no labels at {label_places[0][0] / label_places[0][1]}"
        raise InvalidData(str(config), "path", problem, "put labels/ beside images/")
    return existing[0], labels


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _note_leftovers(layout: Layout, files: list[Path], row_errors: RowErrors) -> None:
    """Note files that are no pictures, and labels without one: they may be rows that nobody misses."""
    others = [path.name for path in files if not _is_picture(path) and not path.name.startswith(".")]
    if others and layout.folder != layout.labels:
        row_errors.note(str(layout.folder), f"{len(others)} files are no pictures and left out, {others[0]} among them")
    expected = {layout.labels_of(picture) for picture in layout.pictures}
    alone = [p.name for p in sorted(layout.labels.rglob("*.txt")) if p not in expected and p.name != "classes.txt"]
    if alone:
        row_errors.note(str(layout.labels), f"{len(alone)} files of labels have no picture, {alone[0]} among them")
