"""Generated word problems: the solution's arithmetic is right and follows from the story, splits share no question."""

import re

import pytest

from data.common.errors import InvalidOption
from data.word_problems import SHARES, WordProblems, split_of
from tasks.gsm8k import GSM8K

ROWS = {"train": 400, "validation": 120, "test": 120}


def steps_of(row):
    matches = [re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+) \w+", line) for line in row["solution"].splitlines()]
    assert all(matches)
    return [match.groups() for match in matches if match]


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_solutions_are_right_and_go_from_step_to_step(steps):
    seen = set()
    for row in WordProblems(rows=ROWS, steps=steps).rows("train"):
        lines = steps_of(row)
        assert len(lines) == row["level"] + 1 <= steps
        seen.add(len(lines))
        told = re.findall(r"\d+", row["question"])
        before = None
        for left, operation, right, result in lines:
            assert {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}[operation](
                int(left), int(right)
            ) == int(result)
            assert operation != "/" or int(left) % int(right) == 0
            assert left == before or (before is None and told.pop(0) == left)
            assert told.pop(0) == right
            assert 0 <= int(result) <= 999
            before = result
        assert not told  # every number of the story is used
        assert row["answer"] == before
    assert seen == set(range(1, steps + 1))


def test_splits_share_no_question_whatever_the_seed():
    questions = {
        (split, seed): {row["question"] for row in WordProblems(rows=ROWS, steps=2, seed=seed).rows(split)}
        for split in SHARES
        for seed in (0, 1)
    }
    for (split, _), asked in questions.items():
        assert {split_of(question) for question in asked} == {split}
    assert questions["train", 0] != questions["train", 1]


def test_taught_answers_are_right_with_and_without_reasoning():
    for reasoning in (False, True):
        task = GSM8K(WordProblems(rows=ROWS), reasoning=reasoning)
        for row in task.rows("test"):
            assert task.record(task.answer(row), row)["scores"]["exact"] == 1


def test_options_that_leave_nothing_are_refused():
    with pytest.raises(InvalidOption, match="steps must be 1 to 6, got 7"):
        WordProblems(rows=ROWS, steps=7)
    with pytest.raises(InvalidOption, match="largest must be at least 20, got 5"):
        WordProblems(rows=ROWS, largest=5)
    with pytest.raises(InvalidOption, match="have the splits"):
        WordProblems(rows={"train": 1, "dev": 1}).rows("dev")
