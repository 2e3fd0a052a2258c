"""Vocabulary of numbers: the token ids of digits, signs, points and separators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ntil.numbers.tokenizers import merged_digit_ids

# Meanings of an id other than a digit, as offsets after the digits in `NumberVocab`'s table.
POINT, MINUS, JOINED_MINUS, COMMA, MERGED = range(5)


@dataclass(frozen=True)
class NumberVocab:
    """Token ids of an ordered alphabet of digits.

    Args:
        digit_ids: ids of the digits 0, 1, 2, ... in the order of their VALUE; their count is the base (10 for digits).
        point_ids: ids read as a decimal point between two digits.
        minus_ids: ids of a bare minus: a sign before a digit, but not after one (`3-4` are two positive numbers).
        joined_minus_ids: ids whose text ends with a minus after something else (`=-`, `--`, a space and a minus):
            always a sign before a digit.
        comma_ids: ids read as a thousands separator by the number style `thousands`.
        merged_ids: ids that hold a digit together with more (`103` in LLaMA-3): numbers that hold one can't be read,
            and finding one among labels is an error (`check`).
        one_place: every digit is a number of its own (PaliGemma's `<loc>` bins stand side by side).

    A single id may stand for a sequence of one, None for an empty one.

    Raises:
        ValueError: fewer than two digits, a negative id, or an id with two meanings.
    """

    digit_ids: Sequence[int]
    point_ids: Sequence[int] | int | None = ()
    minus_ids: Sequence[int] | int | None = ()
    joined_minus_ids: Sequence[int] | int | None = ()
    comma_ids: Sequence[int] | int | None = ()
    merged_ids: Sequence[int] | int | None = ()
    one_place: bool = False

    def __post_init__(self) -> None:
        names = ("digit_ids", "point_ids", "minus_ids", "joined_minus_ids", "comma_ids", "merged_ids")
        for name in names:
            object.__setattr__(self, name, _ids(getattr(self, name)))
        if len(self.digit_ids) < 2:
            raise ValueError(f"NumberVocab needs at least two digit ids in order of value, got {self.digit_ids}")
        all_ids = [i for name in names for i in getattr(self, name)]
        twice = sorted(i for i, count in Counter(all_ids).items() if count > 1)
        if twice:
            raise ValueError(f"NumberVocab: token ids with two meanings: {twice[:10]}")
        if min(all_ids) < 0:
            raise ValueError(f"NumberVocab: token ids must be >= 0, got {min(all_ids)}")
        # One sorted table (id -> meaning), so that a single binary search per token gives its meaning.
        meaning = [range(self.base), *([self.base + k] * len(getattr(self, n)) for k, n in enumerate(names[1:]))]
        ids, order = torch.tensor(all_ids).sort()
        table = (ids, torch.tensor([m for group in meaning for m in group])[order])
        object.__setattr__(self, "_tables", {ids.device: table})

    @property
    def base(self) -> int:
        return len(self.digit_ids)

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> NumberVocab:
        """Digits of a Hugging Face tokenizer, found by its tokens' text, never by the order of ids.

        Raises:
            ValueError: a digit has no token of its own.
        """
        vocab = tokenizer.get_vocab()
        missing = [d for d in "0123456789" if d not in vocab]
        if missing:
            raise ValueError(f"the tokenizer has no single token for the digits {missing}")
        joined = [
            i for token, i in vocab.items() if len(token) > 1 and token[-1] == "-" and token[-2] not in "0123456789"
        ]
        return cls(
            digit_ids=[vocab[d] for d in "0123456789"],
            point_ids=[vocab["."]] if "." in vocab else [],
            minus_ids=[vocab["-"]] if "-" in vocab else [],
            joined_minus_ids=joined,
            comma_ids=[vocab[","]] if "," in vocab else [],
            merged_ids=merged_digit_ids(tokenizer),
        )

    @classmethod
    def from_loc(cls, tokenizer: Any, pattern: str = "<loc{:04d}>", bins: int = 1024) -> NumberVocab:
        """PaliGemma's location bins as one ordered alphabet: every `<locNNNN>` is a one-place number in base `bins`.

        Raises:
            ValueError: a bin has no token.
        """
        vocab = tokenizer.get_vocab()
        tokens = [pattern.format(k) for k in range(bins)]
        missing = [t for t in tokens if t not in vocab]
        if missing:
            raise ValueError(
                f"the tokenizer lacks {len(missing)} of {bins} location tokens, the first is {missing[0]!r}"
            )
        return cls(digit_ids=[vocab[t] for t in tokens], one_place=True)

    def meaning(self, ids: Tensor) -> Tensor:
        """Meaning of every id: its digit value (0..base-1), base + POINT, MINUS, ..., or -1 for no part of a number."""
        tables = self._tables  # type: ignore[attr-defined]
        if ids.device not in tables:
            # Copied once per device, since the copy synchronises.
            tables[ids.device] = tuple(t.to(ids.device) for t in next(iter(tables.values())))
        table, meanings = tables[ids.device]
        slot = torch.searchsorted(table, ids.long().contiguous()).clamp(max=table.shape[0] - 1)
        return torch.where(table[slot] == ids, meanings[slot], -1)

    def check(self, labels: Tensor) -> None:
        """Check that labels hold no token with several digits, which no loss over digits can read.

        On a GPU this synchronises, so `NumberSpans.find` calls it for labels on the CPU only, and otherwise makes a
        device-side assertion.

        Raises:
            ValueError: they do; names the ids.
        """
        merged = labels[self.meaning(labels) == self.base + MERGED]
        if merged.numel():
            raise ValueError(
                f"labels hold {merged.numel()} token{'s' * (merged.numel() != 1)} with several digits, or digits and "
                f"signs (ids {merged[:5].tolist()}): no loss sees the digits in them. Tokenise answers with "
                "ntil.digit_by_digit(tokenizer), or leave merged_ids out of the NumberVocab to skip such numbers "
                "knowingly"
            )


def _ids(ids: Sequence[int] | int | None) -> tuple[int, ...]:
    if ids is None:
        return ()
    return (ids,) if isinstance(ids, int) else tuple(int(i) for i in ids)
