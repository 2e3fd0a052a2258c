"""Rows whose prompts begin alike, with one picture or a long text, and batches of them.

Rows are looked at in windows, so that any number of them takes constant memory: a picture whose rows are further apart
is computed once a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from datasets import Dataset, Image

from data.common.rows import Row, undecoded
from ntil.collator import Collator, common_beginning
from ntil.distributed.ranks import Ranks
from ntil.evaluation.rounds import limited, rounds, shared_out
from ntil.packing.rows import SharedPictures

READ = 64  # rows at once, pictures included
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


class Batches:
    """Batches of a split's rows.

    Args:
        batch_size: rows of a batch, at most.
        share: whether rows whose prompts begin alike are put together; else batches are of consecutive rows.
    """

    def __init__(self, collator: Collator, rows: Dataset, batch_size: int, ranks: Ranks, share: bool) -> None:
        self._collator, self._rows, self._ranks, self._share = collator, rows, ranks, share
        self._batch_size, self._size = batch_size, limited(batch_size, len(rows), ranks)
        self._pictures = share and isinstance(rows.features.get("image"), Image)
        self._stored = undecoded(rows) if share else rows
        self._image_id = collator.family.image_id if share else None

    @cached_property
    def _decoded_once(self) -> SharedPictures:
        return SharedPictures(self._rows, self._collator.task)

    def windows(self) -> Iterator[list[tuple[Batch, bool]]]:
        """Yield this rank's rounds, a window of rows at a time, each with whether it is a spare.

        All ranks have the same rounds of the same kind, so they may run the forwards of a partitioned model together.
        """
        if not self._share or self._size == 1:
            for indices, spare in rounds(len(self._rows), self._batch_size, self._ranks):
                yield [(Batch((tuple(indices),), shared=False), spare)]
            return
        of_all = self._size * self._ranks.count
        window = of_all * max(1, WINDOW // of_all)  # whole rounds: without any group they are those of `rounds`
        for start in range(0, len(self._rows), window):
            yield self._rounds(range(start, min(start + window, len(self._rows))))

    def read(self, batch: Batch) -> list[list[Row]]:
        """The rows of a batch by group; a group's picture is decoded once."""
        if not batch.shared:
            return [[self._rows[i] for i in group] for group in batch.groups]
        return [self._decoded_once.__getitems__(group) for group in batch.groups]

    def _rounds(self, window: range) -> list[tuple[Batch, bool]]:
        prompts: dict[int, str] = {}
        pictures: dict[str, list[int]] = {}
        texts: list[int] = []
        for index, row in self._stored_rows(window):
            key = self._collator.task.picture_key(row) if self._pictures else None
            if key is None and row.get("image") is not None:
                continue  # a picture of which nothing is known
            prompts[index] = self._collator.task.prompt(row)
            (texts if key is None else pictures.setdefault(key, [])).append(index)
        of_pictures = [g for g in pictures.values() if len(g) > 1 and self._picture_in_common([prompts[i] for i in g])]
        of_texts = [g for i in range(0, len(texts), TEXTS) for g in self._alike(texts[i : i + TEXTS], prompts)]
        in_groups = {index for group in (*of_pictures, *of_texts) for index in group}
        alone = [index for index in window if index not in in_groups]
        kinds = self._shared(of_pictures), self._shared(of_texts), self._plain(alone)
        return [one for batches in kinds for one in shared_out(batches, self._ranks)]

    def _stored_rows(self, window: range) -> Iterator[tuple[int, Row]]:
        """Rows with their pictures as stored; some at a time, since each reading takes its time."""
        for start in range(window.start, window.stop, READ):
            columns = self._stored[start : min(start + READ, window.stop)]
            for offset, values in enumerate(zip(*columns.values(), strict=True)):
                yield start + offset, dict(zip(columns, values, strict=True))

    def _ids(self, prompt: str, has_image: bool) -> list[int] | None:
        """Ids of a prompt with one token for a picture; None where the family refuses it, as it will in its batch."""
        try:
            return self._collator.family.encode_text(prompt, None, has_image).prompt_ids
        except ValueError:
            return None

    def _picture_in_common(self, prompts: Sequence[str]) -> bool:
        ids = [self._ids(prompt, True) for prompt in prompts]
        known = [prompt[:-1] for prompt in ids if prompt]  # a token at least is left for the question
        return len(known) == len(ids) and self._image_id in common_beginning(known)

    def _alike(self, indices: Sequence[int], prompts: Mapping[int, str]) -> Iterator[list[int]]:
        """Groups of rows without a picture, of which those with similar prompts are neighbours once sorted."""
        ids = {index: known for index in indices if (known := self._ids(prompts[index], False))}
        group: list[int] = []
        longest = 0
        for index in sorted(ids, key=lambda i: (ids[i], i)):
            longest = max(longest, len(ids[index]))
            shared = len(common_beginning([ids[group[0]], ids[index]])) if group else 0
            if group and shared < max(LEAST, SHARE * longest):
                yield from [sorted(group)] if len(group) > 1 else []
                group, longest = [], len(ids[index])
            group.append(index)
        yield from [sorted(group)] if len(group) > 1 else []

    def _shared(self, groups: Sequence[Sequence[int]]) -> list[Batch]:
        """Batches of whole groups, of which those of similar size stand together; only a larger one is cut."""
        size = limited(self._size, sum(map(len, groups)), self._ranks)
        pieces = [tuple(group[i : i + size]) for group in groups for i in range(0, len(group), size)]
        batches: list[list[tuple[int, ...]]] = []
        room = 0
        for piece in sorted(pieces, key=len, reverse=True):
            if len(piece) > room:
                batches.append([])
                room = size
            batches[-1].append(piece)
            room -= len(piece)
        return [Batch(tuple(batch)) for batch in batches]

    def _plain(self, indices: Sequence[int]) -> list[Batch]:
        size = limited(self._size, len(indices), self._ranks)
        return [Batch((tuple(indices[i : i + size]),), shared=False) for i in range(0, len(indices), size)]
