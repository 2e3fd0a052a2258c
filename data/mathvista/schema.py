"""Columns that every source of visual mathematics gives: those of MathVista's problems, flattened.

id, image, question, prompt (the source's own full prompt, or null), choices, unit, precision (decimals of a float
answer), answer (as the official scoring compares it: of a multi_choice problem the text of the choice), target (the
text that is taught, where it isn't made from the answer), question_type (multi_choice or free_form), answer_type (text,
integer, float or list), the official metadata, and level (for a curriculum, 0 where a source knows none).
"""

from __future__ import annotations

from typing import Any

from datasets import Features, Image, List, Value

from data.common import fields
from data.common.errors import InvalidData, short

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
    if not isinstance(kind, str) or form not in ANSWER_TYPES.get(kind, ()):
        problem = f"{short(kind)} with answer_type {short(form)}"
        raise InvalidData(where, "question_type", problem, "take multi_choice with text, or free_form with a number")
    fields.text(row["question"], where, "question", "give the question")
    answer = row["answer"]
    fields.text(answer, where, "answer", "give it as text, or take a split whose answers are public")
    choices = [] if fields.filled(row.get("choices")) is None else fields.items(row["choices"], where, "choices")
    for number, choice in enumerate(choices):
        fields.text(choice, where, f"choices, {number}", "give the choices as texts")
    if kind == "multi_choice" and (not 2 <= len(choices) <= 26 or answer not in choices):
        problem = f"{short(answer)} is none of {short(choices)}"
        raise InvalidData(where, "choices", problem, "give 2 to 26, the answer too")
    if form in ("integer", "float") and not fields.is_number(answer):
        raise InvalidData(where, "answer", f"{short(answer)} is no number", f"correct it, or its type {form}")
    if form == "integer" and not float(answer).is_integer():
        raise InvalidData(where, "answer", f"{short(answer)} is no integer", "correct it, or its type")
    empty = dict.fromkeys(FEATURES) | {"choices": [], "skills": [], "level": 0}
    texts = {name: _optional_text(row.get(name), where, name) for name in ("prompt", "unit", "target", *METADATA)}
    return {**empty, **row, **texts, "choices": choices, "precision": _precision(row.get("precision"), form, where)}


def _precision(value: Any, form: str, where: str) -> int | None:
    """Decimals of a float answer; of the others it is left as it is, where there is one."""
    remedy = "give the number of decimals, 0 to 12"
    if fields.filled(value) is None:
        if form == "float":
            raise InvalidData(where, "precision", f"{short(value)} for a float answer", remedy)
        return None
    places = fields.whole(value, where, "precision", remedy)
    if not 0 <= places <= 12:
        raise InvalidData(where, "precision", f"{places} decimals", remedy)
    return places


def _optional_text(value: Any, where: str, field: str) -> str | None:
    if fields.filled(value) is None:
        return value if isinstance(value, str) else None
    fields.text(value, where, field)
    return str(value)
