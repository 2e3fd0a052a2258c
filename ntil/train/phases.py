"""Phases of a run (loading, validation, saving, evaluation), and who is told when each begins and ends.

Without a listener a phase is the function alone. `ntil rehearse` listens, to measure the run as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from datasets import Dataset
from transformers import TrainerCallback

from tasks.base import Task

P = ParamSpec("P")
Result = TypeVar("Result")


class Listener(Protocol):
    """What is told of phases; its callbacks are added to the trainer of the run, after all others."""

    @property
    def callbacks(self) -> Sequence[TrainerCallback]:
        """Callbacks for the trainer."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Context of one phase."""

    def result(self, name: str, value: Any) -> None:
        """Told what a phase gave, once it has ended."""

    def rows(self, split: str, rows: Dataset) -> Dataset:
        """The rows of a split that the run takes."""


_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Tell `listener` of all phases of this process from now on."""
    _listeners.append(listener)


def listening_callbacks() -> list[TrainerCallback]:
    """Callbacks of all listeners."""
    return [callback for listener in _listeners for callback in listener.callbacks]


def chosen_rows(task: Task, split: str) -> Dataset:
    """The task's rows of a split; those of them that a listener chooses."""
    rows = task.rows(split)
    for listener in _listeners:
        rows = listener.rows(split, rows)
    return rows


def phase(name: str) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Decorator: a call of the function is the phase `name`."""

    def decorator(function: Callable[P, Result]) -> Callable[P, Result]:
        @wraps(function)
        def within(*args: P.args, **kwargs: P.kwargs) -> Result:
            with ExitStack() as stack:
                for listener in _listeners:
                    stack.enter_context(listener.phase(name))
                value = function(*args, **kwargs)
            for listener in _listeners:
                listener.result(name, value)
            return value

        return within

    return decorator
