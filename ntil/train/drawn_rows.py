"""The rows of a training and the order in which they are drawn: curriculum, packing, augmentation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset
from torch.utils.data import Sampler

from ntil.components import Components
from ntil.config.schema import RunConfig
from ntil.train.augmentation import AugmentedRows, TimesDrawn
from ntil.train.order import training_order
from ntil.train.packing import Packing, packing_of


@dataclass(frozen=True)
class DrawnRows:
    """Rows and their order.

    Attributes:
        rows: what indices of the order are looked up in.
        sampler: the indices of all steps.
        batches: those of every micro-batch; None: equally many, in the sampler's order.
        packed: of a packed training.
    """

    rows: Any
    sampler: Sampler[int]
    batches: Sampler[list[int]] | None
    packed: Packing | None

    @classmethod
    def of(cls, config: RunConfig, components: Components, rows: Dataset, steps: int, pieces: int) -> DrawnRows:
        """The order of `steps` steps, each in `pieces` micro-batches over ranks and accumulation.

        Raises:
            UserError: a curriculum, packing or augmentation that doesn't fit the rows.
        """
        packed = packing_of(config, components, rows)
        sampler = training_order(config, components.task, rows, steps, packed.pictures if packed else None)
        batches = packed.balanced(sampler, config.optim.batch_size, pieces) if packed else None
        order = cls(packed.rows if packed else rows, sampler, batches, packed)
        return order.augmented(config, components, rows) if config.augment.on else order

    def augmented(self, config: RunConfig, components: Components, rows: Dataset) -> DrawnRows:
        """The same rows in the same order, with pictures that change each time."""
        pictures = self.packed.pictures if self.packed else None
        changed = AugmentedRows(rows, components.task, config.augment, config.seed, self.rows, pictures)
        batches = None if self.batches is None else TimesDrawn(self.batches, rows["id"])
        return replace(self, rows=changed, sampler=TimesDrawn(self.sampler, rows["id"]), batches=batches)
