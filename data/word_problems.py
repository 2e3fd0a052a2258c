"""Generated grade-school word problems like GSM8K's: a story of a few steps, its worked solution, one whole number.

    Mia has 4 boxes with 12 shells each. Mia gives 9 shells to Omar. How many shells does Mia have now?
    4 * 12 = 48 shells
    48 - 9 = 39 shells
    #### 39

Row i of a split is the same on every machine. A hash of the question determines its split (of every 100 hash values 80
are train's, 10 validation's, 10 test's), whatever the seed, so no question of validation or test is ever in train.

Columns: those of `data.gsm8k`; level: how many steps the solution has, minus one.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from data.common.cache import cached_dataset
from data.common.errors import InvalidOption
from data.common.source import STREAMS, RenderedSource
from data.gsm8k import FEATURES

PEOPLE = ("Anna", "Ben", "Chen", "Dara", "Emil", "Fatima", "Goran", "Hana", "Ivo", "Jun", "Kofi", "Lena", "Mia", "Omar")
GOODS = ("apples", "books", "coins", "cards", "eggs", "marbles", "pencils", "shells", "stamps", "stones", "tickets")
BOXES = ("bags", "baskets", "boxes", "crates", "jars")
SHARES = {"train": range(80), "validation": range(80, 90), "test": range(90, 100)}
MOST_STEPS = 6
TRIES = 1000


class Step(NamedTuple):
    """What happens in a story, and how many things there are after it."""

    text: str
    equation: str
    value: int


class WordProblems(RenderedSource):
    """Source of generated word problems.

    Args:
        rows: split -> how many.
        steps: the most steps of a problem, 1 to 6; as many have one as have that many.
        largest: no number of a story or its solution is larger.
        seed: of the draws; which split a problem belongs to doesn't depend on it.
    """

    def __init__(self, rows: dict[str, int], steps: int = 3, largest: int = 999, seed: int = 0) -> None:
        super().__init__(rows)
        if not 1 <= steps <= MOST_STEPS:
            raise InvalidOption(f"task.source.steps must be 1 to {MOST_STEPS}, got {steps}")
        if largest < 20:
            raise InvalidOption(f"task.source.largest must be at least 20, got {largest}")
        self.steps, self.largest, self.seed = steps, largest, seed

    def rows(self, split: str) -> Dataset:
        count = self.count(split)
        if split not in STREAMS:
            raise InvalidOption(f"word problems have the splits {', '.join(STREAMS)}, not {split!r}")
        key = {"split": split, "rows": count, "steps": self.steps, "largest": self.largest, "seed": self.seed}

        def build() -> Dataset:
            return Dataset.from_list([self._row(split, index) for index in range(count)], features=FEATURES)

        return cached_dataset(f"word-problems-{split}", key, [Path(__file__)], build)

    def _row(self, split: str, index: int) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, STREAMS[split], index])
        for _ in range(TRIES):  # one in ten is validation's
            row = problem(rng, int(rng.integers(1, self.steps + 1)), self.largest)
            if split_of(row["question"]) == split:
                return {"id": f"{split}-{self.seed}-{index}", **row}
        raise InvalidOption(f"no problem for row {index} of {split} in {TRIES} draws; turn task.source.largest up")


def split_of(question: str) -> str:
    """The split that a question belongs to."""
    bucket = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4], "big") % 100
    return next(split for split, share in SHARES.items() if bucket in share)


def problem(rng: np.random.Generator, count: int, largest: int) -> dict[str, Any]:
    """A problem of `count` steps: question, solution, answer, level."""
    person, other = rng.choice(PEOPLE, 2, replace=False)
    goods = str(rng.choice(GOODS))
    shared = count > 1 and rng.random() < 0.25
    opening, steps = _opening(rng, person, goods, largest)
    while len(steps) < count - shared:
        value = steps[-1].value if steps else opening
        steps.append(_change(rng, person, other, goods, value, largest))
    sentences = [step.text for step in steps]
    if not steps or not steps[0].text.startswith(f"{person} has"):
        sentences.insert(0, f"{person} has {opening} {goods}.")
    value = steps[-1].value
    asked = f"How many {goods} does {person} have now?"
    if shared and (parts := [k for k in range(2, 11) if value % k == 0 and value >= k]):
        k, box = int(rng.choice(parts)), str(rng.choice(BOXES))
        steps.append(Step("", f"{value} / {k} = {value // k}", value // k))
        sentences.append(f"{person} puts them into {k} {box}, as many into each.")
        asked = f"How many {goods} are in each?"
    elif len(steps) < count:
        steps.append(_change(rng, person, other, goods, value, largest))
        sentences.append(steps[-1].text)
    return {
        "question": " ".join([*sentences, asked]),
        "solution": "\n".join(f"{step.equation} {goods}" for step in steps),
        "answer": str(steps[-1].value),
        "level": len(steps) - 1,
    }


def _opening(rng: np.random.Generator, person: str, goods: str, largest: int) -> tuple[int, list[Step]]:
    """How many there are at first; and the step that says so, where it is a product."""
    if rng.random() < 0.4:
        boxes = int(rng.integers(2, 13))
        each = int(rng.integers(2, max(3, min(50, largest // boxes))))
        text = f"{person} has {boxes} {rng.choice(BOXES)} with {each} {goods} each."
        return boxes * each, [Step(text, f"{boxes} * {each} = {boxes * each}", boxes * each)]
    return int(rng.integers(5, max(6, largest * 2 // 3))), []


def _change(rng: np.random.Generator, person: str, other: str, goods: str, value: int, largest: int) -> Step:
    """More or fewer of them."""
    room = largest - value
    if value < 2 or (room > 1 and rng.random() < 0.5):
        more = int(rng.integers(1, max(2, room)))
        text = str(rng.choice(["buys", "finds", "wins"]))
        return Step(f"{person} {text} {more} more.", f"{value} + {more} = {value + more}", value + more)
    fewer = int(rng.integers(1, value))
    ways = [f"gives {fewer} {goods} to {other}", f"loses {fewer} of them", f"sells {fewer} {goods}"]
    return Step(f"{person} {rng.choice(ways)}.", f"{value} - {fewer} = {value - fewer}", value - fewer)
