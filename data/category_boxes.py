"""Photographs with category boxes, turned into expressions that need counting and comparing: "the largest dog".

Two layouts, told apart by what lies in the folder:

    YOLO   <folder>/config.yaml (or data.yaml) with path, train/val/test and names; labels/ beside images/
    COCO   an annotation file `annotations=<json>` and its folder of pictures `images`

A category that occurs once gives "the dog"; one that occurs 2 to `CROWD` times gives "the largest dog", "the
smallest", "the leftmost", "the rightmost", "the topmost" and "the lowest", each only where the object leads the next by
a clear margin, so that a careful person could not choose another. Crowd annotations and objects below 1 % of the
picture are never meant, but they count when a category's objects are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from datasets import Dataset

from data.broken import BrokenInput, Table, Tolerance
from data.grounding_rows import FEATURES, checked_box
from data.pictures import check_picture, stored
from data.refer import read_coco

CROWD = 6
SMALLEST = 0.01  # of the picture's area
SUFFIXES = (".jpg", ".jpeg", ".png")


class Thing(NamedTuple):
    category: str
    box: list[float]
    meant: bool  # may an expression mean it?


class Photo(NamedTuple):
    path: Path
    size: tuple[int, int]
    things: list[Thing]


def load(folder: Path, split: str, annotations: Path | None, tolerance: Tolerance) -> Dataset:
    """The expressions that one split of a folder gives rise to, always the same in the same order.

    Raises:
        BrokenInput: a missing file or split, or (on_error=raise) a broken picture or box.
    """
    table = Table(FEATURES, f"{folder}, split {split}", tolerance)
    for photo in _coco(folder, annotations, tolerance) if annotations else _yolo(folder, split, tolerance):
        for place, (expression, thing, level) in enumerate(expressions(photo)):
            row = {
                "id": f"{split}-{photo.path.stem}-{place}",
                "image": stored(photo.path),
                "width": photo.size[0],
                "height": photo.size[1],
                "expression": expression,
                "box": thing.box,
                "split": split,
                "level": level,
            }
            with tolerance.row():
                table.add(str(photo.path), row)
    return table.dataset()


def expressions(photo: Photo) -> Iterator[tuple[str, Thing, int]]:
    """Expressions that mean one thing only, with that thing and how many compete with it."""
    width, height = photo.size
    for category in sorted({thing.category for thing in photo.things}):
        things = [thing for thing in photo.things if thing.category == category]
        if len(things) == 1 and things[0].meant:
            yield f"the {category}", things[0], 0
        elif 2 <= len(things) <= CROWD:
            orders: list[tuple[str, Callable[[Thing], float], float]] = [
                ("largest", lambda t: _area(t), 0.0),
                ("smallest", lambda t: -_area(t), 0.0),
                ("leftmost", lambda t: -_centre(t)[0], width * 0.08),
                ("rightmost", lambda t: _centre(t)[0], width * 0.08),
                ("topmost", lambda t: -_centre(t)[1], height * 0.08),
                ("lowest", lambda t: _centre(t)[1], height * 0.08),
            ]
            for word, key, margin in orders:
                first, second = sorted(things, key=key, reverse=True)[:2]
                # Sizes are compared as a ratio, places as a part of the picture.
                clear = key(first) - key(second) >= margin if margin else _ratio(first, second) >= 1.5
                if clear and first.meant:
                    yield f"the {word} {category}", first, len(things) - 1


def _yolo(folder: Path, split: str, tolerance: Tolerance) -> Iterator[Photo]:
    config = next((folder / n for n in ("config.yaml", "data.yaml", "dataset.yaml") if (folder / n).is_file()), None)
    if config is None:
        raise BrokenInput(str(folder), None, "no config.yaml or data.yaml", "give a YOLO folder or task.annotations")
    described = yaml.safe_load(config.read_text(encoding="utf-8")) or {}
    names, place = described.get("names"), described.get(split)
    if not names or not isinstance(place, str):
        splits = [s for s in ("train", "val", "test") if described.get(s)]
        raise BrokenInput(str(config), split, "no such split, or no names", f"choose of {', '.join(splits) or 'none'}")
    words = dict(enumerate(names)) if isinstance(names, list) else {int(k): str(v) for k, v in names.items()}
    pictures = _pictures_folder(folder, str(described.get("path") or "."), place, config)
    for path in sorted(p for p in pictures.iterdir() if p.suffix.lower() in SUFFIXES):
        labels = folder / place.replace("images", "labels", 1) / f"{path.stem}.txt"
        with tolerance.row():
            yield _yolo_photo(path, labels, words)


def _pictures_folder(folder: Path, root: str, place: str, config: Path) -> Path:
    """Where the split's pictures are: YOLO's path/place, or beside the folder of labels, as in shared exports."""
    for found in (folder / root / place, folder.parent / place):
        if found.is_dir() and any(found.iterdir()):
            return found
    raise BrokenInput(str(config), "path", f"no pictures at {folder / root / place}", "put the pictures there")


def _yolo_photo(path: Path, labels: Path, words: dict[int, str]) -> Photo:
    size = check_picture(path, str(path))
    width, height = size
    things = []
    # No label file means a picture without objects: that is YOLO's own rule.
    for number, line in enumerate(labels.read_text().splitlines() if labels.is_file() else [], start=1):
        where = f"{labels}, line {number}"
        try:
            kind, *values = line.split()
            category, numbers = words[int(kind)], [float(v) for v in values]
            cx, cy, w, h = numbers if len(numbers) == 4 else _box_of_outline(numbers)
        except (ValueError, KeyError):
            raise BrokenInput(
                where, None, f"{line!r} is no YOLO label", "write: class cx cy w h, as parts of 1"
            ) from None
        box = [(cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height]
        box = checked_box(box, size, where)
        things.append(Thing(category, box, w * h >= SMALLEST))
    return Photo(path, size, things)


def _box_of_outline(numbers: list[float]) -> tuple[float, float, float, float]:
    """The box of a YOLO segmentation label."""
    xs, ys = numbers[::2], numbers[1::2]
    if len(xs) != len(ys) or len(xs) < 3:
        raise ValueError("no outline")
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2, max(xs) - min(xs), max(ys) - min(ys)


def _coco(images: Path, annotations: Path, tolerance: Tolerance) -> Iterator[Photo]:
    coco = read_coco(annotations)
    for key in sorted(coco.imgs):
        image = coco.imgs[key]
        where = f"{annotations}, image {key}"
        with tolerance.row():
            size = check_picture(images / image["file_name"], where)
            things = []
            for annotation in coco.imgToAnns[key]:
                inside = f"{annotations}, annotation {annotation['id']}"
                box = checked_box(annotation["bbox"], size, inside, "bbox", xywh=True)
                area = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
                meant = area >= SMALLEST and not annotation.get("iscrowd")
                # A crowd is more than one, so its category must never look single: count it as a rival.
                things.append(Thing(coco.cats[annotation["category_id"]]["name"], box, meant))
            yield Photo(images / image["file_name"], size, things)


def _area(thing: Thing) -> float:
    return (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1])


def _centre(thing: Thing) -> tuple[float, float]:
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


def _ratio(first: Thing, second: Thing) -> float:
    areas = sorted((_area(first), _area(second)))
    return areas[1] / areas[0]
