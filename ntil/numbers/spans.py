"""Numbers in a sequence of label tokens.

`NumberSpans` holds, for every position, which digit of which number it is, and for every number its true value. Its
tensors have static shapes, so that a loss built on it needs no Python loop over tokens and no host synchronisation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ntil.numbers.vocab import COMMA, JOINED_MINUS, MERGED, MINUS, POINT, NumberVocab

NumberStyle = Literal["decimal", "thousands", "released"]
STYLES = ("decimal", "thousands", "released")

# float64 overflows at 1e308; powers saturate below that, so that absurdly long digit runs stay finite.
MAX_POWER = 300
# Exactly rounded, which torch.pow does not promise.
POWERS_OF_TEN = torch.tensor([float(f"1e{k}") for k in range(MAX_POWER + 1)], dtype=torch.float64)
_powers_of_ten = {POWERS_OF_TEN.device: POWERS_OF_TEN}


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
        shape: [S, 4] numbers that form a box: x1, y1, x2, y2; none unless `ntil.numbers.shapes` has added them, which a
            reading of labels alone can't.
        extent: [S, 2] float64, width and height of a box's picture in the unit of its numbers.
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
    shape: Tensor
    extent: Tensor
    samples: int
    base: int

    def __getstate__(self) -> dict[str, Any]:
        # Sending a tensor to another process costs a file handle and several messages; small ones are pickled by value.
        return {k: (v.numpy(),) if isinstance(v, Tensor) and not v.is_cuda else v for k, v in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({k: torch.from_numpy(*v) if isinstance(v, tuple) else v for k, v in state.items()})

    @property
    def is_digit(self) -> Tensor:
        return self.digit >= 0

    @property
    def is_number(self) -> Tensor:
        return self.count > 0

    @property
    def shape_sample(self) -> Tensor:
        """Sample of each shape, [S]."""
        return self.number_sample[self.shape[:, 0]]

    def to(self, device: torch.device | str) -> NumberSpans:
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)

    def select(self, keep: Tensor) -> NumberSpans:
        """Select the positions `keep` ([N] bool, or rising indices); it must not drop digits of a kept number."""
        names = ("digit", "number", "power", "scale", "place", "length", "sample")
        return replace(self, **{n: getattr(self, n)[keep] for n in names})

    def of_samples(self, chosen: Tensor) -> NumberSpans:
        """The positions, numbers and boxes of the samples `chosen` ([samples] bool); indices stay as they are."""
        boxes = chosen[self.shape_sample]
        spans = self.select(chosen[self.sample])
        count = torch.where(chosen[self.number_sample], self.count, 0)
        return replace(spans, count=count, shape=self.shape[boxes], extent=self.extent[boxes])

    @classmethod
    def find(cls, labels: Tensor, vocab: NumberVocab, style: NumberStyle = "decimal") -> NumberSpans:
        r"""Find the numbers of `labels` [B, T] (one sample a row) or [T] (one sample), without loops over tokens.

        * `decimal` reads as the regular expression ``-?[0-9]+(\.[0-9]+)?`` does, from the left, a minus counting only
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
    points_so_far = point.long().cumsum(1)
    at_start = torch.where(chain & ~_shifted(chain, 1), points_so_far, 0).cummax(1).values
    return point & ((points_so_far - at_start) % 2 == 1)


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
    """Build the spans from masks [B, T]; `start` marks the first digit of each number."""
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
    # At a point `place` is that of the digit before it, so one more is the number of integer digits.
    has_point = slots.index_add(0, number, point.long()) > 0
    integer_digits = torch.where(has_point, slots.index_add(0, number, torch.where(point, place + 1, 0)), count)
    power = torch.where(is_digit, (integer_digits[number] - 1 - place).clamp(-MAX_POWER, MAX_POWER), 0)
    sample = torch.arange(rows, device=device)[:, None].expand(rows, columns).reshape(-1)
    sign = 1.0 - 2.0 * slots.index_add(0, number, negative.reshape(-1).long()).double()
    digits = torch.where(is_digit, digit, 0).double()
    large, small = _power(base, power.clamp(min=0)), _power(base, (-power).clamp(min=0))
    scale = torch.where(is_digit, torch.where(power < 0, 1.0 / small, large), 0.0)
    # Summed as an integer and divided once, a value is what Python reads: exact up to 2**53, correctly rounded
    # below one. Runs too long for that are summed place by place.
    zeros = torch.zeros(slots.shape[0], dtype=torch.float64, device=device)
    from_right = torch.where(is_digit, (count[number] - 1 - place).clamp(0, MAX_POWER), 0)
    last_place = _power(base, (count - integer_digits).clamp(0, MAX_POWER))
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
        shape=torch.zeros(0, 4, dtype=torch.long, device=device),
        extent=torch.zeros(0, 2, dtype=torch.float64, device=device),
        samples=rows,
        base=base,
    )


def _power(base: int, exponent: Tensor) -> Tensor:
    """Power base ** exponent, 0 <= exponent <= MAX_POWER, float64; exactly rounded for base ten."""
    if base == 10:
        if exponent.device not in _powers_of_ten:
            _powers_of_ten[exponent.device] = POWERS_OF_TEN.to(exponent.device)
        return _powers_of_ten[exponent.device][exponent]
    return torch.pow(float(base), exponent.double()).clamp(max=1e300)
