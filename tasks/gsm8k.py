"""GSM8K word problems (Cobbe et al. 2021, arXiv 2110.14168) for text models: a question, answered by one number.

Metrics: those of `tasks.numeric`. Like the official script, an answer is the number after the first `####`; unlike it,
numbers are compared as values, so `18.00` is 18.

* `reasoning=false`: the answer taught is the number alone. Strict: one plain number and nothing else.
* `reasoning=true`: the solution, then `#### <number>` on a line of its own. Strict: the number after the first `####`,
  with or without thousands commas.

The lenient reading is the strict one where that succeeds, else the first number after the first `####`, else the last
number anywhere (`tasks.answers.numbers`).
"""

from __future__ import annotations

import re
from decimal import Decimal

from data.common.errors import InvalidOption
from data.common.source import Source
from tasks.answers.numbers import numerals, read_lenient, read_strict
from tasks.base import ParseFailure, Row
from tasks.numeric import NumberTask

_MARKED = re.compile(r"#### *(-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?)\.?(?![0-9,])")


class GSM8K(NumberTask):
    """Task of GSM8K's word problems, with or without worked solutions.

    Args:
        source: rows with `question`, `solution` and `answer`.
        reasoning: teach the worked solution before the number.
        question: the prompt, with `{question}`.
        max_new_tokens: what generation may write at most; by default 16, and 320 with reasoning.
    """

    columns = ("question", "solution", "answer")

    def __init__(
        self,
        source: Source,
        reasoning: bool = False,
        question: str = "{question}",
        max_new_tokens: int | None = None,
    ) -> None:
        if "{question}" not in question:
            raise InvalidOption(f"task.question must hold {{question}}, got {question!r}")
        self.source, self.reasoning, self.question = source, reasoning, question
        self.max_new_tokens = max_new_tokens or (320 if reasoning else 16)

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

    def search(self, text: str, row: Row) -> Decimal | ParseFailure:
        marked = numerals(text.partition("####")[2])
        return read_lenient(marked[0] if marked else text)


def _unpadded(number: str) -> str:
    """Without thousands commas and leading zeros, which the official script takes too."""
    return re.sub(r"^(-?)0+(?=[0-9])", r"\1", number.replace(",", ""))
