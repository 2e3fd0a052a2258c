"""Arithmetic for text models: `12 + 5 =` or `What is 12 plus 5?`, answered with one number.

Metrics: those of `tasks.numeric` (exact match, relative and log error, MAE, Pearson, Spearman), over all rows and as
`interpolation/...` and `extrapolation/...`. Problems and the separation of splits: `data.arithmetic`.

Splits: `train`, `validation`, `interpolation` (held-out problems of the trained range), `extrapolation` (longer
numbers) and `test`, which is the last two together.

Answers are the shortest exact decimal (`-3`, `0.5`); quotients are rounded, as the question says. The strict reading
takes one plain number and nothing else, the lenient one the last quantity anywhere in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from data.arithmetic import ArithmeticProblems
from tasks.base import Row
from tasks.numeric import NumberTask

_WORDS = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}


class Arithmetic(NumberTask):
    """Task of generated arithmetic problems.

    Args:
        source: the problems.
    """

    number_count = 1

    def __init__(self, source: ArithmeticProblems) -> None:
        self.source = source
        # The longest product with its sign and point, and a few tokens for a leading space and the end.
        self.max_new_tokens = 2 * (source.shape.extrapolation_digits + source.shape.decimals) + 6

    def prompt(self, row: Row) -> str:
        left, operation, right = row["left"], row["operation"], row["right"]
        rounded = f" rounded to {row['places']} decimals, halves away from zero" if operation == "/" else ""
        if row["wording"] == 0:
            right = f"({right})" if right.startswith("-") else right
            return f"{left} {operation} {right}{rounded} ="
        question = f"{left} {_WORDS[operation]} {right}"
        return f"What is {question}{rounded}?" if row["wording"] == 1 else f"Compute {question}{rounded}."

    def answer(self, row: Row) -> str:
        return str(row["answer"])

    def truth(self, row: Row) -> Decimal:
        return Decimal(row["answer"])

    def written(self, numbers: Sequence[float], row: Row) -> str:
        """The number, rounded to as many decimals as the right answer has."""
        decimals = len(row["answer"].partition(".")[2])
        return f"{numbers[0]:.{decimals}f}"

    def groups(self, row: Row) -> list[str]:
        return [row["range"]]
