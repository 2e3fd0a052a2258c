"""Arithmetic for text models: `12 + 5 =` or `What is 12 plus 5?`, answered with one number.

Metrics: those of `tasks.quantity` (exact match, relative and log error, MAE, Pearson, Spearman), over all rows and as
`interpolation/...` and `extrapolation/...`. Problems, and why no split knows another's: `data.arithmetic`.

Splits: `train`, `validation`, `interpolation` (held-out problems of the trained range), `extrapolation` (longer
numbers) and `test`, which is the last two together.

Answers are the shortest exact decimal (`-3`, `0.5`); quotients are rounded, as the question says. The strict reading
takes one plain number and nothing else, the lenient one the last number anywhere in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from datasets import Dataset, concatenate_datasets

from data import arithmetic
from tasks.base import Row
from tasks.quantity import NumberTask

Wording = Literal["symbols", "words", "both"]
WORDINGS: dict[str, Sequence[int]] = {"symbols": (0,), "words": (1, 2), "both": (0, 1, 2)}
_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


class Arithmetic(NumberTask):
    """
    Args:
        operations: some of + - * /.
        digits, extrapolation_digits: the most digits before the point, trained and beyond.
        decimals: the most digits after the point; 0 for integers only.
        negatives: a quarter of the operands is negative.
        wording: `symbols`, `words` or `both`.
        rows: how many rows of train, validation and test, half of which is interpolation and half extrapolation; counts
            of `interpolation` and `extrapolation` of their own go before that.
        seed: of the draws; which split a problem belongs to doesn't depend on it.
    """

    def __init__(
        self,
        operations: Sequence[str] = ("+", "-", "*"),
        digits: int = 3,
        extrapolation_digits: int = 5,
        decimals: int = 1,
        negatives: bool = True,
        wording: Wording = "symbols",
        rows: dict[str, int] | None = None,
        seed: int = 0,
    ) -> None:
        if wording not in WORDINGS:
            raise ValueError(f"task.wording must be symbols, words or both, got {wording!r}")
        self.shape = arithmetic.Shape(
            tuple(operations), digits, extrapolation_digits, decimals, negatives, WORDINGS[wording]
        )
        self.counts, self.seed = rows or {}, seed
        # The longest product with its sign and point, and a few tokens for a leading blank and the end.
        self.max_new_tokens = 2 * (extrapolation_digits + decimals) + 6

    def rows(self, split: str) -> Dataset:
        if split == "test":
            return concatenate_datasets([self.rows("interpolation"), self.rows("extrapolation")])
        count = self.counts.get(split)
        if count is None and "test" in self.counts and split in ("interpolation", "extrapolation"):
            count = (self.counts["test"] + (split == "interpolation")) // 2
        if not count:
            raise ValueError(f"task.rows has no count for the split {split!r}; set task.rows.{split}=...")
        source = "test" if split == "interpolation" else split
        return arithmetic.load(source, rows=count, shape=self.shape, seed=self.seed)

    def prompt(self, row: Row) -> str:
        left, operation, right = row["left"], row["operation"], row["right"]
        rounded = f" rounded to {row['places']} decimals, halves away from zero" if operation == "/" else ""
        if row["wording"] == 0:
            right = f"({right})" if right.startswith("-") else right
            return f"{left} {operation} {right}{rounded} ="
        asked = f"{left} {_WORDS[operation]} {right}"
        return f"What is {asked}{rounded}?" if row["wording"] == 1 else f"Compute {asked}{rounded}."

    def answer(self, row: Row) -> str:
        return str(row["answer"])

    def truth(self, row: Row) -> Decimal:
        return Decimal(row["answer"])

    def groups(self, row: Row) -> list[str]:
        return [row["range"]]
