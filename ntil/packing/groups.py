"""Which examples of a micro-batch share the beginning of their prompts, and how far."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ntil.collator import common_beginning
from ntil.models.base import Encoded

SHORTEST = 32  # tokens of a beginning without a picture that is worth sharing


@dataclass(frozen=True)
class Group:
    """Examples of a micro-batch, by index, whose first `shared` tokens are one copy; 0 for an example alone."""

    rows: tuple[int, ...]
    shared: int

    def tokens(self, lengths: Sequence[int]) -> int:
        """How many tokens the group has, with `lengths` those of the examples in full."""
        return self.shared + sum(lengths[row] - self.shared for row in self.rows)


def groups_of(encoded: Sequence[Encoded], image_id: int | None, limit: int) -> list[Group]:
    """The groups of a micro-batch, in the order of their first examples.

    Examples with a picture share one where the picture lies within the common beginning; those without share a
    beginning of `SHORTEST` tokens or more. At least the last token of every prompt is the example's own, because it
    predicts the answer.

    Args:
        image_id: of the token that stands for a part of a picture; None for a text model.
        limit: tokens of a group; one that would be longer becomes several. A single example may be longer.
    """
    buckets: dict[Hashable, list[int]] = {}
    digests: dict[int, str] = {}
    for row, example in enumerate(encoded):
        buckets.setdefault(_key(example, digests), []).append(row)
    lengths = [len(e.prompt_ids) + len(e.answer_ids) for e in encoded]
    groups: list[Group] = []
    for rows in buckets.values():
        shared = _shared([encoded[row] for row in rows], image_id)
        groups.extend(within_limit(limit, rows, shared, lengths) if shared else (Group((row,), 0) for row in rows))
    return sorted(groups, key=lambda group: group.rows[0])


def _key(example: Encoded, digests: dict[int, str]) -> Hashable:
    """What examples that may share a beginning have in common: the picture's features, or the first tokens."""
    if not example.features:
        return tuple(example.prompt_ids[:SHORTEST])
    place = id(example.features)
    if place not in digests:
        digests[place] = _digest(example.features)
    return digests[place]


def _digest(features: dict[str, Tensor]) -> str:
    digest = hashlib.blake2b(digest_size=20)
    for name, tensor in sorted(features.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shared(examples: Sequence[Encoded], image_id: int | None) -> int:
    """Tokens of the beginning that the examples share; 0 where it is none or holds a part of the picture alone."""
    if len(examples) < 2:
        return 0
    prompts = [example.prompt_ids for example in examples]
    shared = len(common_beginning([prompt[:-1] for prompt in prompts]))
    if not examples[0].features:
        return shared if shared >= SHORTEST else 0
    return 0 if any(image_id in prompt[shared:] for prompt in prompts) else shared


def within_limit(limit: int, rows: Sequence[int], shared: int, lengths: Sequence[int]) -> Iterator[Group]:
    """The rows of one beginning as groups of at most `limit` tokens."""
    chosen: list[int] = []
    for row in rows:
        if chosen and Group((*chosen, row), shared).tokens(lengths) > limit:
            yield Group(tuple(chosen), shared)
            chosen = []
        chosen.append(row)
    yield Group(tuple(chosen), shared)


def fill_sequences(groups: Sequence[Group], lengths: Sequence[int], limit: int) -> list[list[Group]]:
    """Distribute groups over as few sequences of at most `limit` tokens as equally long ones allow.

    The longest group goes first, each into the sequence that is the shortest so far; a group beyond the limit has a
    sequence to itself.
    """
    sizes = {group: group.tokens(lengths) for group in groups}
    longest = max(limit, *sizes.values())
    in_order = sorted(groups, key=lambda group: -sizes[group])
    for count in range(-(-sum(sizes.values()) // longest), len(groups) + 1):
        sequences: list[list[Group]] = [[] for _ in range(count)]
        filled = [0] * count
        for group in in_order:
            shortest = filled.index(min(filled))
            sequences[shortest].append(group)
            filled[shortest] += sizes[group]
        if max(filled) <= longest:
            return [sorted(sequence, key=lambda group: group.rows[0]) for sequence in sequences]
    return [[group] for group in groups]


def filled_tokens(sizes: Sequence[tuple[int, int]], pictures: Sequence[int], limit: int, several: bool) -> int:
    """Tokens of a packed micro-batch with what fills its sequences up to the longest, without encoding its rows.

    What the rows of a picture share besides it, such as a text in front of it, is counted for each of them.

    Args:
        sizes: of each row, its picture's tokens and the others. pictures: number of each row's picture.
        limit: tokens of a sequence. several: a sequence may have several pictures.
    """
    rows_of: dict[int, list[int]] = {}
    for row, number in enumerate(pictures):
        rows_of.setdefault(number, []).append(row)
    lengths = [picture + others for picture, others in sizes]
    groups = [group for rows in rows_of.values() for group in within_limit(limit, rows, sizes[rows[0]][0], lengths)]
    sequences = fill_sequences(groups, lengths, limit) if several else [[group] for group in groups]
    return len(sequences) * max(sum(group.tokens(lengths) for group in sequence) for sequence in sequences)
