"""Augmented training rows: a function of the run's seed, the row, and how often it was drawn before.

What is drawn belongs to a picture, not to a row: in one pass all questions on a picture see it alike, so that packing
shares it as before, and no crop cuts what any of them asks for. The same for every loss, rank and number of data
workers; a resumed run draws what the interrupted one would have drawn, since it counts the rows that it skips.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from data.augment.directions import word_of_place, word_of_side
from data.augment.draws import Draw, Extent, draw, extent_of, joined, moved
from data.augment.options import AugmentConfig
from data.augment.pictures import augmented
from data.common.errors import short
from data.common.rows import Row, image_columns
from ntil.config.errors import ConfigError
from ntil.packing.rows import picture_numbers
from tasks.base import Task

TIMES = "~"  # between a row's id and how often it was drawn before


class AugmentedRows(TorchDataset[Row]):
    """Rows with augmented pictures; index `row + len(rows) * times`, see `TimesDrawn`.

    Args:
        rows: to train on.
        base: gives them decoded; by default `rows`.
        pictures: [rows] number of each row's picture, where it is known already.

    Raises:
        InvalidOption: the task's answers don't survive what is asked for.
        ConfigError: a row without a picture, or one that says where something is.
    """

    def __init__(
        self,
        rows: Dataset,
        task: Task,
        options: AugmentConfig,
        seed: int,
        base: Any = None,
        pictures: np.ndarray | None = None,
    ) -> None:
        task.check_augmentation(options.names)
        if "image" not in rows.column_names or any(image is None for image in _presence(rows)):
            raise ConfigError("augment: there are training rows without a picture; set augment=none")
        self.rows, self.options, self.seed = rows, options, seed
        self._base = rows if base is None else base
        self._pictures = picture_numbers(rows, task) if pictures is None else pictures
        self._labels = _Labels(rows, task, options, self._pictures)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        drawn = [divmod(int(index), len(self.rows)) for index in indices]
        decoded = self._base.__getitems__([row for _, row in drawn])
        shared: dict[tuple[int, int], tuple[Draw, Image.Image]] = {}
        result = []
        for (times, index), row in zip(drawn, decoded, strict=True):
            key = int(self._pictures[index]), times
            if key not in shared:
                change = self._draw(*key, row["image"].size)
                shared[key] = change, augmented(row["image"], change)
            change, picture = shared[key]
            result.append({**moved(row, change), "image": picture, "id": f"{row['id']}{TIMES}{times}"})
        return result

    def by_ids(self, ids: Sequence[str]) -> list[Row]:
        """The rows of a training batch again, by the ids that they had in it.

        Raises:
            KeyError: there is no such row.
        """
        index = {str(name): number for number, name in enumerate(self.rows["id"])}
        parts = (name.rpartition(TIMES) for name in ids)
        return self.__getitems__([index[name] + len(self.rows) * int(times) for name, _, times in parts])

    def _draw(self, picture: int, times: int, size: tuple[int, int]) -> Draw:
        rng = np.random.default_rng([self.seed, times, picture])
        labels = self._labels
        return draw(
            self.options,
            rng,
            size,
            labels.extents.get(picture),
            may_crop=picture not in labels.uncropped,
            may_mirror=picture not in labels.unmirrored,
        )


class _Labels:
    """What all rows of each picture say: where things are, in numbers and in words.

    Attributes:
        extents: picture -> what is labelled in it.
        unmirrored, uncropped: pictures whose rows have words of direction.
    """

    def __init__(self, rows: Dataset, task: Task, options: AugmentConfig, pictures: np.ndarray) -> None:
        self.extents: dict[int, Extent | None] = {}
        self.unmirrored, self.uncropped = set[int](), set[int]()
        self._options, self._task = options, task
        if options.flip is None and options.crop is None:
            return
        for row, picture in zip(rows.remove_columns(image_columns(rows)), pictures.tolist(), strict=True):
            self.extents[picture] = joined(self.extents.get(picture), extent_of(row))
            self._read(row, picture)

    def _read(self, row: Row, picture: int) -> None:
        text = f"{self._task.prompt(row)} {self._task.answer(row)}"
        if self._options.flip is not None and (word := word_of_side(text)):
            self._directional(row, text, word, "flip")
            self.unmirrored.add(picture)
        if self._options.crop is not None and (word := word_of_place(text)):
            self._directional(row, text, word, "crop")
            self.uncropped.add(picture)

    def _directional(self, row: Row, text: str, word: str, name: str) -> None:
        if not self._options.skip_directional:
            changed = "mirrored" if name == "flip" else "cropped"
            raise ConfigError(
                f"augment.{name}: row {row['id']} says {word!r} in {short(text)}, which isn't true of a {changed} "
                f"picture; set augment.skip_directional=true to leave such pictures un{changed}, or augment.{name}=null"
            )


class TimesDrawn(Sampler[Any]):
    """Indices of a sampler, or its lists of them, that also say how often the row was drawn before.

    An index becomes `row + rows * times`.

    Args:
        names: of the rows; those that stand several times in a split have one name, and are counted together.
    """

    def __init__(self, sampler: Sampler[Any], names: Sequence[str]) -> None:
        self.sampler = sampler
        self.numbers = np.unique(np.asarray(list(names), dtype=str), return_inverse=True)[1]

    def __len__(self) -> int:
        count: int = len(self.sampler)  # type: ignore[arg-type]
        return count

    def __iter__(self) -> Iterator[Any]:
        times = np.zeros(len(self.numbers), dtype=np.int64)

        def numbered(row: int) -> int:
            number = self.numbers[row]
            times[number] += 1
            return int(row + len(self.numbers) * (times[number] - 1))

        for item in self.sampler:
            yield list(map(numbered, item)) if isinstance(item, list) else numbered(item)


def _presence(rows: Dataset) -> Iterator[Any]:
    """For each row something that is None where it has no picture."""
    for chunk in rows.select_columns(["image"]).with_format("arrow").iter(batch_size=1000):
        yield from (True if valid else None for valid in chunk.column("image").is_valid().to_pylist())
