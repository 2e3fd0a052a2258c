"""Photographs with annotated text: a release's ground truth (see `data.text_truth`) joined with its pictures.

A picture without ground truth is an error (a picture without text has an empty file in the releases); so is ground
truth without its picture.
"""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from data.broken import BrokenInput, Table, Tolerance
from data.pictures import check_picture, stored
from data.text_rows import FEATURES, check_instances
from data.text_truth import Annotated, Format, key_of, read_truth

PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp")


def load(truth: Path, images: Path, form: Format, split: str, tolerance: Tolerance) -> Dataset:
    """The pictures of one split with their text, in the order of their numbers.

    Raises:
        BrokenInput: a path that isn't there, ground truth that can't be read, or (on_error=raise) a row of no use.
    """
    annotated = read_truth(truth, form)
    if not images.is_dir():
        remedy = f"unpack the release's pictures and set task.images.{split} to their folder"
        raise BrokenInput(str(images), None, "there is no such folder", remedy)
    pictures = None if form == "mmocr" else _pictures(images)
    table = Table(FEATURES, f"{truth}, split {split}", tolerance)
    for key, one in annotated.items():
        with tolerance.row():
            path = images / str(one.picture) if pictures is None else _picture(pictures, key, images, one)
            size = check_picture(path, one.where)
            check_instances(one.instances, size, one.where)
            row = {
                "id": key,
                "image": stored(path),
                "width": size[0],
                "height": size[1],
                "polygons": [i.points for i in one.instances],
                "ignore": [i.ignore for i in one.instances],
                "texts": [i.text for i in one.instances],
                "split": split,
                "level": 0,
            }
            table.add(one.where, row)
    for key in sorted((pictures or {}).keys() - annotated.keys()):
        with tolerance.row():
            raise BrokenInput(str(pictures[key][0]), None, "has no ground truth", f"compare its name with {truth}")
    return table.dataset()


def _pictures(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.name[0] not in "._"):
        found.setdefault(key_of(path.stem), []).append(path)
    return found


def _picture(pictures: dict[str, list[Path]], key: str, folder: Path, one: Annotated) -> Path:
    paths = pictures.get(key, [])
    if len(paths) > 1:
        problem = f"{paths[0]} and {paths[1]} both belong to picture {key}"
        raise BrokenInput(one.where, "image", problem, "point task.images at the pictures of one split")
    if not paths:
        raise BrokenInput(one.where, "image", f"{folder} has no picture {key}", "fetch it or drop the row")
    return paths[0]
