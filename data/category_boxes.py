"""Photographs with category boxes, turned into expressions that need counting and comparing: "the largest dog".

Two layouts, told apart by what lies in the folder:

    YOLO   <folder>/config.yaml (or data.yaml) with path, train/val/test and names; labels/ beside images/
    COCO   an annotation file `annotations=<json>` and its folder of pictures `images`

A category that occurs once gives "the dog"; one that occurs 2 to `CROWD` times gives "the largest dog", "the
smallest", "the leftmost", "the rightmost", "the topmost" and "the lowest", each only where the object leads the next by
a clear margin, so that a careful person could not choose another. Objects below 1 % of the picture are never meant, but
they count as rivals. Of a category with a crowd annotation (one box around several) nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from datasets import Dataset

from data.broken import BrokenInput, Table, Tolerance
from data.grounding_rows import FEATURES, checked_box
from data.pictures import check_picture, check_size, stored
from data.refer import read_coco

CROWD = 6
SMALLEST = 0.01  # of the picture's area
SUFFIXES = (".jpg", ".jpeg", ".png")


class Thing(NamedTuple):
    category: str
    box: list[float]
    meant: bool  # may an expression mean it?
    crowd: bool = False  # one box around several


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
        if any(thing.crowd for thing in things):
            continue  # who knows which of them is smallest, or leftmost
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
    described = _described(config)
    names, place = described.get("names"), described.get(split)
    if not names or not isinstance(place, str):
        splits = [s for s in ("train", "val", "test") if described.get(s)]
        problem = "no such split with one folder of pictures, or no names"
        raise BrokenInput(str(config), split, problem, f"choose of {', '.join(splits) or 'none'}")
    words = dict(enumerate(names)) if isinstance(names, list) else names
    pictures, labels = _folders(folder, str(described.get("path") or "."), place, config)
    for path in sorted(p for p in pictures.iterdir() if p.suffix.lower() in SUFFIXES):
        with tolerance.row():
            yield _yolo_photo(path, labels / f"{path.stem}.txt", words)


def _described(config: Path) -> dict[str, Any]:
    try:
        described = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BrokenInput(str(config), None, f"is not YAML ({error})", "mend it") from error
    if not isinstance(described, dict) or not isinstance(described.get("names"), list | dict | None):
        raise BrokenInput(str(config), None, "does not describe a data set", "write path, train, val and names")
    return described


def _folders(folder: Path, root: str, place: str, config: Path) -> tuple[Path, Path]:
    """The split's pictures - YOLO's path/place, or beside the folder of labels, as in shared exports - and labels."""
    found = [p for p in (folder / root / place, folder.parent / place) if p.is_dir() and any(p.iterdir())]
    if not found:
        raise BrokenInput(str(config), "path", f"no pictures at {folder / root / place}", "put the pictures there")
    written = "labels".join(place.rsplit("images", 1))
    labels = next((p for p in (folder / root / written, folder / written) if p.is_dir()), None)
    if labels is None or written == place:
        # Without this a wrong path would read as pictures in which there is nothing.
        raise BrokenInput(str(config), "path", f"no labels at {folder / root / written}", "put labels/ beside images/")
    return found[0], labels


def _yolo_photo(path: Path, labels: Path, words: dict[int, Any]) -> Photo:
    size = check_picture(path, str(path))
    width, height = size
    things = []
    # No label file means a picture without objects: that is YOLO's own rule.
    for number, line in enumerate(labels.read_text().splitlines() if labels.is_file() else [], start=1):
        where = f"{labels}, line {number}"
        try:
            kind, *values = line.split()
            category, numbers = str(words[int(kind)]), [float(v) for v in values]
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
            said, remedy = (image.get("width") or size[0], image.get("height") or size[1]), "use COCO's own pictures"
            check_size(said, size, where, "the file", remedy)
            things = []
            for annotation in coco.imgToAnns[key]:
                inside = f"{annotations}, annotation {annotation['id']}"
                box = checked_box(annotation["bbox"], size, inside, "bbox", xywh=True)
                area = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
                category, crowd = coco.cats[annotation["category_id"]]["name"], bool(annotation.get("iscrowd"))
                things.append(Thing(category, box, area >= SMALLEST, crowd))
            yield Photo(images / image["file_name"], size, things)


def _area(thing: Thing) -> float:
    return (thing.box[2] - thing.box[0]) * (thing.box[3] - thing.box[1])


def _centre(thing: Thing) -> tuple[float, float]:
    return (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2


def _ratio(first: Thing, second: Thing) -> float:
    areas = sorted((_area(first), _area(second)))
    return areas[1] / areas[0]
