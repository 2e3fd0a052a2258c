"""All objects of photographs with category boxes: COCO's instances, or a YOLO folder.

One row is one picture. Asked for are the names of its categories and of `absent` others, which a model must not see;
`names` asks for the same names in every picture. Layouts, checks of files and boxes: `data.grounding.categories`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from datasets import Dataset

from data.common.column_form import read_with_evidence
from data.common.errors import InvalidData, InvalidOption, OnError, RowErrors
from data.common.rows import RowWriter
from data.grounding.categories import CategoryBoxes, Photo, photos
from data.objects.schema import FEATURES, TRUTH, objects_row


class PhotoObjects(CategoryBoxes):
    """Source of all objects of photographs.

    Args:
        folder: of a YOLO data set, or of COCO's pictures.
        annotations: split -> COCO annotation file; without any the folder is a YOLO one.
        images: the folder of COCO's pictures, where it isn't `folder`.
        splits: split as asked for -> the folder's own name.
        names: the categories asked for in every picture; null: those of the picture, and `absent` others.
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
            known = sorted({region.category for photo in listed for region in photo.things})
            for number, photo in enumerate(listed):
                asked = self.names or self._asked(photo, known, number)
                with policy.row():
                    if not asked:
                        problem = "has no object, so no name can be asked for"
                        raise InvalidData(str(photo.path), "names", problem, "set task.source.names or absent")
                    writer.add(str(photo.path), _row(photo, asked, official))
            return writer.dataset()

        options = {"names": self.names, "absent": self.absent}
        return self._kept(split, partial(read_with_evidence, read), options)

    def _asked(self, photo: Photo, known: Sequence[str], number: int) -> list[str]:
        there = {region.category for region in photo.things}
        others = [name for name in known if name not in there]
        drawn = np.random.default_rng([0, number]).permutation(len(others))[: self.absent]
        return sorted([*there, *(others[i] for i in drawn)])


def _row(photo: Photo, asked: Sequence[str], split: str) -> dict[str, object]:
    # In an order of their own, not that of the file.
    regions = sorted((r for r in photo.things if r.category in asked), key=lambda r: (r.category, r.box))
    boxes, labels, crowd = ([getattr(r, name) for r in regions] for name in ("box", "category", "crowd"))
    picture = photo.picture, photo.size
    question = ", ".join(asked)
    return objects_row(f"{split}-{photo.name}", picture, question, boxes, split, labels, crowd, asked=asked)
