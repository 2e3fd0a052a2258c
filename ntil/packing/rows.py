"""Rows as a data set that reads a picture once for all rows of a micro-batch that show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Dataset as TorchDataset

from data.common.rows import Row, image_columns, undecoded
from tasks.base import Task


class SharedPictures(TorchDataset[Row]):
    """The rows of `rows`; those that are fetched together and show one picture hold the same decoded object."""

    def __init__(self, rows: Dataset, task: Task) -> None:
        self.rows, self.task = rows, task
        self._stored, self._columns = undecoded(rows), image_columns(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        decoded: dict[str, Any] = {}
        rows = []
        for row in (self._stored[int(index)] for index in indices):
            key = self.task.picture_key(row)
            if key is None or "image" not in self._columns:
                rows.append(self.rows.features.decode_example(row))
                continue
            if key not in decoded:
                decoded[key] = self.rows.features["image"].decode_example(row["image"])
            others = {name: self.rows.features[name] for name in self._columns if name != "image"}
            others = {name: feature.decode_example(row[name]) for name, feature in others.items() if row[name]}
            rows.append({**row, **others, "image": decoded[key]})
        return rows


def picture_numbers(rows: Dataset, task: Task) -> np.ndarray:
    """[rows] a number for each row's picture, equal where the picture is; a row without a picture has its own."""
    numbers: dict[str, int] = {}
    keys = (task.picture_key(row) for row in undecoded(rows))
    return np.array([numbers.setdefault(key or f"row {i}", len(numbers)) for i, key in enumerate(keys)])
