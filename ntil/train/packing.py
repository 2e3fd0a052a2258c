"""What a packed training needs besides: rows with shared pictures, their collator, and which row has which picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from torch.utils.data import Sampler

from ntil.collator import SharedPictureCollator
from ntil.components import Components
from ntil.config.schema import RunConfig
from ntil.packing.balance import BalancedBatches, RowSizes
from ntil.packing.collator import PackedCollator
from ntil.packing.rows import SharedPictures, picture_numbers
from ntil.packing.tower import SharedTower, TowerCollator


@dataclass(frozen=True)
class Packing:
    """Rows, collator and the number of each row's picture."""

    rows: SharedPictures
    collator: SharedPictureCollator
    mode: str
    pictures: np.ndarray
    sizes: RowSizes

    def tower(self, model: Any) -> SharedTower | None:
        """What makes the model follow the plans of the batches; None where they have none."""
        return SharedTower(model) if self.mode == "tower" else None

    def balanced(self, sampler: Sampler[int], batch: int, pieces: int) -> BalancedBatches | None:
        """The steps' micro-batches by tokens; None where they have equally many rows."""
        if self.mode != "tokens":
            return None
        return BalancedBatches(sampler, batch, pieces, self.sizes, self.pictures)


def packing_of(config: RunConfig, components: Components, rows: Dataset) -> Packing | None:
    """What a packed training on these rows needs; None for one that isn't packed.

    Raises:
        ConfigError: a model for which packing isn't exact.
    """
    if not config.packing.on:
        return None
    task, together = components.task, components.collator
    return Packing(
        SharedPictures(rows, task),
        PackedCollator(together, config.packing) if config.packing.shares_tokens else TowerCollator(together),
        config.packing.mode,
        picture_numbers(rows, task),
        RowSizes(rows, task, components.family),
    )
