"""MathVista's own scoring: an extracted answer is brought to the answer's form and compared as text.

It follows github lupantech/MathVista `evaluation/calculate_score.py`; on the stored outputs of its 12 runs every
verdict is the same (tests/tasks/test_mathvista_metrics.py). By the problem's type:

* multi_choice: what isn't text becomes text (nothing at all becomes `None`). The first single letter in round brackets,
  in any case, is taken for the answer. A letter that numbers a choice (in brackets, or a capital alone) means that
  choice; anything else means the choice at the smallest Levenshtein distance, the first of equals. So any text may be
  right by chance: that is the protocol of MathVista.
* integer: read as Python's `float` reads, cut towards zero (`12.9` is 12). `1,000`, `5 cm`, `nan` and nothing are
  wrong.
* float: read likewise, rounded by Python's `round` to the problem's precision, written as Python writes it (`-0.0`).
* list, and anything else: its text, unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

_LETTER = re.compile(r"\(([a-zA-Z])\)")


def normalize(
    extraction: Any, choices: Sequence[str] | None, question_type: str, answer_type: str, precision: float | None
) -> str | None:
    """The prediction that is compared with the answer; None is never right.

    Raises:
        ValueError: a multi_choice problem without choices.
    """
    if question_type == "multi_choice":
        if not choices:
            raise ValueError("a multi_choice problem has no choices")
        return _choice(extraction.strip() if isinstance(extraction, str) else str(extraction), choices)
    if answer_type in ("integer", "float"):
        try:
            value = float(extraction)
            return str(int(value)) if answer_type == "integer" else str(round(value, _places(precision)))
        except (TypeError, ValueError, OverflowError):
            return None
    return str(extraction) if answer_type == "list" else extraction


def verdict(extraction: Any, problem: dict[str, Any]) -> bool:
    """Whether the official script calls an extraction true. `problem` has the fields of testmini.json."""
    names = ("choices", "question_type", "answer_type", "precision")
    prediction = normalize(extraction, *(problem[name] for name in names))
    return prediction is not None and prediction == problem["answer"]


def _choice(text: str, choices: Sequence[str]) -> str:
    bracketed = _LETTER.search(text)
    if bracketed:
        text = bracketed[1].upper()
    if len(text) == 1 and 0 <= ord(text) - ord("A") < len(choices):
        return choices[ord(text) - ord("A")]
    return min(choices, key=lambda choice: Levenshtein.distance(text, choice))


def _places(precision: float | None) -> int:
    if precision is None:
        raise ValueError("a float problem has no precision")
    return int(precision)
