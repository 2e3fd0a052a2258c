"""Generated arithmetic problems on integers and decimals. Row i of a split is the same on every machine.

A problem is `left operation right`. A hash of the problem itself determines its split, whatever the seed: of every 100
hash values 80 are train's, 10 validation's and 10 test's, and the operands of + and * are ordered before hashing. So no
problem of validation or test is ever in train, not even in a train split of another seed, length or wording. No problem
occurs twice within an evaluation split.

* interpolation (train, validation, test): both operands have at most `digits` digits before the point.
* extrapolation (split `extrapolation`): at least one operand has more, up to `extrapolation_digits`.

Decimals have up to `decimals` places. A quotient is rounded to `decimals` places (at least 2), halves away from zero,
and the question says so. Sums, differences and products are exact.

Columns: id, left, operation (+ - * /), right, wording (0: symbols, 1..: see tasks/arithmetic.py), places (of a
quotient), answer, range (interpolation or extrapolation), level (digits of the longer operand - 1, one more with
decimals, one more for * and /).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset, Features, Value, concatenate_datasets

from data.common import decimals
from data.common.cache import cached_dataset
from data.common.decimals import plain
from data.common.errors import InvalidOption
from data.common.source import RenderedSource

OPERATIONS = ("+", "-", "*", "/")
SPLITS = {"train": 0, "validation": 1, "test": 2, "extrapolation": 3}
Wording = Literal["symbols", "words", "both"]
WORDINGS: dict[str, Sequence[int]] = {"symbols": (0,), "words": (1, 2), "both": (0, 1, 2)}
TRIES = 2000
EXACT = Context(prec=100)  # the usual 28 digits would round long products

FEATURES = Features(
    {
        "id": Value("string"),
        "left": Value("string"),
        "operation": Value("string"),
        "right": Value("string"),
        "wording": Value("int32"),
        "places": Value("int32"),
        "answer": Value("string"),
        "range": Value("string"),
        "level": Value("int32"),
    }
)


class Shape(NamedTuple):
    """Bounds of the problems that are drawn; see the module's docstring."""

    operations: Sequence[str] = ("+", "-", "*")
    digits: int = 3
    extrapolation_digits: int = 5
    decimals: int = 1
    negatives: bool = True
    wordings: Sequence[int] = (0,)

    @property
    def quotient_places(self) -> int:
        return max(2, self.decimals)


class Problem(NamedTuple):
    """A problem `left operation right`, not canonical: see `canonical`."""

    left: Decimal
    operation: str
    right: Decimal


class ArithmeticProblems(RenderedSource):
    """Source of generated arithmetic problems.

    Args:
        rows: how many rows of train, validation and test, half of which is interpolation and half extrapolation; counts
            of `interpolation` and `extrapolation` themselves take precedence.
        operations: some of + - * /.
        digits, extrapolation_digits: the most digits before the point, trained and beyond.
        decimals: the most digits after the point; 0 for integers only.
        negatives: a quarter of the operands is negative.
        wording: `symbols`, `words` or `both`.
        seed: of the draws; which split a problem belongs to doesn't depend on it.
    """

    def __init__(
        self,
        rows: dict[str, int],
        operations: Sequence[str] = ("+", "-", "*"),
        digits: int = 3,
        extrapolation_digits: int = 5,
        decimals: int = 1,
        negatives: bool = True,
        wording: Wording = "symbols",
        seed: int = 0,
    ) -> None:
        super().__init__(rows)
        if wording not in WORDINGS:
            raise InvalidOption(f"task.source.wording must be one of {', '.join(WORDINGS)}, got {wording!r}")
        numbers = (digits, extrapolation_digits, decimals, negatives)
        self.shape, self.seed = Shape(tuple(operations), *numbers, WORDINGS[wording]), seed
        _check(self.shape)

    def rows(self, split: str) -> Dataset:
        if split == "test":
            return concatenate_datasets([self.rows("interpolation"), self.rows("extrapolation")])
        source = "test" if split == "interpolation" else split
        return load(source, rows=self.count(split), shape=self.shape, seed=self.seed)

    def count(self, split: str) -> int:
        if split not in self.counts and "test" in self.counts and split in ("interpolation", "extrapolation"):
            return (self.counts["test"] + (split == "interpolation")) // 2
        return super().count(split)


def load(split: str, *, rows: int, shape: Shape, seed: int = 0) -> Dataset:
    """`rows` problems of a split.

    Raises:
        InvalidOption: an unknown split or operation, bounds that leave nothing to draw, or more rows of an evaluation
            split than there are different problems.
    """
    if split not in SPLITS:
        raise InvalidOption(f"arithmetic has the splits {', '.join(SPLITS)}, not {split!r}")
    _check(shape)
    if rows < 1:
        raise InvalidOption(f"arithmetic needs at least one row, got {rows}")
    key = {"split": split, "rows": rows, "seed": seed, **shape._asdict()}

    def build() -> Dataset:
        return Dataset.from_list(problems(split, rows, shape, seed), features=FEATURES)

    return cached_dataset(f"arithmetic-{split}", key, [Path(__file__), Path(decimals.__file__)], build)


def problems(split: str, rows: int, shape: Shape, seed: int = 0) -> list[dict[str, Any]]:
    """Generate the rows of `load`, without the cache."""
    drawn: set[Problem] = set()
    problems_drawn = []
    for index in range(rows):
        rng = np.random.default_rng([seed, SPLITS[split], index])
        for _ in range(TRIES):
            problem = _draw(rng, shape, split == "extrapolation")
            key = canonical(problem)
            if (split == "extrapolation" or split_of(key) == split) and key not in drawn:
                break
        else:
            smaller = "task.source.digits or task.source.decimals up, or task.source.rows down"
            raise InvalidOption(f"no new problem for row {index} of {split} in {TRIES} draws; turn {smaller}")
        if split != "train":
            drawn.add(key)
        problems_drawn.append(_row(problem, rng, shape, split, f"{split}-{seed}-{index}"))
    return problems_drawn


def canonical(problem: Problem) -> Problem:
    """Canonical form of a problem: the same for 2 + 3 and 3 + 2, and for 1.50 and 1.5."""
    left, right = problem.left.normalize(), problem.right.normalize()
    if problem.operation in "+*" and right < left:
        left, right = right, left
    return Problem(left, problem.operation, right)


def split_of(key: Problem) -> str:
    """Split of a canonical problem within the interpolation range."""
    text = f"{plain(key.left)}{key.operation}{plain(key.right)}"
    bucket = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
    return "train" if bucket < 80 else "validation" if bucket < 90 else "test"


def result(problem: Problem, places: int) -> Decimal:
    """The exact result; a quotient rounded to `places`, halves away from zero."""
    left, operation, right = problem
    if operation == "+":
        return EXACT.add(left, right)
    if operation == "-":
        return EXACT.subtract(left, right)
    if operation == "*":
        return EXACT.multiply(left, right)
    return EXACT.divide(left, right).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP, context=EXACT)


def whole_digits(value: Decimal) -> int:
    """Digits before the point; 0.5 has one."""
    return len(str(int(abs(value))))


def _draw(rng: np.random.Generator, shape: Shape, beyond: bool) -> Problem:
    operation = shape.operations[int(rng.integers(len(shape.operations)))]
    most = shape.extrapolation_digits if beyond else shape.digits
    lengths = [int(rng.integers(1, most + 1)), int(rng.integers(1, most + 1))]
    if beyond:
        lengths[int(rng.integers(2))] = int(rng.integers(shape.digits + 1, most + 1))
    left, right = (_operand(rng, length, shape) for length in lengths)
    if operation == "/" and right == 0:
        right = Decimal(1)
    return Problem(left, operation, right)


def _operand(rng: np.random.Generator, length: int, shape: Shape) -> Decimal:
    places = int(rng.integers(0, shape.decimals + 1)) if rng.random() < 0.5 else 0
    integer = int(rng.integers(10 ** (length - 1) if length > 1 else 0, 10**length))
    fraction = int(rng.integers(0, 10**places))
    value = Decimal(integer) + Decimal(fraction).scaleb(-places)
    return -value if shape.negatives and rng.random() < 0.25 else value


def _row(problem: Problem, rng: np.random.Generator, shape: Shape, split: str, name: str) -> dict[str, Any]:
    answer = result(problem, shape.quotient_places)
    longest = max(whole_digits(problem.left), whole_digits(problem.right))
    broken = any(value != int(value) for value in (problem.left, problem.right))
    return {
        "id": name,
        "left": plain(problem.left),
        "operation": problem.operation,
        "right": plain(problem.right),
        "wording": int(shape.wordings[int(rng.integers(len(shape.wordings)))]),
        "places": shape.quotient_places,
        "answer": plain(answer),
        "range": "extrapolation" if split == "extrapolation" else "interpolation",
        "level": longest - 1 + broken + (problem.operation in "*/"),
    }


def _check(shape: Shape) -> None:
    unknown = [o for o in shape.operations if o not in OPERATIONS]
    if unknown or not shape.operations:
        operations = list(shape.operations)
        raise InvalidOption(f"task.source.operations must be some of {' '.join(OPERATIONS)}, got {operations}")
    if not 1 <= shape.digits < shape.extrapolation_digits <= 12:
        raise InvalidOption(
            "need 1 <= task.source.digits < task.source.extrapolation_digits <= 12, got "
            f"digits={shape.digits}, extrapolation_digits={shape.extrapolation_digits}"
        )
    if not 0 <= shape.decimals <= 6:
        raise InvalidOption(f"task.source.decimals must be 0 to 6, got {shape.decimals}")
