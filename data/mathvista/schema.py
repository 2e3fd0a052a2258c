"""Columns that every source of visual mathematics gives: those of MathVista's problems, flattened.

id, image, question, prompt (the source's own full prompt, or null), choices, unit, precision (decimals of a float
answer), answer (as the official scoring compares it: of a multi_choice problem the text of the choice), target (the
text that is taught, where it isn't made from the answer), question_type (multi_choice or free_form), answer_type (text,
integer, float or list), the official metadata, and level (for a curriculum, 0 where a source knows none).
"""

from __future__ import annotations

from typing import Any

from datasets import Features, Image, List, Value

from data.common.errors import InvalidData

METADATA = ("task", "context", "grade", "language", "source", "category")
FEATURES = Features(
    {
        "id": Value("string"),
        "image": Image(),
        "question": Value("string"),
        "prompt": Value("string"),
        "choices": List(Value("string")),
        "unit": Value("string"),
        "precision": Value("int32"),
        "answer": Value("string"),
        "target": Value("string"),
        "question_type": Value("string"),
        "answer_type": Value("string"),
        **{name: Value("string") for name in METADATA},
        "skills": List(Value("string")),
        "level": Value("int32"),
    }
)
ANSWER_TYPES = {"multi_choice": ("text",), "free_form": ("integer", "float", "list", "text")}


def checked(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Check that types, choices and answer of a row fit one another; the row with all columns.

    Raises:
        InvalidData: they don't.
    """
    kind, form = row["question_type"], row["answer_type"]
    if form not in ANSWER_TYPES.get(kind, ()):
        problem = f"{kind!r} with answer_type {form!r}"
        raise InvalidData(where, "question_type", problem, "take multi_choice with text, or free_form with a number")
    if not isinstance(row["question"], str) or not row["question"].strip():
        raise InvalidData(where, "question", f"{row['question']!r} is no text", "give the question")
    if not isinstance(row["answer"], str) or not row["answer"].strip():
        raise InvalidData(where, "answer", f"{row['answer']!r} is no answer", "take a split whose answers are public")
    choices = row.get("choices") or []
    if kind == "multi_choice" and (not 2 <= len(choices) <= 26 or row["answer"] not in choices):
        raise InvalidData(where, "choices", f"{row['answer']!r} is none of {choices}", "give 2 to 26, the answer too")
    precision = row.get("precision")
    if form == "float" and (precision is None or precision != int(precision) or not 0 <= precision <= 12):
        raise InvalidData(where, "precision", f"{precision!r} for a float answer", "give the number of decimals")
    if form in ("integer", "float") and not _is_number(row["answer"]):
        raise InvalidData(where, "answer", f"{row['answer']!r} is no number", f"correct it, or its type {form}")
    empty = dict.fromkeys(FEATURES) | {"choices": [], "skills": [], "level": 0}
    return {**empty, **row, "choices": choices, "precision": None if precision is None else int(precision)}


def _is_number(text: str) -> bool:
    try:
        return abs(float(text)) < float("inf")
    except ValueError:
        return False
