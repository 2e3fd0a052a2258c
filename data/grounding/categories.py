"""Photographs with category boxes, turned into expressions that need counting and comparing: "the largest dog".

Two layouts, told apart by what lies in the folder:

    YOLO   <folder>/config.yaml (or data.yaml) with path, train/val/test and names; labels/ beside images/
    COCO   an annotation file `annotations=<json>` and its folder of pictures `images`

A category that occurs once gives "the dog"; one that occurs 2 to `CROWD` times gives "the largest dog", "the smallest",
"the leftmost", "the rightmost", "the topmost" and "the lowest", each only where the object leads the next by a clear
margin, so that the expression is unambiguous. No expression refers to objects below 1 % of the picture, but they are
compared with. A category with a crowd annotation (one box around several) has no expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from datasets import Dataset

from data.common.errors import InvalidData, OnError, RowErrors
from data.common.images import check_picture, check_size, stored
from data.common.rows import RowWriter
from data.common.source import Source, matching_files, optional_path, require_folder, without_nulls
from data.grounding.refcoco import read_coco
from data.grounding.schema import FEATURES, checked_box

CROWD = 6
SMALLEST = 0.01  # of the picture's area
SUFFIXES = (".jpg", ".jpeg", ".png")


class CategoryBoxes(Source):
    """Source of expressions made from category boxes.

    Args:
        folder: of a YOLO data set, or of COCO's pictures.
        annotations: split -> COCO annotation file; without any the folder is a YOLO one.
        images: the folder of COCO's pictures, where it isn't `folder`.
        splits: split as asked for -> the folder's own name.
        on_error: what to do with a broken row.
    """

    def __init__(
        self,
        folder: str,
        annotations: dict[str, str | None] | None = None,
        images: str | None = None,
        splits: dict[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> None:
        self.folder, self.images = Path(folder).expanduser(), optional_path(images)
        self.annotations, self.official = without_nulls(annotations), splits or {}
        self.splits, self.row_errors = tuple(self.annotations) or Source.splits, RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        official = self.official.get(split, split)
        if not self.annotations:
            return load(self.folder, official, None, self.row_errors)
        (annotations,) = matching_files(self.annotations, split, "annotations")
        return load(self.images or self.folder, official, annotations, self.row_errors)

    def check_split(self, split: str) -> None:
        """Check the splits of COCO files; a YOLO folder's own split names are known only when it is read."""
        if self.annotations:
            super().check_split(split)

    def check_files(self) -> None:
        require_folder(self.images or self.folder, "set task.source.folder to the photographs")
        for split in self.annotations:
            matching_files(self.annotations, split, "annotations")


class Thing(NamedTuple):
    """Annotated object; `box` is x1, y1, x2, y2 in pixels."""

    category: str
    box: list[float]
    meant: bool  # an expression may refer to it
    crowd: bool = False  # one box around several


class Photo(NamedTuple):
    """Picture file with its width and height and its objects."""

    path: Path
    size: tuple[int, int]
    things: list[Thing]


def load(folder: Path, split: str, annotations: Path | None, row_errors: RowErrors) -> Dataset:
    """Expressions made from one split of a folder, in a fixed order.

    Raises:
        InvalidData: a missing file or split, or (on_error=raise) a broken picture or box.
    """
    writer = RowWriter(FEATURES, f"{folder}, split {split}", row_errors)
    for photo in _coco(folder, annotations, row_errors) if annotations else _yolo(folder, split, row_errors):
        for index, (expression, region, level) in enumerate(expressions(photo)):
            row = {
                "id": f"{split}-{photo.path.stem}-{index}",
                "image": stored(photo.path),
                "width": photo.size[0],
                "height": photo.size[1],
                "expression": expression,
                "box": region.box,
                "split": split,
                "level": level,
            }
            with row_errors.row():
                writer.add(str(photo.path), row)
    return writer.dataset()


def expressions(photo: Photo) -> Iterator[tuple[str, Thing, int]]:
    """Yield unambiguous expressions, each with its object and the number of others of its category."""
    width, height = photo.size
    for category in sorted({region.category for region in photo.things}):
        regions = [region for region in photo.things if region.category == category]
        if any(region.crowd for region in regions):
            continue  # the objects of a crowd can't be compared
        if len(regions) == 1 and regions[0].meant:
            yield f"the {category}", regions[0], 0
        elif 2 <= len(regions) <= CROWD:
            orders: list[tuple[str, Callable[[Thing], float], float]] = [
                ("largest", lambda t: _area(t), 0.0),
                ("smallest", lambda t: -_area(t), 0.0),
                ("leftmost", lambda t: -_centre(t)[0], width * 0.08),
                ("rightmost", lambda t: _centre(t)[0], width * 0.08),
                ("topmost", lambda t: -_centre(t)[1], height * 0.08),
                ("lowest", lambda t: _centre(t)[1], height * 0.08),
            ]
            for word, key, margin in orders:
                first, second = sorted(regions, key=key, reverse=True)[:2]
                # Sizes are compared as a ratio, places as a part of the picture.
                clear = key(first) - key(second) >= margin if margin else _ratio(first, second) >= 1.5
                if clear and first.meant:
                    yield f"the {word} {category}", first, len(regions) - 1


def _yolo(folder: Path, split: str, row_errors: RowErrors) -> Iterator[Photo]:
    config = next((folder / n for n in ("config.yaml", "data.yaml", "dataset.yaml") if (folder / n).is_file()), None)
    if config is None:
        raise InvalidData(
            str(folder), None, "no config.yaml or data.yaml", "give a YOLO folder or task.source.annotations"
        )
    described = _described(config)
    names, image_folder = described.get("names"), described.get(split)
    if not names or not isinstance(image_folder, str):
        splits = [s for s in ("train", "val", "test") if described.get(s)]
        problem = "no such split with one folder of pictures, or no names"
        raise InvalidData(str(config), split, problem, f"choose of {', '.join(splits) or 'none'}")
    words = dict(enumerate(names)) if isinstance(names, list) else names
    pictures, labels = _folders(folder, str(described.get("path") or "."), image_folder, config)
    for path in sorted(p for p in pictures.iterdir() if p.suffix.lower() in SUFFIXES):
        with row_errors.row():
            yield _yolo_photo(path, labels / f"{path.stem}.txt", words)


def _described(config: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidData(str(config), None, f"is not YAML ({error})", "repair it") from error
    if not isinstance(described, dict) or not isinstance(described.get("names"), list | dict | None):
        raise InvalidData(str(config), None, "does not describe a data set", "write path, train, val and names")
    return described


def _folders(folder: Path, root: str, image_folder: str, config: Path) -> tuple[Path, Path]:
    """The split's pictures - YOLO's path/place, or beside the folder of labels, as in shared exports - and labels."""
    existing = [
        p for p in (folder / root / image_folder, folder.parent / image_folder) if p.is_dir() and any(p.iterdir())
    ]
    if not existing:
        raise InvalidData(
            str(config), "path", f"no pictures at {folder / root / image_folder}", "put the pictures there"
        )
    label_folder = "labels".join(image_folder.rsplit("images", 1))
    labels = next((p for p in (folder / root / label_folder, folder / label_folder) if p.is_dir()), None)
    if labels is None or label_folder == image_folder:
        # Without this a wrong path would read as pictures without objects.
        raise InvalidData(
            str(config), "path", f"no labels at {folder / root / label_folder}", "put labels/ beside images/"
        )
    return existing[0], labels


def _yolo_photo(path: Path, labels: Path, words: dict[int, Any]) -> Photo:
    size = check_picture(path, str(path))
    width, height = size
    regions = []
    # No label file means a picture without objects: that is YOLO's own rule.
    for number, line in enumerate(labels.read_text().splitlines() if labels.is_file() else [], start=1):
        where = f"{labels}, line {number}"
        try:
            kind, *values = line.split()
            category, numbers = str(words[int(kind)]), [float(v) for v in values]
            cx, cy, w, h = numbers if len(numbers) == 4 else _box_of_outline(numbers)
        except (ValueError, KeyError):
            raise InvalidData(
                where, None, f"{line!r} is no YOLO label", "write: class cx cy w h, as parts of 1"
            ) from None
        box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        box = checked_box(box, size, where)
        regions.append(Thing(category, box, w * h >= SMALLEST))
    return Photo(path, size, regions)


def _box_of_outline(numbers: list[float]) -> tuple[float, float, float, float]:
    """The box of a YOLO segmentation label."""
    xs, ys = numbers[::2], numbers[1::2]
    if len(xs) != len(ys) or len(xs) < 3:
        raise ValueError("no outline")
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)


def _coco(images: Path, annotations: Path, row_errors: RowErrors) -> Iterator[Photo]:
    coco = read_coco(annotations)
    for key in sorted(coco.imgs):
        image = coco.imgs[key]
        where = f"{annotations}, image {key}"
        with row_errors.row():
            size = check_picture(images / image["file_name"], where)
            declared, remedy = (
                (image.get("width") or size[0], image.get("height") or size[1]),
                "use COCO's own pictures",
            )
            check_size(declared, size, where, "the file", remedy)
            regions = []
            for annotation in coco.imgToAnns[key]:
                inside = f"{annotations}, annotation {annotation['id']}"
                box = checked_box(annotation["bbox"], size, inside, "bbox", xywh=True)
                area = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
                category, crowd = coco.cats[annotation["category_id"]]["name"], bool(annotation.get("iscrowd"))
                regions.append(Thing(category, box, area >= SMALLEST, crowd))
            yield Photo(images / image["file_name"], size, regions)


def _area(region: Thing) -> float:
    return (region.box[2] - region.box[0]) * (region.box[3] - region.box[1])


def _centre(region: Thing) -> tuple[float, float]:
    return (region.box[0] + region.box[2]) / 2, (region.box[1] + region.box[3]) / 2


def _ratio(first: Thing, second: Thing) -> float:
    areas = sorted((_area(first), _area(second)))
    return areas[1] / areas[0]
