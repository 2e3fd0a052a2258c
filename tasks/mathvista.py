"""Visual mathematics scored as MathVista scores it (Lu et al., ICLR 2024, arXiv 2310.02255), and a rendered twin.

Protocol: the official prompts (zero-shot, hint first, as query.json has them), the answer extracted from the response,
normalised and compared as `evaluation/calculate_score.py` does. One difference, because it needs a paid service: the
extraction is done by rules (`tasks.mathvista_extraction`), not by GPT-4; `extractor` puts another in their place. A
response in which they find nothing is wrong here, while officially even a refusal means the nearest choice.

Metrics, over all problems and per official key (`task/...`, `context/...`, `skills/...`, `question_type/...`,
`answer_type/...`, `language/...`, `source/...`, `category/...`, `grade/...`; a problem counts for each of its skills):

* `official_accuracy`, the headline: right by the protocol above (the same figure as `lenient_accuracy`).
* `accuracy`: right by the strict reading, in which the whole response is the answer: an option letter, in brackets or
  not, or a choice word for word; a whole number; a plain decimal number; a list in square brackets.
* `relative_error`: of integer and float answers |x - y| / |y|, at most 1; of others 0 where right and 1 where not.
* `parse_failure_rate`: responses that the strict reading can't take; they count as wrong.

Splits of the official source: `test` (and `testmini`) is MathVista; `train` and `validation` come from another source,
`data.visual_math`, because MathVista's licence prohibits training on it. The rendered source has all three.
"""

from __future__ import annotations

import pkgutil
import re
import textwrap
from pathlib import Path
from typing import Literal

from datasets import Dataset
from PIL import Image, ImageDraw, ImageFont

from data import figures_rendered, mathvista, visual_math
from data.broken import OnError, Tolerance
from data.table_files import matching
from tasks.base import ParseFailure, Row, Scores, Task, captioned
from tasks.mathvista_extraction import Extractor, extract
from tasks.mathvista_official import normalize, verdict
from tasks.quantity import read_strict

KEYS = ("question_type", "answer_type", "language", "source", "category", "task", "context", "grade")
PLACES = {
    1: "a floating-point number with one decimal place and provide the final value, e.g., 1.2, 1.3, 1.4,",
    2: "a floating-point number with two decimal places and provide the final value, e.g., 1.23, 1.34, 1.45,",
}
_LETTER = re.compile(r"\(([A-Z])\)|([A-Z])")
_LIST = re.compile(r"\[[^\[\]]*\]")


class MathVista(Task):
    """
    Args:
        source: `official`, or `rendered` for `mathvista_nano`.
        test: testmini.json, or a parquet file or glob.
        train: a JSON, JSONL or parquet file in a layout of `data.visual_math`.
        images, train_images: folders of the pictures, where they aren't beside the files.
        queries: the release's query.json, to read prompts there instead of making them.
        validation: of `train`: how many of 100 pictures are held out.
        hint: put the official hint before the question.
        extractor: "module:name" of another `Extractor`, given by the user and called for every response.
        kinds, rows, size, difficulty, seed: of the renderer, see `data.figures_rendered`.
        on_error: what to do with a broken row.
        max_new_tokens: what generation may write at most.
    """

    metric = "official_accuracy"

    def __init__(
        self,
        source: Literal["official", "rendered"] = "official",
        test: str | None = None,
        train: str | None = None,
        images: str | None = None,
        train_images: str | None = None,
        queries: str | None = None,
        validation: int = 2,
        hint: bool = True,
        extractor: str | None = None,
        kinds: list[str] | None = None,
        rows: dict[str, int] | None = None,
        size: int = 64,
        difficulty: figures_rendered.Difficulty = "plain",
        seed: int = 0,
        on_error: OnError = "raise",
        max_new_tokens: int = 32,
    ) -> None:
        if source not in ("official", "rendered"):
            raise ValueError(f"task.source must be official or rendered, got {source!r}")
        if source == "official" and not test:
            raise ValueError("task.source=official needs task.test=<testmini.json or the parquet file of testmini>")
        if not 0 <= validation < 100:
            raise ValueError(f"task.validation is a percentage of the pictures, 0 to 99, got {validation}")
        self.source, self.test, self.train = source, test, train
        self.images, self.train_images = _path(images), _path(train_images)
        self.queries, self.validation, self.hint = _path(queries), validation, hint
        self.extract: Extractor = pkgutil.resolve_name(extractor) if extractor else extract
        self.kinds, self.counts, self.size, self.difficulty, self.seed = kinds, rows or {}, size, difficulty, seed
        self.tolerance, self.max_new_tokens = Tolerance(on_error), max_new_tokens
        if source == "official" and not train:
            self.split_names = ("test",)

    def rows(self, split: str) -> Dataset:
        assert self.tolerance is not None
        if self.source == "rendered":
            if split not in self.counts:
                raise ValueError(f"task.rows has no count for the split {split!r}; set task.rows.{split}=...")
            return figures_rendered.load(
                split,
                rows=self.counts[split],
                size=self.size,
                difficulty=self.difficulty,
                seed=self.seed,
                kinds=self.kinds,
            )
        if split in ("test", "testmini"):
            return mathvista.load(matching(str(self.test), "task.test"), self.images, self.queries, self.tolerance)
        if split not in ("train", "validation"):
            raise ValueError(f"MathVista has the splits test (testmini), train and validation, not {split!r}")
        if not self.train:
            raise ValueError(
                "MathVista's licence prohibits training on it; set task.train=<a JSON file in the layout of MathV360K, "
                "Geo170K or ChartQA>, or train on task=mathvista_nano"
            )
        part: Literal["train", "validation"] = "train" if split == "train" else "validation"
        return visual_math.load(Path(self.train), part, self.validation, self.train_images, self.tolerance)

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

    def parse_lenient(self, text: str, row: Row) -> str | ParseFailure:
        found = self.extract(text, row)
        return ParseFailure("no answer found") if found is None else found

    def score(self, prediction: str | ParseFailure, row: Row) -> Scores:
        if isinstance(prediction, ParseFailure):
            return {"accuracy": 0.0, "relative_error": 1.0}
        right = verdict(prediction, row)
        error = _relative_error(prediction, row) if row["answer_type"] in ("integer", "float") else 1.0 - right
        return {"accuracy": float(right), "relative_error": error}

    def groups(self, row: Row) -> list[str]:
        named = [f"{key}/{row[key]}" for key in KEYS if row[key]]
        return named + [f"skills/{skill}" for skill in row["skills"]]

    def finish(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = super().finish(sums)
        for key in [k for k in metrics if k.rpartition("/")[2] == "lenient_accuracy"]:
            metrics[key.removesuffix("lenient_accuracy") + "official_accuracy"] = metrics[key]
        return metrics

    def draw(self, row: Row, prediction: str | ParseFailure) -> Image.Image:
        """The picture over its question, the answer and what was read."""
        picture = captioned(row["image"], "", "", True, side=240).crop((0, 0, 240, 240))
        lines = [piece for line in query(row, hint=False).splitlines() for piece in textwrap.wrap(line, 33)][:9]
        canvas = Image.new("RGB", (240, 240 + 15 * 11), "white")
        canvas.paste(picture)
        pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=13)
        pen.multiline_text((4, 240), "\n".join(lines), fill="black", font=font, spacing=1)
        right = self.score(prediction, row)["accuracy"] == 1
        read = prediction.reason if isinstance(prediction, ParseFailure) else prediction
        said = f"true {self.answer(row)}   read {read}"[:40]
        pen.text((4, canvas.height - 18), said, fill=(0, 120, 40) if right else (190, 20, 20), font=font)
        return canvas


def query(row: Row, hint: bool = True) -> str:
    """The official zero-shot prompt of a problem: hint, question with its unit, choices.

    Raises:
        ValueError: a precision for which there is no official hint (1 and 2 decimals have one).
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
        if row["precision"] not in PLACES:
            raise ValueError(f"there is no official hint for {row['precision']} decimals; set task.hint=false")
        return f"requiring {PLACES[row['precision']]}"
    return "and provide the final answer"


def strict(text: str, row: Row) -> str | ParseFailure:
    """The answer, where the text is one and nothing else."""
    if row["question_type"] == "multi_choice":
        letters = [chr(ord("A") + place) for place in range(len(row["choices"]))]
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


def _path(path: str | None) -> Path | None:
    return Path(path) if path else None
