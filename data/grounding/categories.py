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

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from datasets import Dataset

from data.common import fields
from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, OnError, RowErrors, short
from data.common.fields import Key
from data.common.frames import Frames, Picture
from data.common.images import check_picture, picture_path, stored
from data.common.row_cache import Read, cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, matching_file, matching_files, optional_path, require_folder, without_nulls
from data.grounding import yolo
from data.grounding.coco import Coco, Entry, declared_size, read_coco, refuse_repeated_pictures
from data.grounding.schema import FEATURES, BoxColumn

CROWD = 6
SMALLEST = 0.01  # of the picture's area


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
        folder, official, annotations = self._place(split)
        return self._kept(split, partial(load, folder, official, annotations), {})

    def _place(self, split: str) -> tuple[Path, str, Path | None]:
        """Folder, the folder's own name of a split, and its annotation file, None in a YOLO folder."""
        official = self.official.get(split, split)
        if not self.annotations:
            return self.folder, official, None
        return self.images or self.folder, official, matching_file(self.annotations, split, "annotations")

    def _kept(self, split: str, read: Read, options: dict[str, Any]) -> Dataset:
        folder, official, annotations = self._place(split)
        files = [annotations] if annotations else yolo.locate(folder, official).files()
        options = {**options, "folder": str(folder.absolute())}
        return cached_rows(self, official, files, options, self.row_errors, lambda _: {official: read})

    def check_split(self, split: str) -> None:
        """Check the splits of COCO files; a YOLO folder's own split names are known only when it is read."""
        if self.annotations:
            super().check_split(split)

    def check_files(self) -> None:
        require_folder(self.images or self.folder, "set task.source.folder to the photographs")
        if not self.annotations:
            yolo.description_file(self.folder)
        for split in self.annotations:
            matching_files(self.annotations, split, "annotations")


class Thing(NamedTuple):
    """Annotated object; `box` is x1, y1, x2, y2 in pixels."""

    category: str
    box: list[float]
    meant: bool  # an expression may refer to it
    crowd: bool = False  # one box around several


class Photo(NamedTuple):
    """Picture file, as rows store it, with its width and height, its objects and its name in ids."""

    path: Path
    picture: Picture
    size: tuple[int, int]
    things: list[Thing]
    name: str  # in ids


def load(folder: Path, split: str, annotations: Path | None, row_errors: RowErrors) -> Dataset:
    """Expressions made from one split of a folder, in a fixed order.

    Raises:
        InvalidData: a missing file or split, or (on_error=raise) a broken picture or box.
    """

    def read(policy: RowErrors) -> Dataset:
        writer = RowWriter(FEATURES, f"{folder}, split {split}", policy)
        for photo in _coco(folder, annotations, policy) if annotations else _yolo(folder, split, policy):
            for index, (expression, region, level) in enumerate(expressions(photo)):
                row = {
                    "id": f"{split}-{photo.name}-{index}",
                    "image": photo.picture,
                    "width": photo.size[0],
                    "height": photo.size[1],
                    "expression": expression,
                    "box": region.box,
                    "split": split,
                    "level": level,
                }
                with policy.row():
                    writer.add(str(photo.path), row)
        return writer.dataset()

    return read_with_evidence(read, row_errors)


def photos(folder: Path, split: str, annotations: Path | None, row_errors: RowErrors) -> Iterator[Photo]:
    """The pictures of one split with their objects, in a fixed order; `annotations` is None for a YOLO folder.

    Raises:
        InvalidData: a missing file or split, or (on_error=raise) a broken picture or box.
    """
    return _coco(folder, annotations, row_errors) if annotations else _yolo(folder, split, row_errors)


def category_names(folder: Path, split: str, annotations: Path | None) -> list[str]:
    """The names that the annotation file, or the YOLO description, gives its categories, used or not."""
    if annotations is None:
        return list(yolo.read_layout(folder, split, RowErrors("skip")).names.values())
    return [str(entry.get("name")) for entry in read_coco(annotations, RowErrors("skip")).categories.entries.values()]


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
    layout = yolo.read_layout(folder, split, row_errors)
    boxes, frames, repeated = BoxColumn("cxcywh", "fractions"), Frames("shown"), 0
    sharing = layout.sharing_labels()
    for path, name in zip(layout.pictures, short_names(layout.relative_names()), strict=True):
        with row_errors.row():
            if path in sharing:
                raise sharing[path]
            picture, size = frames.choose(
                stored(path), check_picture(path, str(path)), (None, None), str(path), "the file", "fetch it again"
            )
            labels = yolo.read_labels(layout.labels_of(path), layout.names, layout.keypoints)
            once = {(label.category, *label.box): label for label in labels}
            repeated += len(labels) - len(once)
            regions = [
                Thing(label.category, boxes.read(label.box, size, label.where, "box"), label.area >= SMALLEST)
                for label in once.values()
            ]
            yield Photo(path, picture, size, regions, name)
    if repeated:
        row_errors.note(str(layout.labels), f"{repeated} labels are there twice, and read once")
    frames.note(f"{layout.config}, split {split}", row_errors)
    boxes.check(str(layout.config), "labels", row_errors)


def image_names(coco: Coco) -> dict[Key, str]:
    """Id of every usable image of a file -> its name in the ids of rows, in order."""
    keys = [key for key in sorted(coco.images.entries, key=fields.key_order) if key not in coco.images.broken]
    names = short_names([str(coco.images.entries[key].get("file_name")) for key in keys])
    return dict(zip(keys, names, strict=True))


def _coco(images: Path, annotations: Path, row_errors: RowErrors) -> Iterator[Photo]:
    coco = read_coco(annotations, row_errors)
    refuse_repeated_pictures(coco)
    for error in coco.images.broken.values():
        with row_errors.row():
            raise error
    if coco.homeless:
        with row_errors.row():
            problem = (
                f"{len(coco.homeless)} annotations are of no image of the file, the first is {coco.homeless[0].where}"
            )
            raise InvalidData(str(annotations), "image_id", problem, "correct the ids, or drop the annotations")
    boxes, frames = BoxColumn("xywh"), Frames("stored")
    repeated = 0
    for key, name in image_names(coco).items():
        with row_errors.row():
            photo = _coco_photo(coco, key, name, images, boxes, frames)
            once = {(region.category, region.crowd, *region.box): region for region in photo.things}
            repeated += len(photo.things) - len(once)
            yield photo._replace(things=list(once.values()))
    if repeated:
        row_errors.note(str(annotations), f"{repeated} annotations repeat another's category and box, read once")
    frames.note(str(annotations), row_errors)
    boxes.check(str(annotations), "bbox", row_errors)


def _coco_photo(coco: Coco, key: Key, name: str, images: Path, boxes: BoxColumn, frames: Frames) -> Photo:
    where = f"{coco.path}, image {key}"
    image = coco.images.get(key)
    assert image is not None
    path = picture_path(image.get("file_name"), images, where, "file_name")
    declared, remedy = declared_size(image, where), "use COCO's own pictures"
    picture, size = frames.choose(stored(path), check_picture(path, where), declared, where, "the file", remedy)
    regions = []
    for inside, annotation in coco.of_image[key]:
        box = boxes.read(annotation.get("bbox"), size, inside, "bbox")
        area = (box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1])
        crowd = fields.flag(annotation.get("iscrowd"), inside, "iscrowd")
        regions.append(Thing(_category(coco, annotation, inside), box, area >= SMALLEST, crowd))
    return Photo(path, picture, size, regions, name)


def _category(coco: Coco, annotation: Entry, where: str) -> str:
    key = fields.key(annotation.get("category_id"), where, "category_id", "correct the annotation")
    category = coco.categories.get(key)
    if category is None:
        problem = f"the file has no category {short(key)}" if coco.categories.entries else "the file has no categories"
        raise InvalidData(where, "category_id", problem, "add it to categories: its name is what is asked for")
    return fields.text(category.get("name"), f"{coco.path}, category {key}", "name", "name the category")


def short_names(paths: Sequence[str]) -> list[str]:
    """Names of pictures in ids: a file's stem, and where two pictures share one, the path."""
    stems = [PurePosixPath(path).stem for path in paths]
    count = Counter(stems)
    return [stem if count[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]


def _area(region: Thing) -> float:
    return (region.box[2] - region.box[0]) * (region.box[3] - region.box[1])


def _centre(region: Thing) -> tuple[float, float]:
    return (region.box[0] + region.box[2]) / 2, (region.box[1] + region.box[3]) / 2


def _ratio(first: Thing, second: Thing) -> float:
    areas = sorted((_area(first), _area(second)))
    return areas[1] / areas[0]
