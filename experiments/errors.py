"""Numbers in answers and in what a model wrote, paired."""

from __future__ import annotations

import re
from typing import Any

# As in prose: a minus counts where no digit, letter or closing bracket stands before it; <loc0123> holds 123.
_NUMBER = re.compile(r"(?<![\d.])(?:(?<![\w\])])-)?\d+(?:\.\d+)?")


def numbers(text: str) -> list[float]:
    return [float(found) for found in _NUMBER.findall(text)]


def signed_errors(record: dict[str, Any]) -> list[float]:
    """predicted - true for each number of a prediction's record; none where their counts differ."""
    true, predicted = numbers(record["answer"]), numbers(record["text"])
    if len(true) != len(predicted):
        return []
    return [p - t for p, t in zip(predicted, true, strict=True)]
