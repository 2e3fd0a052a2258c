r"""Visual mathematics to train on, in the JSON of MathV360K, Geo170K, ChartQA and similar (.json, .jsonl, .parquet).

    MathV360K   {"image": "a.png", "conversations": [
                    {"from": "human", "value": "<image>\nQuestion: ..\nChoices:\n(A) red\n(B) blue"},
                    {"from": "gpt", "value": "The answer is B"}]}
    Geo170K     the same, with choices as lines "A:40" and a solution that ends in "So the answer is B.\nAnswer:B"
    ChartQA     {"imgname": "a.png", "query": "..", "label": ".."}, the label perhaps a list of one
    others      {"image": "a.png", "question": "..", "answer": "..", "choices": [..]}, the columns perhaps called images
                (a list of one), problem, solution, options; choices may be listed in the question, as above

MathVista itself is refused by name: its licence prohibits using it as a training set. Of an answer only what follows
its last `The answer is` or `Answer:` is kept, without the phrase around it (or what `<answer>` encloses). Where the
question lists choices, a letter or a choice is a multiple-choice answer, and a letter of none is refused; a plain
number is an integer or float answer; anything else is text.

Validation rows are those whose picture's name falls into `validation` of 100 hash values, so that no picture is shared
with train. Columns: as of data.mathvista.schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from datasets import Dataset

from data.common import fields
from data.common.column_form import ColumnForm, Misfit, read_with_evidence
from data.common.decimals import plain
from data.common.errors import InvalidData, RowErrors, UserError, short
from data.common.images import embedded_bytes, given_picture
from data.common.rows import RowWriter
from data.common.table_files import read_table
from data.mathvista.schema import FEATURES, checked

QUESTIONS, ANSWERS = ("question", "query", "problem"), ("answer", "label", "solution")
IMAGES, CHOICES = ("image", "imgname", "images"), ("choices", "options")
CHOICE = "write the letter or the words of a choice, not its index"
LARGEST = 10**300  # a longer integer is damaged data
# Headings of a list of choices, and the ways to list them: "(A) red" anywhere, "A: red" and the like below a heading.
_HEADING = re.compile(r"^[ \t]*(?:choices|options)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_BRACKETED = re.compile(r"^[ \t]*\(([A-Z])\)", re.MULTILINE)
_BARE = re.compile(r"^[ \t]*([A-Z])[ \t]*[:.)]", re.MULTILINE)
_INLINE = re.compile(r"\(([A-Z])\)")
_FINAL = re.compile(
    r"(?:\bthe (?:correct |final |right )?answer is|^[ \t]*(?:final )?answer[ \t]*(?=:)):?", re.I | re.M
)
_OPTION = re.compile(r"\s*(?:option|choice)[ \t]+(?=\(?[A-Z]\b)", re.IGNORECASE)
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_EMPHASIS = re.compile(r"\*\*([^*]+)\*\*|\\boxed\{([^{}]+)\}|\$\\boxed\{([^{}]+)\}\$")
_INDEX = re.compile(r"[0-9]{1,3}")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]{1,6})?")
_LETTER = re.compile(r"(?:\(([A-Z])\)|([A-Z])(?=[.)](?:\s|$)|:|\s*\n|\s*$))[.:)]?\s*(.*)", re.DOTALL)


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

    def read(policy: RowErrors) -> Dataset:
        return _load(path, part, validation, images, policy)

    return read_with_evidence(read, row_errors)


def _load(
    path: Path, part: Literal["train", "validation"], validation: int, images: Path | None, row_errors: RowErrors
) -> Dataset:
    writer, choosing = RowWriter(FEATURES, f"{path}, {part}", row_errors), _choosing()
    questions, unlisted = [], []
    for number, where, item in read_table(path, row_errors):
        _refuse_mathvista(where, {"pid", "question_type", "metadata"} <= set(item))
        with row_errors.row():
            name = _image_name(item, where)
            if (_bucket(name) < validation) == (part == "validation"):
                # Looked at only for the rows asked for: reading every picture twice would take minutes.
                image = given_picture(_field(item, IMAGES, where), images or path.parent, where, "image")[0]
                for index, row in enumerate(_turns(item, where, choosing)):
                    key = _id(item, f"{path.stem}-{number}", where) + (f"-{index}" if index else "")
                    key = writer.distinct(key, f"{number}")  # exports of LLaVA's kind number pictures
                    writer.add(f"{where}, turn {index}", checked({**row, "id": key, "image": image}, where))
                    questions.append(f"{name} {row['question']}")
                    if (
                        not row["choices"]
                        and _HEADING.search(row["question"])
                        and _LETTER.fullmatch(row["target"].upper())
                    ):
                        unlisted.append(where)
    choosing.check(str(path), "answer", CHOICE)
    if repeated := fields.repeated(questions):
        row_errors.note(str(path), f"{len(repeated)} questions occur more than once on one picture")
    if unlisted:
        problem = f"{len(unlisted)} letters answer choices that aren't listed as (A) .., (B) .. and are taught as texts"
        row_errors.note(str(path), f"{problem}; the first in {unlisted[0]}")
    return writer.dataset()


def _refuse_mathvista(where: str, is_mathvista: bool) -> None:
    if is_mathvista:
        raise LicenceError(
            f"{where}: this is MathVista, and its licence prohibits using it as a training set; "
            "set task.source.train to another source, such as MathV360K, or train on task=mathvista_nano"
        )


def _choosing() -> ColumnForm:
    """How the answers beside a column of choices name one: some data sets give its index."""

    def is_index(first: int) -> Callable[[str, list[str]], bool]:
        return lambda text, choices: bool(_INDEX.fullmatch(text)) and 0 <= int(text) - first < len(choices)

    def is_choice(text: str, choices: list[str]) -> bool:
        return text in choices or _LETTER.fullmatch(text) is not None

    forms: dict[str, Callable[..., bool]] = {
        "letters or words of choices": is_choice,
        "indices of choices from 0": is_index(0),
        "indices of choices from 1": is_index(1),
    }
    return ColumnForm("letters or words of choices", forms)


def _turns(item: dict[str, Any], where: str, choosing: ColumnForm) -> Iterator[dict[str, Any]]:
    """Question and answer of every turn of a conversation, or of the one there is."""
    talk = item.get("conversations")
    if talk is None:
        question, answer = _field(item, QUESTIONS, where), _field(item, ANSWERS, where)
        if isinstance(question, str):
            question = question.replace("<image>", "").strip()
        choices = next((item[name] for name in CHOICES if fields.filled(item.get(name)) is not None), None)
        choices = fields.unpacked(choices, where, "choices")
        listed = listed_choices(question) if isinstance(question, str) and not choices else []
        # A question that lists them is asked as it stands.
        row = _row(question, answer, listed or choices, question if listed else None, where)
        if row["choices"] and not listed:
            text = _final(_written(answer, where))
            choosing.add(where, text, row["choices"])
            if _INDEX.fullmatch(text) and text not in row["choices"]:
                raise Misfit(where, "answer", f"{short(text)} is none of {short(row['choices'])}", CHOICE)
        yield row
        return
    turns = [_turn(turn, where) for turn in fields.items(talk, where, "conversations", "see the layout")]
    pairs = list(zip(turns[::2], turns[1::2], strict=False))
    if not pairs or len(turns) % 2 or any((q[0], a[0]) != ("human", "gpt") for q, a in pairs):
        raise InvalidData(where, "conversations", "is no list of human and gpt in turns", "see the layout")
    for (_, question), (_, answer) in pairs:
        question = question.replace("<image>", "").strip()
        yield _row(question, answer, listed_choices(question), question, where)


def _turn(turn: Any, where: str) -> tuple[str, str]:
    turn = fields.record(turn, where, "conversations", "see the layout")
    if not isinstance(turn.get("value"), str):
        raise InvalidData(where, "conversations", "a value is no text", "give texts")
    return str(turn.get("from")), turn["value"]


def listed_choices(question: str) -> list[str]:
    """The choices that a question lists from A on, two or more; [] where it lists none."""
    headings = list(_HEADING.finditer(question))
    body = question[headings[-1].end() :] if headings else question
    for style in (_BRACKETED, _BARE, _INLINE) if headings else (_BRACKETED,):
        marks = list(style.finditer(body))
        if len(marks) > 1 and [mark[1] for mark in marks] == [chr(ord("A") + i) for i in range(len(marks))]:
            ends = [mark.start() for mark in marks[1:]] + [len(body)]
            choices = [body[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
            # What follows the last one, on lines of its own, is a hint.
            return [*choices[:-1], choices[-1].partition("\n")[0].strip()]
    return []


def _row(question: Any, answer: Any, choices: Any, prompt: str | None, where: str) -> dict[str, Any]:
    if not isinstance(choices, list | None) or not all(isinstance(choice, str) for choice in choices or []):
        raise InvalidData(where, "choices", f"{short(choices)} is no list of texts", "give texts, or leave it out")
    text = _final(_written(answer, where))
    row = {"question": question, "prompt": prompt, "choices": choices or [], "target": text, "answer": text}
    # A letter comes first where the question lists the choices by letters, a choice where they are a column.
    index = _chosen(text, choices, prompt is not None, where) if choices else None
    if choices and index is not None:
        row |= {"question_type": "multi_choice", "answer_type": "text"}
        return row | {"answer": choices[index], "target": chr(ord("A") + index)}
    if _NUMBER.fullmatch(text):
        places = len(text.partition(".")[2])
        # As the official scoring writes a rounded number, so that 1.50 can be right.
        value = str(round(float(text), places)) if places else plain(Decimal(text))
        return row | {
            "question_type": "free_form",
            "answer_type": "float" if places else "integer",
            "precision": places or None,
            "answer": value,
        }
    return row | {"question_type": "free_form", "answer_type": "text"}


def _written(answer: Any, where: str) -> str:
    """An answer as text; a number without an exponent."""
    answer = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    if isinstance(answer, float):
        answer = plain(Decimal(repr(fields.number(answer, where, "answer"))))
    if not isinstance(answer, str | int) or (isinstance(answer, int) and abs(answer) >= LARGEST):
        raise InvalidData(where, "answer", f"{short(answer)} is no answer", "give one text or number")
    return str(answer).strip()


def _final(text: str) -> str:
    """What an answer comes to: the part after its last phrase for that, else all of it."""
    text = _final_part(text)
    emphasis = _EMPHASIS.fullmatch(text)
    return next(filter(None, emphasis.groups())).strip() if emphasis else text


def _final_part(text: str) -> str:
    tagged = _TAGGED.findall(text)
    if tagged:
        return str(tagged[-1]).strip()
    phrases = list(_FINAL.finditer(text))
    end = text[phrases[-1].end() :].strip() if phrases else ""
    if not end:
        return text
    option = _OPTION.match(end)
    return (end[option.end() :] if option else end).removesuffix(".").strip()


def _chosen(text: str, choices: list[str], letters_first: bool, where: str) -> int | None:
    """Index of the choice that an answer names by its letter or word for word; None where it does neither.

    Raises:
        InvalidData: the letter of no choice, or a letter beside the words of another choice.
    """
    if text in choices and not (letters_first and re.fullmatch(r"[A-Z]", text)):
        return choices.index(text)
    letter = _LETTER.fullmatch(text)
    if letter is None:
        return None
    index, words = ord(letter[1] or letter[2]) - ord("A"), letter[3].strip()
    if words in choices and (index >= len(choices) or words != choices[index]):
        problem = f"{short(text)} has the letter of one choice and the words of another"
    elif index < len(choices):
        return index
    elif words and letter[2]:  # a sentence that begins like a letter
        return None
    else:
        problem = f"{short(text)} is the letter of none of {len(choices)} choices"
    raise InvalidData(where, "answer", problem, "correct the answer or the choices")


def _id(item: dict[str, Any], default: str, where: str) -> str:
    value = item.get("id")
    return default if fields.filled(value) is None else str(fields.key(value, where, "id"))


def _field(item: dict[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in item:
            return item[name]
    problem = f"none of {', '.join(names)}; found {', '.join(item)}"
    raise InvalidData(where, names[0], problem, "name the columns as one of the layouts does")


def _image_name(item: dict[str, Any], where: str) -> str:
    """What decides whether a picture is held out: its path, or a digest of its bytes."""
    value = _field(item, IMAGES, where)
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    value = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
    content = value if isinstance(value, bytes) else embedded_bytes(value, where, "image")
    if content:
        return hashlib.sha256(content).hexdigest()
    if not isinstance(value, str) or not value:
        remedy = "give the picture's path"
        raise InvalidData(where, "image", f"{short(value)} is neither a path nor stored bytes", remedy)
    fields.require_unicode(value, where, "image")
    return PurePosixPath(value.replace("\\", "/")).as_posix()  # ./a.png is a.png


def _bucket(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % 100
