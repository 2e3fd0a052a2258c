"""Where the numbers are in a sequence of label tokens.

`NumberVocab` says which token ids stand for which digit; `NumberSpans` says, for every position, which digit of which
number it is, and for every number its true value. Both hold tensors of static shape, so that a loss built on them needs
no Python loop over tokens and no host synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

NumberStyle = Literal["decimal", "released"]

# float64 overflows at 1e308; powers saturate below that, so that absurdly long digit runs stay finite.
MAX_POWER = 300


@dataclass(frozen=True)
class NumberVocab:
    """Token ids of an ordered alphabet of digits.

    Args:
        digit_ids: ids of the digits 0, 1, 2, ... in the order of their VALUE; their count is the base (10 for digits).
        point_ids: ids read as a decimal point between two digits.
        minus_ids: ids read as a minus sign before a digit (and not after one: `3-4` are two positive numbers).

    Raises:
        ValueError: fewer than two digits, or an id with two meanings.
    """

    digit_ids: tuple[int, ...]
    point_ids: tuple[int, ...] = ()
    minus_ids: tuple[int, ...] = ()

    def __init__(self, digit_ids: Sequence[int], point_ids: Iterable[int] = (), minus_ids: Iterable[int] = ()) -> None:
        object.__setattr__(self, "digit_ids", tuple(int(i) for i in digit_ids))
        object.__setattr__(self, "point_ids", tuple(int(i) for i in point_ids))
        object.__setattr__(self, "minus_ids", tuple(int(i) for i in minus_ids))
        if len(self.digit_ids) < 2:
            raise ValueError(f"NumberVocab needs at least two digit ids in order of value, got {self.digit_ids}")
        every = self.digit_ids + self.point_ids + self.minus_ids
        twice = sorted({i for i in every if every.count(i) > 1}) if len(every) < 64 else []
        if twice or len(set(every)) != len(every):
            raise ValueError(f"NumberVocab: token ids with two meanings: {twice}")
        if min(every) < 0:
            raise ValueError(f"NumberVocab: token ids must be >= 0, got {min(every)}")

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
        return cls(
            digit_ids=[vocab[d] for d in "0123456789"],
            point_ids=[vocab["."]] if "." in vocab else [],
            minus_ids=[vocab["-"]] if "-" in vocab else [],
        )


@dataclass(frozen=True)
class NumberSpans:
    """The numbers of N positions. Position tensors are [N]; number tensors are [M], M >= how many numbers there are.

    Attributes:
        digit: value of the digit at a position, -1 where no digit is.
        number: index in [0, M) of the number that the position belongs to, 0 where no digit is.
        power: exponent of the digit's place (3.015: 0, -1, -2, -3), 0 where no digit is.
        place: index of the digit in its number, from the left (i of the paper), 0 where no digit is.
        length: how many digits its number has (n of the paper), 0 where no digit is.
        sample: index of the sample of the position.
        value: [M] float64, the signed true value of a number, 0 for unused slots.
        sign: [M] float64, +1 or -1.
        count: [M] how many digits the number has at these positions, 0 for unused slots.
        number_sample: [M] sample of a number.
        samples: how many samples there are (a plain int).
        base: base of the place values.
    """

    digit: Tensor
    number: Tensor
    power: Tensor
    place: Tensor
    length: Tensor
    sample: Tensor
    value: Tensor
    sign: Tensor
    count: Tensor
    number_sample: Tensor
    samples: int
    base: int

    @property
    def is_digit(self) -> Tensor:
        return self.digit >= 0

    @property
    def is_number(self) -> Tensor:
        return self.count > 0

    def to(self, device: torch.device | str) -> NumberSpans:
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def select(self, keep: Tensor) -> NumberSpans:
        """Only the positions where `keep` [N] is true; digits of ignored positions must not be among the dropped."""
        names = ("digit", "number", "power", "place", "length", "sample")
        return replace(self, **{n: getattr(self, n)[keep] for n in names})

    @classmethod
    def find(cls, labels: Tensor, vocab: NumberVocab, style: NumberStyle = "decimal") -> NumberSpans:
        """Find the numbers of `labels` [B, T] (one sample a row) or [T] (one sample); everything is tensor code.

        `decimal` reads as the regular expression ``-?[0-9]+(\\.[0-9]+)?`` does, from the left, a minus counting only
        where no digit stands before it. `released` reads every maximal run of digits as an integer of its own, as the
        paper's released code does (3.015 is 3 and 015).
        """
        if labels.dim() not in (1, 2):
            raise ValueError(f"labels must be [T] or [B, T], got {tuple(labels.shape)}")
        rows = labels if labels.dim() == 2 else labels[None]
        digit = _lookup(rows, vocab)
        is_digit = digit >= 0
        before, after = _shifted(is_digit, 1), _shifted(is_digit, -1)
        point = torch.zeros_like(is_digit)
        minus = torch.zeros_like(is_digit)
        if style == "decimal":
            point = _joining_points(rows, is_digit, before & after, vocab)
            minus = _member(rows, vocab.minus_ids) & after & ~before
        elif style != "released":
            raise ValueError(f"number style must be 'decimal' or 'released', got {style!r}")
        inside = is_digit | point
        start = is_digit & ~_shifted(inside, 1)
        return _assemble(digit, is_digit, point, start, _shifted(minus, 1) & start, vocab.base)


def _member(ids: Tensor, wanted: tuple[int, ...]) -> Tensor:
    found = torch.zeros_like(ids, dtype=torch.bool)
    for i in wanted:
        found = found | (ids == i)
    return found


def _lookup(ids: Tensor, vocab: NumberVocab) -> Tensor:
    """Digit value of every id, -1 where it is none."""
    sorted_ids, order = torch.sort(torch.tensor(vocab.digit_ids, device=ids.device, dtype=ids.dtype))
    slot = torch.searchsorted(sorted_ids, ids.contiguous()).clamp(max=vocab.base - 1)
    return torch.where(sorted_ids[slot] == ids, order[slot], -1)


def _shifted(mask: Tensor, by: int) -> Tensor:
    """mask[t - by] at t (False past the ends): by=1 is "true one position before", by=-1 "true one after"."""
    moved = torch.roll(mask, by, dims=1)
    edge = 0 if by > 0 else mask.shape[1] - 1
    inside = torch.arange(mask.shape[1], device=mask.device) != edge
    return moved & inside


def _joining_points(ids: Tensor, is_digit: Tensor, between: Tensor, vocab: NumberVocab) -> Tensor:
    """Points that join their two neighbours into one number; of a chain 1.2.3.4 only every other one does."""
    point = _member(ids, vocab.point_ids) & between
    chain = is_digit | point
    seen = point.long().cumsum(1)
    at_start = torch.where(chain & ~_shifted(chain, 1), seen, 0).cummax(1).values
    return point & ((seen - at_start) % 2 == 1)


def _assemble(
    digit: Tensor, is_digit: Tensor, point: Tensor, start: Tensor, negative: Tensor, base: int
) -> NumberSpans:
    rows, columns = digit.shape
    size = rows * columns
    flat, device = is_digit.reshape(-1), digit.device
    number = (start.reshape(-1).long().cumsum(0) - 1).clamp(min=0)
    slots = torch.zeros(max(size, 1), dtype=torch.long, device=device)
    ones = flat.long()
    count = slots.index_add(0, number, ones)
    order = ones.cumsum(0)
    first = slots.index_add(0, number, torch.where(start.reshape(-1), order, 0))
    place = order - first[number]
    # A point between digits i and i+1 of a number: digits after it are the fraction.
    fraction_start = slots.index_add(0, number, torch.where(point.reshape(-1), place + 1, 0))
    has_point = slots.index_add(0, number, point.reshape(-1).long()) > 0
    whole = torch.where(has_point, fraction_start, count)
    power = (whole[number] - 1 - place).clamp(-MAX_POWER, MAX_POWER)
    zero = torch.zeros_like(power)
    sample = torch.arange(rows, device=device).repeat_interleave(columns)
    sign = 1.0 - 2.0 * slots.index_add(0, number, negative.reshape(-1).long()).double()
    digits = digit.reshape(-1)
    terms = torch.where(flat, digits, 0).double() * torch.pow(float(base), power.double())
    value = torch.zeros(slots.shape[0], dtype=torch.float64, device=device).index_add(0, number, terms * flat)
    return NumberSpans(
        digit=digits,
        number=torch.where(flat, number, zero),
        power=torch.where(flat, power, zero),
        place=torch.where(flat, place, zero),
        length=torch.where(flat, count[number], zero),
        sample=sample,
        value=value * sign,
        sign=sign,
        count=count,
        number_sample=slots.index_add(0, number, torch.where(start.reshape(-1), sample, 0)),
        samples=rows,
        base=base,
    )
