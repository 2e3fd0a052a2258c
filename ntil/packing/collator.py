"""Collator of packed micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ntil.collator import Collator, Layout, SharedPictureCollator, features_of, pad_id
from ntil.config.schema import PackingConfig
from ntil.models.base import Encoded
from ntil.packing.groups import fill_sequences, groups_of
from ntil.packing.refusals import check_family
from ntil.packing.sequences import pack


class PackedCollator(SharedPictureCollator):
    """Rows to a training batch in which examples that begin alike have one copy of that beginning.

    Targets, spans and all else that a loss sees are those of `Collator`, in the order of the rows; only the model's
    inputs and `positions` differ. In place of a mask of attention there is `segments` [B, 2, T], from which
    `ntil.packing.masks` makes one where it is used. A micro-batch in which nothing is shared is that of `Collator`.

    Raises:
        ConfigError: a model for which this isn't exact.
    """

    def __init__(self, collator: Collator, packing: PackingConfig) -> None:
        super().__init__(collator)
        check_family(collator.family)
        self.packing = packing
        self.image_id = self.family.image_id

    def layout(self, encoded: Sequence[Encoded]) -> Layout:
        groups = groups_of(encoded, self.image_id, self.packing.tokens)
        lengths = [len(e.prompt_ids) + len(e.answer_ids) for e in encoded]
        if self.packing.mode == "tokens":
            sequences = fill_sequences(groups, lengths, self.packing.tokens)
        else:
            sequences = [[group] for group in groups]
        if len(sequences) == len(encoded):
            return super().layout(encoded)
        packed = pack(encoded, list(map(self.family.position_ids, encoded)), sequences, pad_id(self.family))
        present = (packed.segments[:, 0] >= 0).long()
        inputs: dict[str, Any] = {
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "segments": packed.segments,
            **(features_of([encoded[row] for row in packed.pictures]) if packed.pictures else {}),
            **self.family.extra_inputs(packed.input_ids, present, present.sum(1)),
        }
        return Layout(inputs, packed.prompt_ends, packed.tokens)
