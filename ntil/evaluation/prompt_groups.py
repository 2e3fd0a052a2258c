"""Rows whose prompts begin alike, with one picture or a long text, and batches of them.

Rows are looked at in windows, so that any number of them takes constant memory: a picture whose rows are further apart
is computed once a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from datasets import Dataset, Image

from data.common.rows import Row
from ntil.collator import Collator
from ntil.distributed.ranks import Ranks
from ntil.evaluation.rounds import limited, shared_out

WINDOW, TEXTS = 8192, 1024  # rows that are looked at together; of those without a picture, which are sorted by prompt
LEAST, SHARE = 16, 0.5  # tokens, and part of the prompts, that texts must have in common


@dataclass(frozen=True)
class Batch:
    """Rows that generate together, by index.

    Attributes:
        groups: of a shared batch, each with one beginning; of a plain one, rows that share nothing.
    """

    groups: tuple[tuple[int, ...], ...]
    shared: bool = True

    @property
    def rows(self) -> list[int]:
        return [row for group in self.groups for row in group]


class PromptGroups:
    """The groups of a split's rows.

    Args:
        batch_size: rows of a batch, at most.
    """

    def __init__(self, collator: Collator, rows: Dataset, batch_size: int, ranks: Ranks) -> None:
        self._collator, self._rows, self._ranks = collator, rows, ranks
        self._size = limited(batch_size, len(rows), ranks)
        self._stored = rows.cast_column("image", Image(decode=False)) if "image" in rows.column_names else rows
        self._image_id = _image_id(collator)

    def windows(self) -> Iterator[list[tuple[Batch, bool]]]:
        """Yield this rank's rounds, a window at a time, each with whether it is a spare.

        All ranks have the same rounds of the same kind, so they may run the forwards of a partitioned model together.
        """
        of_all = self._size * self._ranks.count
        window = of_all * max(1, WINDOW // of_all)  # whole rounds: without any group they are those of `rounds`
        for start in range(0, len(self._rows), window):
            yield self._rounds(range(start, min(start + window, len(self._rows))))

    def read(self, batch: Batch) -> list[list[Row]]:
        """The rows of a batch by group; a group's picture is decoded once."""
        if not batch.shared:
            return [[self._rows[i] for i in group] for group in batch.groups]
        groups = []
        for first, *others in batch.groups:
            row = self._rows[first]
            picture = {"image": row["image"]} if "image" in row else {}
            groups.append([row, *({**self._stored[i], **picture} for i in others)])
        return groups

    def _rounds(self, window: range) -> list[tuple[Batch, bool]]:
        pictures: dict[str, list[int]] = {}
        texts: list[int] = []
        for index in window:
            row = self._stored[index]
            key = self._collator.task.picture_key(row)
            if key is not None:
                pictures.setdefault(key, []).append(index)
            elif row.get("image") is None:
                texts.append(index)
        of_pictures = [group for group in pictures.values() if len(group) > 1 and self._picture_in_common(group)]
        of_texts = [g for i in range(0, len(texts), TEXTS) for g in self._alike(texts[i : i + TEXTS]) if len(g) > 1]
        in_groups = {index for group in (*of_pictures, *of_texts) for index in group}
        alone = [index for index in window if index not in in_groups]
        kinds = self._shared(of_pictures), self._shared(of_texts), self._plain(alone)
        return [one for batches in kinds for one in shared_out(batches, self._ranks)]

    def _prompt(self, index: int) -> tuple[int, ...] | None:
        """Ids of a row's prompt with one token for a picture; None where the family refuses it, which is said later."""
        row, task = self._stored[index], self._collator.task
        try:
            encoded = self._collator.family.encode_text(task.prompt(row), None, row.get("image") is not None)
        except ValueError:
            return None
        return tuple(encoded.prompt_ids)

    def _picture_in_common(self, group: Sequence[int]) -> bool:
        prompts = [self._prompt(index) for index in group]
        known = [prompt for prompt in prompts if prompt is not None]
        return len(known) == len(prompts) and self._image_id in common_beginning(known)

    def _alike(self, indices: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Groups of rows without a picture, of which those with similar prompts are neighbours once sorted."""
        prompts = {i: prompt for i in indices if (prompt := self._prompt(i))}
        group: list[int] = []
        for index in sorted(prompts, key=lambda i: (prompts[i], i)):
            shared = len(common_beginning([prompts[group[0]], prompts[index]])) if group else 0
            if group and shared < max(LEAST, SHARE * len(prompts[index])):
                yield tuple(sorted(group))
                group = []
            group.append(index)
        yield tuple(sorted(group))

    def _shared(self, groups: Sequence[Sequence[int]]) -> list[Batch]:
        """Batches of whole groups, of which those of similar size stand together; only a larger one is cut."""
        size = limited(self._size, sum(map(len, groups)), self._ranks)
        pieces = [tuple(group[i : i + size]) for group in groups for i in range(0, len(group), size)]
        batches: list[list[tuple[int, ...]]] = []
        room = 0
        for _, alike in groupby(sorted(pieces, key=len, reverse=True), key=len):
            for piece in alike:
                if len(piece) > room:
                    batches.append([])
                    room = size
                batches[-1].append(piece)
                room -= len(piece)
        return [Batch(tuple(batch)) for batch in batches]

    def _plain(self, indices: Sequence[int]) -> list[Batch]:
        size = limited(self._size, len(indices), self._ranks)
        return [Batch((tuple(indices[i : i + size]),), shared=False) for i in range(0, len(indices), size)]


def common_beginning(prompts: Sequence[Sequence[int]]) -> Sequence[int]:
    """The ids that all prompts begin with."""
    low, high = min(prompts), max(prompts)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def _image_id(collator: Collator) -> int | None:
    family = collator.family
    return None if family.image_token is None else family.tokenizer.convert_tokens_to_ids(family.image_token)
