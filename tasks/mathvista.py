"""Visual mathematics scored as MathVista scores it (Lu et al., ICLR 2024, arXiv 2310.02255), released or rendered.

Protocol: the official prompts (zero-shot, hint first, as query.json has them), the answer extracted from the response,
normalised and compared as `evaluation/calculate_score.py` does. One difference, because it needs a paid service: the
extraction is done by rules (`tasks.answers.mathvista_extraction`), not by GPT-4; `extractor` replaces them. A response
that is an answer as it stands (the strict reading) needs none, as in the official `extract_answer.py`. A response in
which they find nothing is wrong here, while officially even a refusal means the nearest choice.

Metrics, over all problems and per official key (`task/...`, `context/...`, `skills/...`, `question_type/...`,
`answer_type/...`, `language/...`, `source/...`, `category/...`, `grade/...`; a problem counts for each of its skills):

* `official_accuracy`, the headline: right by the protocol above (the same figure as `lenient_accuracy`).
* `official_accuracy_nearest`: the same, but a multiple-choice response without an answer means the choice nearest to
  its last sentence, as the official scoring has it: the figure to hold against leaderboards, luck included.
* `accuracy`: right by the strict reading, in which the whole response is the answer: an option letter, in brackets or
  not, or a choice word for word; a whole number; a plain decimal number; a list in square brackets.
* `relative_error`: of integer and float answers |x - y| / |y|, at most 1; of others 0 where right and 1 where not.
* `parse_failure_rate`: responses that the strict reading can't take; they count as wrong.

Splits of the official source: `test` (and `testmini`) is MathVista; `train` and `validation` come from another source,
`data.mathvista.visual_math`, because MathVista's licence prohibits training on it. The rendered source has all three.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from PIL import Image, ImageDraw, ImageFont

from data.common.source import Source
from tasks.answers.mathvista_extraction import Extractor, RuleExtractor, last_sentence
from tasks.answers.numbers import read_strict
from tasks.base import ParseFailure, Row, Scores, Task
from tasks.drawing import RIGHT, WRONG, captioned, wrapped
from tasks.metrics.mathvista import normalize, verdict

KEYS = ("question_type", "answer_type", "language", "source", "category", "task", "context", "grade")
PLACES = {
    1: "a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4,",
    2: "a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45,",
}
NEAREST = "official_accuracy_nearest"
_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])")
_LIST = re.compile(r"\[[^\[\]]*\]")


class MathVista(Task):
    """Task of visual mathematics by MathVista's protocol.

    Args:
        source: rows with the columns of `data.mathvista.schema`.
        hint: put the official hint before the question.
        extractor: a reader of free responses in place of the rules, called for every response.
        max_new_tokens: what generation may write at most.
    """

    metric = "official_accuracy"
    # 2: extraction reads quantities whole, and statements as yes or no
    # 3: it reads a letter that ends a sentence (`So it is B.`), and none that is denied (`not A, but B`)
    # 4: it reads Arabic digits
    protocol = 4
    survives = frozenset({"scale"})  # questions on charts name dark and light colours
    columns = ("question", "prompt", "choices", "answer", "target", "question_type", "answer_type")

    def __init__(
        self, source: Source, hint: bool = True, extractor: Extractor | None = None, max_new_tokens: int = 32
    ) -> None:
        self.source, self.hint, self.max_new_tokens = source, hint, max_new_tokens
        self.extractor = extractor or RuleExtractor()

    def prompt(self, row: Row) -> str:
        return row["prompt"] or query(row, self.hint)

    def answer(self, row: Row) -> str:
        if row["target"] is not None:
            return str(row["target"])
        if row["question_type"] == "multi_choice":
            return chr(ord("A") + row["choices"].index(row["answer"]))
        return str(row["answer"])

    def parse(self, text: str, row: Row) -> str | ParseFailure:
        return strict(text.strip(), row)

    def search(self, text: str, row: Row) -> str | ParseFailure:
        extracted = self.extractor(text, row)
        return ParseFailure("no answer found") if extracted is None else extracted

    def groups_thousands(self, row: Row) -> bool:
        return row["answer_type"] in ("integer", "float")

    def score(self, prediction: str | ParseFailure, row: Row) -> Scores:
        if isinstance(prediction, ParseFailure):
            return {"accuracy": 0.0, "relative_error": 1.0}
        right = verdict(prediction, row)
        error = _relative_error(prediction, row) if row["answer_type"] in ("integer", "float") else 1.0 - right
        return {"accuracy": float(right), "relative_error": error}

    def record(self, text: str, row: Row) -> Row:
        record = super().record(text, row)
        read = self.parse_lenient(text, row)
        if isinstance(read, ParseFailure) and row["question_type"] == "multi_choice":
            return {**record, "nearest": float(verdict(last_sentence(text), row))}
        return {**record, "nearest": record["lenient"]["accuracy"]}

    def sum_scores(self, records: Iterable[Row]) -> dict[str, float]:
        nearest: dict[str, float] = {}

        def noted() -> Iterator[Row]:
            for record in records:
                if "nearest" in record:  # not in the predictions of protocol 1
                    for group in ("", *(f"{name}/" for name in record.get("groups", ()))):
                        nearest[f"{group}{NEAREST}"] = nearest.get(f"{group}{NEAREST}", 0.0) + record["nearest"]
                yield record

        return {**super().sum_scores(noted()), **nearest}

    def groups(self, row: Row) -> list[str]:
        names = [f"{key}/{row[key]}" for key in KEYS if row[key]]
        return names + [f"skills/{skill}" for skill in row["skills"]]

    def metrics_from_sums(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = super().metrics_from_sums(sums)
        for key in [k for k in metrics if k.rpartition("/")[2] == "lenient_accuracy"]:
            metrics[key.removesuffix("lenient_accuracy") + "official_accuracy"] = metrics[key]
        return metrics

    def draw(self, row: Row, prediction: str | ParseFailure) -> Image.Image:
        """The picture over its question, the answer and what was read."""
        picture = captioned(row["image"], "", "", True, side=240).crop((0, 0, 240, 240))
        canvas = Image.new("RGB", (240, 240 + 15 * 11), "white")
        canvas.paste(picture)
        pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
        lines = wrapped(query(row, hint=False), font, canvas.width - 8)[:9]
        pen.multiline_text((4, 240), "\n".join(lines), fill="black", font=font, spacing=1)
        right = self.score(prediction, row)["accuracy"] == 1
        read = prediction.reason if isinstance(prediction, ParseFailure) else prediction
        caption = f"true {self.answer(row)}   read {read}"[:40]
        pen.text((4, canvas.height - 18), caption, fill=RIGHT if right else WRONG, font=font)
        return canvas


def query(row: Row, hint: bool = True) -> str:
    """The official zero-shot prompt of a problem: hint, question with its unit, choices.

    MathVista's own answers have one or two decimals; for more the hint is ours, in the same words.
    """
    unit = f" (Unit: {row['unit']})" if row["unit"] else ""
    lines = [f"Question: {row['question']}{unit}" if hint else f"{row['question']}{unit}"]
    if row["choices"]:
        lines += ["Choices:", *(f"({chr(ord('A') + i)}) {choice}" for i, choice in enumerate(row["choices"]))]
    lines = [f"Hint: Please answer the question {_asked(row)} at the end.", *lines] if hint else lines
    return "\n".join(lines).strip()


def _asked(row: Row) -> str:
    if row["question_type"] == "multi_choice":
        return "and provide the correct option letter, e.g., A, B, C, D,"
    if row["answer_type"] == "integer":
        return "requiring an integer answer and provide the final value, e.g., 1, 2, 3,"
    if row["answer_type"] == "list":
        lists = "[1, 2, 3], [1.2, 1.3, 1.4],"
        return f"requiring a Python list as an answer and provide the final list, e.g., {lists}"
    if row["answer_type"] == "float":
        return f"requiring {PLACES.get(row['precision']) or _places(row['precision'])}"
    return "and provide the final answer"


def _places(count: int) -> str:
    """A hint in the official words for more decimals than MathVista's answers have, as training rows may."""
    examples = ", ".join(f"{digits:.{count}f}" for digits in (1.23456789, 1.34567891, 1.45678912))
    return f"a floating-point number with {count} decimal places and provide the final value, e.g., {examples},"


def strict(text: str, row: Row) -> str | ParseFailure:
    """The answer, where the text is one and nothing else."""
    if row["question_type"] == "multi_choice":
        letters = [chr(ord("A") + index) for index in range(len(row["choices"]))]
        match = _LETTER.fullmatch(text)
        letter = (match[1] or match[2]) if match else None
        if letter in letters:
            return str(letter)
        if text in row["choices"]:
            return letters[row["choices"].index(text)]
        return ParseFailure("neither an option letter nor a choice")
    if row["answer_type"] in ("integer", "float"):
        number = read_strict(text)
        if isinstance(number, ParseFailure):
            return number
        return ParseFailure("no whole number") if row["answer_type"] == "integer" and "." in text else text
    if row["answer_type"] == "list":
        return text if _LIST.fullmatch(text) else ParseFailure("no list in square brackets")
    return text or ParseFailure("empty")


def _relative_error(prediction: str, row: Row) -> float:
    read = normalize(prediction, row["choices"], row["question_type"], row["answer_type"], row["precision"])
    try:
        x, y = float(read or ""), float(row["answer"])
    except (ValueError, OverflowError):
        return 1.0
    if not abs(x) < float("inf"):
        return 1.0
    return min(abs(x - y) / abs(y), 1.0) if y else float(x != y)
