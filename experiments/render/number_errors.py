"""Numbers in answers and in what a model wrote, paired."""

from __future__ import annotations

import re
from typing import Any

from tasks.answers.characters import ascii_variants

# A minus counts where no digit, letter or closing bracket precedes it; <loc0123> holds 123.
_NUMBER = re.compile(r"(?<![\d.])(?:(?<![\w\])])-)?\d+(?:\.\d+)?")


def numbers(text: str) -> list[float]:
    """All numbers in a text, in order."""
    return [float(match) for match in _NUMBER.findall(text)]


def signed_errors(record: dict[str, Any]) -> list[float]:
    """Differences predicted - true for the numbers of a prediction's record; none where their counts differ.

    Of a task with one number it is the number that was scored leniently.
    """
    if "lenient_read" in record and "truth" in record:
        read = record["lenient_read"]
        return [] if read is None else [read - record["truth"]]
    true, predicted = numbers(ascii_variants(record["answer"])), numbers(ascii_variants(record["text"]))
    if len(true) != len(predicted):
        return []
    return [p - t for p, t in zip(predicted, true, strict=True)]
