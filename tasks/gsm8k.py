"""GSM8K word problems (Cobbe et al. 2021, arXiv 2110.14168) for text models: a question, answered by one number.

Metrics: those of `tasks.quantity`. Like the official script, an answer is the number after the first `####`; unlike it,
numbers are compared as values, so `18.00` is 18.

* `reasoning=false`: the answer taught is the number alone. Strict: one plain number and nothing else.
* `reasoning=true`: the solution, then `#### <number>` on a line of its own. Strict: the number after the first `####`,
  with or without thousands commas.

The lenient reading is the last number anywhere.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from datasets import Dataset

from data import gsm8k
from data.broken import OnError, Tolerance
from tasks.base import ParseFailure, Row
from tasks.quantity import NumberTask, read_strict

_MARKED = re.compile(r"#### *(-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?)\.?(?![0-9,])")


class GSM8K(NumberTask):
    """
    Args:
        files: split -> a JSONL (or parquet) file. The release has train and test only.
        holdout: how many rows at the end of train's file are validation instead, where `files` has no validation.
        reasoning: teach the worked solution before the number.
        calculator: keep its `<<48/2=24>>` annotations.
        question: the prompt, with `{question}`.
        on_error: what to do with a broken line.
        max_new_tokens: what generation may write at most; by default 16, and 320 with reasoning.
    """

    def __init__(
        self,
        files: dict[str, str],
        holdout: int = 500,
        reasoning: bool = False,
        calculator: bool = False,
        question: str = "{question}",
        on_error: OnError = "raise",
        max_new_tokens: int | None = None,
    ) -> None:
        if "{question}" not in question:
            raise ValueError(f"task.question must hold {{question}}, got {question!r}")
        if holdout < 0:
            raise ValueError(f"task.holdout must be at least 0, got {holdout}")
        self.files, self.holdout, self.reasoning, self.calculator = files, holdout, reasoning, calculator
        self.question, self.tolerance = question, Tolerance(on_error)
        self.max_new_tokens = max_new_tokens or (320 if reasoning else 16)

    def rows(self, split: str) -> Dataset:
        assert self.tolerance is not None
        held_out = "validation" not in self.files and split in ("train", "validation")
        name = "train" if held_out else split
        if name not in self.files:
            raise ValueError(f"task.files has no file for the split {split!r}; set task.files.{name}=...")
        rows = gsm8k.load(Path(self.files[name]), self.calculator, self.tolerance)
        if not held_out:
            return rows
        if self.holdout >= len(rows):
            raise ValueError(f"task.holdout={self.holdout} leaves no row of {len(rows)} to train on; make it smaller")
        cut = len(rows) - self.holdout
        if split == "validation" and not self.holdout:
            raise ValueError("task.holdout=0 leaves no validation rows; set it, or task.files.validation")
        return rows.select(range(cut) if split == "train" else range(cut, len(rows)))

    def prompt(self, row: Row) -> str:
        return self.question.replace("{question}", row["question"])

    def answer(self, row: Row) -> str:
        return f"{row['solution']}\n#### {row['answer']}" if self.reasoning else str(row["answer"])

    def truth(self, row: Row) -> Decimal:
        return Decimal(row["answer"])

    def parse(self, text: str, row: Row) -> Decimal | ParseFailure:
        if not self.reasoning:
            return read_strict(text)
        head, marker, _ = text.partition("####")
        match = _MARKED.match(text, len(head)) if marker else None
        return read_strict(_unpadded(match[1])) if match else ParseFailure("no number after ####")


def _unpadded(number: str) -> str:
    """Without thousands commas and leading zeros, which the official script takes too."""
    return re.sub(r"^(-?)0+(?=[0-9])", r"\1", number.replace(",", ""))
