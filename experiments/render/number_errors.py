"""Numbers in answers and in what a model wrote, paired."""

from __future__ import annotations

import re
from typing import Any

# A minus counts where no digit, letter or closing bracket precedes it; <loc0123> holds 123.
_NUMBER = re.compile(r"(?<![\d.])(?:(?<![\w\])])-)?\d+(?:\.\d+)?")


def numbers(text: str) -> list[float]:
    """All numbers in a text, in order."""
    return [float(match) for match in _NUMBER.findall(text)]


def signed_errors(record: dict[str, Any]) -> list[float]:
    """Differences predicted - true for the numbers of a prediction's record; none where their counts differ."""
    true, predicted = numbers(record["answer"]), numbers(record["text"])
    if len(true) != len(predicted):
        return []
    return [p - t for p, t in zip(predicted, true, strict=True)]
