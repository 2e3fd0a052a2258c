"""The best of each split and task, from the records of a history."""

from typing import Any

from ntil.train.validation import best_values, headline_names
from tasks.base import Task


class Up(Task):
    metric = "exact"

    def prompt(self, row):
        return ""

    def answer(self, row):
        return ""

    def parse(self, text, row):
        return text

    def score(self, prediction, row):
        return {}


class Down(Up):
    metric, greater_is_better = "error", False


def test_headlines_of_splits_and_tasks():
    assert headline_names(Up(), ["validation"]) == {"exact": True}
    assert headline_names(Up(), ["validation", "testA"]) == {"exact": True, "testA/exact": True}
    mixture = Up()
    mixture.metric, mixture.members = "mean", {"a": Up(), "b": Down()}
    assert headline_names(mixture, ["validation"]) == {"mean": True, "a/exact": True, "b/error": False}
    assert "testA/b/error" in headline_names(mixture, ["validation", "testA"])


def test_the_best_is_the_first_of_the_best_steps():
    history: list[dict[str, Any]] = [
        {"step": 1, "began": True},
        {"step": 2, "eval_exact": 0.5, "eval_b/error": 3.0},
        {"step": 4, "eval_exact": 0.7, "eval_b/error": 2.0},
        {"step": 6, "eval_exact": 0.7, "eval_b/error": 2.5},
    ]
    assert best_values(history, {"exact": True, "b/error": False, "c/exact": True}) == {
        "exact": {"value": 0.7, "step": 4},
        "b/error": {"value": 2.0, "step": 4},
    }
