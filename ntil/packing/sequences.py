"""Groups of examples as sequences: one copy of what a group shares, then what each example has alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntil.models.base import Encoded
from ntil.packing.groups import Group

# Kernels on CUDA want the rows of a mask to be a multiple of 8 long (torch 2.13 states it in `_inductor/lowering.py`),
# and we assume that others are copied in every layer.
ALIGNED = 16


@dataclass(frozen=True)
class Sequences:
    """Packed examples, B sequences of T tokens, filled up on the right.

    Attributes:
        input_ids: [B, T].
        position_ids: [B, T], or [axes, B, T]: of every token as in its example alone, so those after a shared beginning
            start anew with each example. 0 where nothing is.
        segments: [B, 2, T]: the segment of a token, and the one before it that its example shares; a token sees those
            of its segment up to itself, and all of the shared one. A beginning is its own shared one; -1 where nothing
            is.
        prompt_ends: [rows] index of each example's last prompt token in the flattened [B * T].
        pictures: examples whose picture stands in the sequences, in the order of the flattened tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    segments: Tensor
    prompt_ends: Tensor
    pictures: list[int]

    @property
    def tokens(self) -> int:
        """How many there are, without filling."""
        return int((self.segments[:, 0] >= 0).sum())


def pack(
    encoded: Sequence[Encoded], positions: Sequence[Tensor], sequences: Sequence[Sequence[Group]], pad: int
) -> Sequences:
    """Write groups one behind the other.

    Args:
        positions: of the tokens of each example alone, [T] or [axes, T].
        sequences: the groups of each sequence.
        pad: id that fills up.
    """
    lengths = [len(e.prompt_ids) + len(e.answer_ids) for e in encoded]
    width = max(sum(group.tokens(lengths) for group in groups) for groups in sequences)
    width = -(-width // ALIGNED) * ALIGNED
    axes = max(p.shape[0] if p.dim() == 2 else 1 for p in positions)
    input_ids = torch.full((len(sequences), width), pad, dtype=torch.long)
    position_ids = torch.zeros((axes, len(sequences), width), dtype=torch.long)
    segments = torch.full((len(sequences), 2, width), -1, dtype=torch.int32)
    prompt_ends = torch.zeros(len(encoded), dtype=torch.long)
    pictures = []
    for index, groups in enumerate(sequences):
        place = segment = 0
        for group in groups:
            beginning = segment
            for count, row in enumerate(group.rows):
                example = encoded[row]
                if example.features and (count == 0 or not group.shared):
                    pictures.append(row)
                if count == 0 and group.shared:
                    end = place + group.shared
                    input_ids[index, place:end] = torch.tensor(example.prompt_ids[: group.shared])
                    position_ids[:, index, place:end] = positions[row][..., : group.shared]
                    segments[index, :, place:end] = beginning
                    place, segment = end, segment + 1
                end = place + lengths[row] - group.shared
                input_ids[index, place:end] = torch.tensor((example.prompt_ids + example.answer_ids)[group.shared :])
                position_ids[:, index, place:end] = positions[row][..., group.shared :]
                segments[index, 0, place:end] = segment
                segments[index, 1, place:end] = beginning if group.shared else segment
                prompt_ends[row] = index * width + place + len(example.prompt_ids) - group.shared - 1
                place, segment = end, segment + 1
    return Sequences(input_ids, position_ids if axes > 1 else position_ids[0], segments, prompt_ends, pictures)
