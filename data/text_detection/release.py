"""Photographs with annotated text: a release's ground truth joined with its pictures.

Formats: `data.text_detection.ground_truth`. A picture without ground truth is an error (a picture without text has an
empty file in the releases); so is ground truth without its picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from datasets import Dataset

from data.common.column_form import read_with_evidence
from data.common.counts import counted
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors
from data.common.frames import Frames
from data.common.images import check_picture, picture_path, stored
from data.common.row_cache import cached_rows
from data.common.rows import RowWriter
from data.common.source import Source, require_folder, without_nulls
from data.text_detection.ground_truth import Annotated, Format, key_of, truth_readers
from data.text_detection.schema import FEATURES, OutlineColumn

# Training pictures of the releases.
PUBLISHED = {"icdar2013": 229, "icdar2015": 1000, "totaltext": 1255, "ctw1500": 1000}
PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff")


class TextRelease(Source):
    """Source of a release of annotated photographs.

    Args:
        format: of the ground truth, see `data.text_detection.ground_truth`.
        truth, images: split -> path of its ground truth, of its pictures, or null.
        holdout: share of the training pictures, every n-th, that is the validation split where `truth` has none. The
            official releases have none, and nothing may be chosen by scores on the test split.
        on_error: what to do with a broken row.
    """

    def __init__(
        self,
        format: Format,
        truth: Mapping[str, str | None],
        images: Mapping[str, str | None],
        holdout: float = 0.1,
        on_error: OnError = "raise",
    ) -> None:
        self.truth, self.images = without_nulls(truth), without_nulls(images)
        if not self.truth or not self.images:
            raise InvalidOption(f"give task.source.truth.<split> and task.source.images.<split>, got {truth}, {images}")
        if not 0 < holdout <= 0.5:
            raise InvalidOption(f"task.source.holdout must be above 0 and at most 0.5, got {holdout}")
        self.format, self.every = format, round(1 / holdout)
        held_out = ("validation",) if "train" in self.truth and "validation" not in self.truth else ()
        self.splits, self.row_errors = (*self.truth, *held_out), RowErrors(on_error)

    def rows(self, split: str) -> Dataset:
        shared = "validation" not in self.truth and split in ("train", "validation")
        stored_split = "train" if shared else split
        truth, images = self._paths(stored_split)
        read, options = partial(load, truth, images, self.format, stored_split), {"format": self.format}
        files = [truth, images]
        rows = cached_rows(self, stored_split, files, options, self.row_errors, lambda _: {stored_split: read})
        if not shared:
            return rows
        chosen = [i for i in range(len(rows)) if (i % self.every == self.every - 1) == (split == "validation")]
        if not chosen:
            problem = f"{counted(len(rows), 'training picture')}, so none to hold out"
            remedy = "set task.source.truth.validation or raise task.source.holdout"
            raise InvalidData(self.truth[stored_split], None, problem, remedy)
        return rows.select(chosen)

    def expected_rows(self, split: str) -> int | None:
        published = PUBLISHED.get(self.format)
        if split not in ("train", "validation") or published is None or (split in self.truth and split != "train"):
            return None
        held_out = published // self.every if "validation" in self.splits and "validation" not in self.truth else 0
        return held_out if split == "validation" else published - held_out

    def check_files(self) -> None:
        for split in self.truth:
            truth, images = self._paths(split)
            # A path may lead into a zip.
            if not any(path.exists() for path in (truth, *truth.parents[:-1]) if path != Path()):
                raise InvalidData(str(truth), None, "there is no such file", f"correct task.source.truth.{split}")
            require_folder(images, f"correct task.source.images.{split}")

    def _paths(self, split: str) -> tuple[Path, Path]:
        if split not in self.truth or split not in self.images:
            raise InvalidOption(
                f"task.source.truth and task.source.images must name the split {split!r}; "
                f"set task.source.truth.{split}=..."
            )
        return Path(self.truth[split]).expanduser(), Path(self.images[split]).expanduser()


def load(truth: Path, images: Path, form: Format, split: str, row_errors: RowErrors) -> Dataset:
    """The pictures of one split with their text, in the order of their numbers.

    Raises:
        InvalidData: a path that isn't there, ground truth that can't be read, or (on_error=raise) a row of no use.
    """
    return read_with_evidence(partial(_load, truth, images, form, split), row_errors)


def _load(truth: Path, images: Path, form: Format, split: str, row_errors: RowErrors) -> Dataset:
    readers = truth_readers(truth, form)
    if not images.is_dir():
        remedy = f"unpack the release's pictures and set task.source.images.{split} to their folder"
        raise InvalidData(str(images), None, "there is no such folder", remedy)
    pictures = None if form == "mmocr" else _pictures(images)
    writer = RowWriter(FEATURES, f"{truth}, split {split}", row_errors)
    column, read_so_far = OutlineColumn(rectangles=form == "icdar2013"), list[Annotated]()
    frames = Frames("stored")
    for key, read in readers.items():
        with row_errors.row():
            one = read()
            path = (
                picture_path(one.picture, images, one.where, "img_path")
                if pictures is None
                else _picture(pictures, key, images, one)
            )
            declared, remedy = one.declared or (None, None), "use the pictures that it was made on"
            file_size = check_picture(path, one.where)
            picture, size = frames.choose(stored(path), file_size, declared, one.where, "the file", remedy)
            column.check_instances(one.instances, size, one.where)
            row = {
                "id": key,
                "image": picture,
                "width": size[0],
                "height": size[1],
                "polygons": [i.points for i in one.instances],
                "ignore": [i.ignore for i in one.instances],
                "texts": [i.text for i in one.instances],
                "split": split,
                "level": 0,
            }
            writer.add(one.where, row)
            read_so_far.append(one)
    for key, paths in sorted((pictures or {}).items()):
        if key in readers:
            continue
        with row_errors.row():
            raise InvalidData(str(paths[0]), None, "has no ground truth", f"compare its name with {truth}")
    frames.note(f"{truth}, split {split}", row_errors)
    column.check(str(truth))
    _note_oddities(read_so_far, truth, row_errors)
    return writer.dataset()


def _note_oddities(annotated: list[Annotated], truth: Path, row_errors: RowErrors) -> None:
    """Note what costs no picture: outlines given twice, without a transcription among others, or not in UTF-8."""
    legible = {one.where: [i for i in one.instances if not i.ignore] for one in annotated}
    repeated = [
        where for where, instances in legible.items() if len({tuple(i.points) for i in instances}) < len(instances)
    ]
    texts = [(where, i.text) for where, instances in legible.items() for i in instances]
    bare = [where for where, text in texts if not text]
    damaged = [where for where, text in texts if "\ufffd" in text]
    for places, what in (
        (repeated, "pictures have an outline twice, of which at most one can be matched"),
        (bare if len(bare) < len(texts) else [], "outlines have no transcription, though others have"),
        (damaged, "transcriptions aren't UTF-8, and are read with question marks"),
    ):
        if places:
            row_errors.note(str(truth), f"{len(places)} {what}; the first in {places[0]}")


def _pictures(folder: Path) -> dict[str, list[Path]]:
    paths: dict[str, list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.name[0] not in "._"):
        paths.setdefault(key_of(path.stem), []).append(path)
    return paths


def _picture(pictures: dict[str, list[Path]], key: str, folder: Path, one: Annotated) -> Path:
    paths = pictures.get(key, [])
    if len(paths) > 1:
        problem = f"{paths[0]} and {paths[1]} both belong to picture {key}"
        raise InvalidData(one.where, "image", problem, "point task.source.images at the pictures of one split")
    if not paths:
        raise InvalidData(one.where, "image", f"{folder} has no picture {key}", "fetch it or drop the row")
    return paths[0]
