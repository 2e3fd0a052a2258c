"""All objects of photographs with category boxes: COCO's instances, or a YOLO folder.

One row is one picture. Asked for are the names of its categories and of `absent` others, which a model must not see;
`names` asks for the same names in every picture. Layouts, checks of files and boxes: `data.grounding.categories`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial

import numpy as np
from datasets import Dataset

from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors
from data.common.rows import RowWriter
from data.grounding.categories import CategoryBoxes, Photo, category_names, photos
from data.objects.schema import FEATURES, TRUTH, objects_row, plain_label


class PhotoObjects(CategoryBoxes):
    """Source of all objects of photographs.

    Args:
        folder: of a YOLO data set, or of COCO's pictures.
        annotations: split -> COCO annotation file; without any the folder is a YOLO one.
        images: the folder of COCO's pictures, where it isn't `folder`.
        splits: split as asked for -> the folder's own name.
        names: the categories asked for in every picture, but where it has crowds of one alone; null: those of the
            picture, and `absent` others.
        absent: how many names of categories that aren't in the picture are asked for.
        on_error: what to do with a broken row.
    """

    def __init__(
        self,
        folder: str,
        annotations: dict[str, str | None] | None = None,
        images: str | None = None,
        splits: dict[str, str] | None = None,
        names: list[str] | None = None,
        absent: int = 1,
        on_error: OnError = "raise",
    ) -> None:
        if absent < 0:
            raise InvalidOption(f"task.source.absent must be at least 0, got {absent}")
        super().__init__(folder, annotations, images, splits, on_error)
        self.names, self.absent = names, absent

    def rows(self, split: str) -> Dataset:
        folder, official, annotations = self._place(split)

        def read(policy: RowErrors) -> Dataset:
            writer = RowWriter(FEATURES, f"{folder}, split {official}", policy, "question", TRUTH)
            listed = list(photos(folder, official, annotations, policy))
            categories = sorted({region.category for photo in listed for region in photo.things})
            declared = partial(category_names, folder, official, annotations)
            names = self._names(categories, declared) if self.names else []
            for number, photo in enumerate(listed):
                asked = self._asked(photo, names, categories, number)
                if names and not asked:
                    policy.note(str(photo.path), f"left out: of {', '.join(names)} it has crowds alone")
                    continue
                with policy.row():
                    if not asked:
                        problem = "has no object, so no name can be asked for"
                        raise InvalidData(str(photo.path), "names", problem, "set task.source.names or absent")
                    writer.add(str(photo.path), _row(photo, asked, official))
            return writer.dataset()

        options = {"names": self.names, "absent": self.absent}
        return self._kept(split, partial(read_with_evidence, read), options)

    def _names(self, categories: Sequence[str], declared: Callable[[], list[str]]) -> list[str]:
        """`names` as the data set spells them.

        Args:
            categories: of the pictures. declared: reads the names of all that the data set has, pictured or not.

        Raises:
            InvalidOption: one that it hasn't; every answer to it would be that there is none.
        """
        spelt = {plain_label(name): name for name in categories}
        if any(plain_label(name) not in spelt for name in self.names or ()):
            spelt = {plain_label(name): name for name in declared()} | spelt
        for name in self.names or ():
            if plain_label(name) not in spelt:
                near = get_close_matches(plain_label(name), spelt, n=1)
                hint = f"did you mean {spelt[near[0]]!r}?" if near else f"known: {', '.join(sorted(spelt.values()))}"
                raise InvalidOption(f"task.source.names: {self.folder} has no category {name!r}; {hint}")
        return [spelt[plain_label(name)] for name in self.names or ()]

    def _asked(self, photo: Photo, names: Sequence[str], categories: Sequence[str], number: int) -> list[str]:
        """`names`, or where there are none the photograph's own and `absent` others."""
        crowds = _only_crowds(photo)
        if names:
            return [name for name in names if name not in crowds]
        there = {region.category for region in photo.things} - crowds
        others = [name for name in categories if name not in there and name not in crowds]
        drawn = np.random.default_rng([0, number]).permutation(len(others))[: self.absent]
        return sorted([*there, *(others[i] for i in drawn)])


def _only_crowds(photo: Photo) -> set[str]:
    """Categories of which a picture has crowds alone: neither its boxes nor that there are none could be taught."""
    single = {region.category for region in photo.things if not region.crowd}
    return {region.category for region in photo.things} - single


def _row(photo: Photo, asked: Sequence[str], split: str) -> dict[str, object]:
    # In an order of their own, not that of the file.
    regions = sorted((r for r in photo.things if r.category in asked), key=lambda r: (r.category, r.box))
    boxes, labels, crowd = ([getattr(r, name) for r in regions] for name in ("box", "category", "crowd"))
    picture = photo.picture, photo.size
    question = ", ".join(asked)
    return objects_row(f"{split}-{photo.name}", picture, question, boxes, split, labels, crowd, asked=asked)
