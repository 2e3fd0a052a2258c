r"""Visual mathematics to train on, in the JSON of MathV360K, Geo170K, ChartQA and similar (.json, .jsonl, .parquet).

    {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nQuestion: ..\nChoices:\n(A) .."},
                                         {"from": "gpt", "value": "The answer is B"}]}
    {"image": "a.png", "question": "..", "answer": "..", "choices": [..]}      ChartQA: imgname, query, label

MathVista itself is refused by name: its licence prohibits using it as a training set. Of an answer only what follows
`The answer is` is kept, without the phrase around it. Where the question lists choices, a letter or a choice is a
multiple-choice answer; a plain number is an integer or float answer; anything else is text.

Validation rows are those whose picture's name falls into `validation` of 100 hash values, so that no picture is shared
with train. Columns: as of data.mathvista.schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from data.common.errors import InvalidData, RowErrors, UserError
from data.common.images import given_picture
from data.common.rows import RowWriter
from data.common.table_files import read_table
from data.mathvista.schema import FEATURES, checked

QUESTIONS, ANSWERS, IMAGES = ("question", "query", "problem"), ("answer", "label", "solution"), ("image", "imgname")
_CHOICE = re.compile(r"^ *\(([A-Z])\) *(.+?) *$", re.MULTILINE)
_FINAL = re.compile(r"\bthe answer is:?\s*(.+?)\s*$", re.IGNORECASE | re.DOTALL)
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]{1,6})?")
_LETTER = re.compile(r"\(([A-Z])\)(?:[.:]? .*)?|([A-Z])(?:[.:)](?: .*)?)?", re.DOTALL)


class LicenceError(UserError):
    """Training was asked for on data whose licence prohibits it."""


def load(
    path: Path, part: Literal["train", "validation"], validation: int, images: Path | None, row_errors: RowErrors
) -> Dataset:
    """The training or the validation rows of a file.

    Raises:
        LicenceError: the file is MathVista's.
        InvalidData: a missing or broken file, or (on_error=raise) a row that can't be used.
    """
    _refuse_mathvista(str(path), "mathvista" in path.name.lower() or "testmini" in path.name.lower())
    writer = RowWriter(FEATURES, f"{path}, {part}", row_errors)
    for number, where, item in read_table(path, row_errors):
        _refuse_mathvista(where, {"pid", "question_type", "metadata"} <= set(item))
        with row_errors.row():
            name = _image_name(item, where)
            if (_bucket(name) < validation) == (part == "validation"):
                # Looked at only for the rows asked for: reading every picture twice would take minutes.
                image = given_picture(_field(item, IMAGES, where), images or path.parent, where, "image")[0]
                for index, row in enumerate(_turns(item, where)):
                    key = f"{item.get('id', f'{path.stem}-{number}')}" + (f"-{index}" if index else "")
                    writer.add(f"{where}, turn {index}", checked({**row, "id": key, "image": image}, where))
    return writer.dataset()


def _refuse_mathvista(where: str, is_mathvista: bool) -> None:
    if is_mathvista:
        raise LicenceError(
            f"{where}: this is MathVista, and its licence prohibits using it as a training set; "
            "set task.source.train to another source, such as MathV360K, or train on task=mathvista_nano"
        )


def _turns(item: dict[str, Any], where: str) -> Iterator[dict[str, Any]]:
    """Question and answer of every turn of a conversation, or of the one there is."""
    talk = item.get("conversations")
    if talk is None:
        question, answer = _field(item, QUESTIONS, where), _field(item, ANSWERS, where)
        yield _row(question, answer, item.get("choices"), None, where)
        return
    texts = (
        [(str(t.get("from")), t.get("value")) for t in talk if isinstance(t, dict)] if isinstance(talk, list) else []
    )
    pairs = list(zip(texts[::2], texts[1::2], strict=False))
    if not pairs or len(texts) % 2 or any((q[0], a[0]) != ("human", "gpt") for q, a in pairs):
        raise InvalidData(where, "conversations", "is no list of human and gpt in turns", "see the layout")
    for (_, question), (_, answer) in pairs:
        if not isinstance(question, str) or not isinstance(answer, str):
            raise InvalidData(where, "conversations", "a value is no text", "give texts")
        question = question.replace("<image>", "").strip()
        yield _row(question, answer, [choice for _, choice in _CHOICE.findall(question)], question, where)


def _row(question: Any, answer: Any, choices: Any, prompt: str | None, where: str) -> dict[str, Any]:
    if not isinstance(choices, list | None) or not all(isinstance(choice, str) for choice in choices or []):
        raise InvalidData(where, "choices", f"{choices!r} is no list of texts", "give texts, or leave it out")
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    text = str(answer).strip() if isinstance(answer, str | int | float) else ""
    final = _FINAL.search(text)
    text = final[1].removesuffix(".") if final else text
    row = {"question": question, "prompt": prompt, "choices": choices or [], "target": text, "answer": text}
    index = _chosen(text, choices) if choices else None
    if choices and index is not None:
        row |= {"question_type": "multi_choice", "answer_type": "text"}
        return row | {"answer": choices[index], "target": chr(ord("A") + index)}
    if _NUMBER.fullmatch(text):
        places = len(text.partition(".")[2])
        # As the official scoring writes a rounded number, so that 1.50 can be right.
        value = str(round(float(text), places)) if places else str(int(text))
        return row | {
            "question_type": "free_form",
            "answer_type": "float" if places else "integer",
            "precision": places or None,
            "answer": value,
        }
    return row | {"question_type": "free_form", "answer_type": "text"}


def _chosen(text: str, choices: list[str]) -> int | None:
    if text in choices:
        return choices.index(text)
    letter = _LETTER.fullmatch(text)
    index = ord(letter[1] or letter[2]) - ord("A") if letter else len(choices)
    return index if index < len(choices) else None


def _field(item: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in item:
            return item[name]
    problem = f"none of {', '.join(names)}; found {', '.join(item)}"
    raise InvalidData(where, names[0], problem, "name the columns as one of the layouts does")


def _image_name(item: dict[str, Any], where: str) -> str:
    value = _field(item, IMAGES, where)
    if isinstance(value, dict) and value.get("bytes"):
        return hashlib.sha256(value["bytes"]).hexdigest()
    name = value.get("path") if isinstance(value, dict) else value
    if not isinstance(name, str) or not name:
        raise InvalidData(where, "image", f"{name!r} is neither a path nor stored bytes", "give the picture's path")
    return name


def _bucket(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 100
