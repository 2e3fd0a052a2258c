"""Where the numbers are in a sequence of label tokens.

`NumberVocab` says which token ids stand for which digit; `NumberSpans` says, for every position, which digit of which
number it is, and for every number its true value. Both hold tensors of static shape, so that a loss built on them needs
no Python loop over tokens and no host synchronisation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ntil.tokenizers import merged_digit_ids

NumberStyle = Literal["decimal", "thousands", "released"]
STYLES = ("decimal", "thousands", "released")

# float64 overflows at 1e308; powers saturate below that, so that absurdly long digit runs stay finite.
MAX_POWER = 300
# Exactly rounded, which torch.pow does not promise.
POWERS_OF_TEN = torch.tensor([float(f"1e{k}") for k in range(MAX_POWER + 1)], dtype=torch.float64)
_powers_of_ten = {POWERS_OF_TEN.device: POWERS_OF_TEN}

# What an id can be besides a digit, as offsets after the digits in `NumberVocab`'s table.
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
        every = [i for name in names for i in getattr(self, name)]
        twice = sorted(i for i, count in Counter(every).items() if count > 1)
        if twice:
            raise ValueError(f"NumberVocab: token ids with two meanings: {twice[:10]}")
        if min(every) < 0:
            raise ValueError(f"NumberVocab: token ids must be >= 0, got {min(every)}")
        # One sorted table (id -> meaning) makes one binary search per token of everything asked about it.
        meaning = [range(self.base), *([self.base + k] * len(getattr(self, n)) for k, n in enumerate(names[1:]))]
        ids, order = torch.tensor(every).sort()
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
        """Of every id: its digit value (0 .. base-1), base + POINT, MINUS, ..., or -1 for no part of a number."""
        tables = self._tables  # type: ignore[attr-defined]
        if ids.device not in tables:
            # Copied once a device: such a copy makes the host wait.
            tables[ids.device] = tuple(t.to(ids.device) for t in next(iter(tables.values())))
        table, meanings = tables[ids.device]
        slot = torch.searchsorted(table, ids.long().contiguous()).clamp(max=table.shape[0] - 1)
        return torch.where(table[slot] == ids, meanings[slot], -1)

    def check(self, labels: Tensor) -> None:
        """
        Raises:
            ValueError: labels hold tokens with several digits, which no loss over digits can read. Looking makes a GPU
                wait, so `NumberSpans.find` asks labels on the CPU only; elsewhere it is a device-side assertion.
        """
        merged = labels[self.meaning(labels) == self.base + MERGED]
        if merged.numel():
            raise ValueError(
                f"labels hold {merged.numel()} tokens with several digits, or digits and signs "
                f"(ids {merged[:5].tolist()}): no loss sees the digits in them. Tokenise answers with "
                "ntil.digit_by_digit(tokenizer), or leave merged_ids out of the NumberVocab to skip such numbers "
                "knowingly"
            )


def _ids(given: Sequence[int] | int | None) -> tuple[int, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, int) else tuple(int(i) for i in given)


@dataclass(frozen=True)
class NumberSpans:
    """The numbers of N positions. Position tensors are [N]; number tensors are [M], M >= how many numbers there are.

    Attributes:
        digit: value of the digit at a position, -1 where no digit is.
        number: index in [0, M) of the number that a digit belongs to; elsewhere of the last number before it.
        power: exponent of the digit's place (3.015: 0, -1, -2, -3), 0 where no digit is.
        scale: float64, base ** power, 0 where no digit is.
        place: index of the digit in its number, from the left (i of the paper), 0 where no digit is.
        length: how many digits its number has (n of the paper), 0 where no digit is.
        sample: index of the sample of the position.
        value: [M] float64, the signed true value of a number, 0 for unused slots.
        sign: [M] float64, +1 or -1.
        unit: [M] float64, the place value of its last digit (1 for integers), 1 for unused slots.
        count: [M] how many digits the number has at these positions, 0 for unused slots.
        number_sample: [M] sample of a number.
        samples: how many samples there are (a plain int).
        base: base of the place values.
    """

    digit: Tensor
    number: Tensor
    power: Tensor
    scale: Tensor
    place: Tensor
    length: Tensor
    sample: Tensor
    value: Tensor
    sign: Tensor
    unit: Tensor
    count: Tensor
    number_sample: Tensor
    samples: int
    base: int

    def __getstate__(self) -> dict[str, Any]:
        # Between processes every tensor costs a file handle and some turns of talk; a dozen small ones go by value.
        return {k: (v.numpy(),) if isinstance(v, Tensor) and not v.is_cuda else v for k, v in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: torch.from_numpy(*v) if isinstance(v, tuple) else v for k, v in state.items()})

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
        """Only the positions `keep` ([N] bool, or rising indices); it must not drop digits of a kept number."""
        names = ("digit", "number", "power", "scale", "place", "length", "sample")
        return replace(self, **{n: getattr(self, n)[keep] for n in names})

    @classmethod
    def find(cls, labels: Tensor, vocab: NumberVocab, style: NumberStyle = "decimal") -> NumberSpans:
        """Find the numbers of `labels` [B, T] (one sample a row) or [T] (one sample); everything is tensor code.

        * `decimal` reads as the regular expression ``-?[0-9]+(\\.[0-9]+)?`` does, from the left, a minus counting only
          where no digit stands before it.
        * `thousands` also joins groups of three digits: ``1,234,567.8`` is one number. It is for answers in prose: the
          box ``(103,877)`` would be one number too.
        * `released` reads every maximal run of digits as an integer of its own, as the paper's released code does
          (3.015 is 3 and 015).

        Raises:
            ValueError: labels that hold tokens with several digits, see `NumberVocab.check`.
        """
        if labels.dim() not in (1, 2):
            raise ValueError(f"labels must be [T] or [B, T], got {tuple(labels.shape)}")
        if style not in STYLES:
            raise ValueError(f"number style must be one of {', '.join(STYLES)}; got {style!r}")
        rows = labels if labels.dim() == 2 else labels[None]
        meaning = vocab.meaning(rows)
        if vocab.merged_ids:
            readable = (meaning != vocab.base + MERGED).all()
            if rows.device.type != "cpu" or torch.compiler.is_compiling():
                torch._assert_async(readable, "labels hold tokens with several digits")
            elif not readable:
                vocab.check(rows)
        is_digit = (meaning >= 0) & (meaning < vocab.base)
        digit = torch.where(is_digit, meaning, -1)
        none = torch.zeros_like(is_digit)
        if vocab.one_place:
            return _assemble(digit, none, is_digit, none, vocab.base)
        if style == "released":
            return _assemble(digit, none, is_digit & ~_shifted(is_digit, 1), none, vocab.base)
        point = _joining_points(meaning - vocab.base, is_digit)
        comma = _joining_commas(meaning - vocab.base, is_digit, point) if style == "thousands" else none
        start = is_digit & ~_shifted(is_digit | point | comma, 1)
        minus = (meaning == vocab.base + JOINED_MINUS) | ((meaning == vocab.base + MINUS) & ~_shifted(is_digit, 1))
        return _assemble(digit, point, start, _shifted(minus, 1) & start, vocab.base)


def _shifted(mask: Tensor, by: int) -> Tensor:
    """mask[t - by] at t (False past the ends): by=1 is "true one position before", by=-1 "true one after"."""
    moved = torch.roll(mask, by, dims=1)
    edge = 0 if by > 0 else mask.shape[1] - 1
    inside = torch.arange(mask.shape[1], device=mask.device) != edge
    return moved & inside


def _joining_points(kind: Tensor, is_digit: Tensor) -> Tensor:
    """Points that join their two neighbours into one number; of a chain 1.2.3.4 only every other one does."""
    point = (kind == POINT) & _shifted(is_digit, 1) & _shifted(is_digit, -1)
    chain = is_digit | point
    seen = point.long().cumsum(1)
    at_start = torch.where(chain & ~_shifted(chain, 1), seen, 0).cummax(1).values
    return point & ((seen - at_start) % 2 == 1)


def _joining_commas(kind: Tensor, is_digit: Tensor, point: Tensor) -> Tensor:
    """Commas between at most three digits of a whole part and a group of exactly three: 1,234,567.8, not 1234,567."""
    comma = (kind == COMMA) & _shifted(is_digit, 1) & _shifted(is_digit, -1)
    rows, columns = is_digit.shape
    run_start = is_digit & ~_shifted(is_digit, 1)
    run = run_start.long().cumsum(1)  # 1, 2, ... for the runs of digits; a comma has the index of the run before it
    length = torch.zeros(rows, columns + 2, dtype=torch.long, device=run.device).scatter_add(1, run, is_digit.long())
    fraction = torch.zeros_like(length).scatter_add(1, run, (_shifted(point, 1) & run_start).long()) > 0
    before = (length.gather(1, run) <= 3) & ~fraction.gather(1, run)
    return comma & before & (length.gather(1, run + 1) == 3)


def _assemble(digit: Tensor, point: Tensor, start: Tensor, negative: Tensor, base: int) -> NumberSpans:
    """All fields from what every position is; `start` marks the first digit of each number."""
    rows, columns = digit.shape
    device = digit.device
    digit, point, start = digit.reshape(-1), point.reshape(-1), start.reshape(-1)
    is_digit = digit >= 0
    number = (start.long().cumsum(0) - 1).clamp(min=0)
    slots = torch.zeros(max(rows * columns, 1), dtype=torch.long, device=device)
    ones = is_digit.long()
    count = slots.index_add(0, number, ones)
    order = ones.cumsum(0)
    place = order - slots.index_add(0, number, torch.where(start, order, 0))[number]
    # The point's own place is how many digits it has before it, plus one past the last of them.
    has_point = slots.index_add(0, number, point.long()) > 0
    whole = torch.where(has_point, slots.index_add(0, number, torch.where(point, place + 1, 0)), count)
    power = torch.where(is_digit, (whole[number] - 1 - place).clamp(-MAX_POWER, MAX_POWER), 0)
    sample = torch.arange(rows, device=device)[:, None].expand(rows, columns).reshape(-1)
    sign = 1.0 - 2.0 * slots.index_add(0, number, negative.reshape(-1).long()).double()
    digits = torch.where(is_digit, digit, 0).double()
    large, small = _power(base, power.clamp(min=0)), _power(base, (-power).clamp(min=0))
    scale = torch.where(is_digit, torch.where(power < 0, 1.0 / small, large), 0.0)
    # Summed as an integer and divided once, a value is what Python reads: exact up to 2**53, correctly rounded
    # below one. Runs too long for that are summed place by place.
    zeros = torch.zeros(slots.shape[0], dtype=torch.float64, device=device)
    from_right = torch.where(is_digit, (count[number] - 1 - place).clamp(0, MAX_POWER), 0)
    last_place = _power(base, (count - whole).clamp(0, MAX_POWER))
    exact = zeros.index_add(0, number, digits * _power(base, from_right)) / last_place
    value = torch.where(count <= MAX_POWER, exact, zeros.index_add(0, number, digits * scale))
    return NumberSpans(
        digit=digit,
        number=number,
        power=power,
        scale=scale,
        place=torch.where(is_digit, place, 0),
        length=torch.where(is_digit, count[number], 0),
        sample=sample,
        value=sign * value,
        sign=sign,
        unit=1.0 / last_place,
        count=count,
        number_sample=slots.index_add(0, number, torch.where(start, sample, 0)),
        samples=rows,
        base=base,
    )


def _power(base: int, exponent: Tensor) -> Tensor:
    """base ** exponent, 0 <= exponent <= MAX_POWER, float64; exactly rounded for base ten."""
    if base == 10:
        if exponent.device not in _powers_of_ten:
            _powers_of_ten[exponent.device] = POWERS_OF_TEN.to(exponent.device)
        return _powers_of_ten[exponent.device][exponent]
    return torch.pow(float(base), exponent.double()).clamp(max=1e300)
