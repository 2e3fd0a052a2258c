"""Phases of a run (loading, validation, saving, evaluation), and who is told when each begins and ends.

Without a listener a phase is the function alone. `ntil rehearse` listens, to measure the run as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeVar

from transformers import TrainerCallback

P = ParamSpec("P")
Result = TypeVar("Result")


class Listener(Protocol):
    """What is told of phases; its callbacks are added to the trainer of the run, after all others."""

    @property
    def callbacks(self) -> Sequence[TrainerCallback]:
        """Callbacks for the trainer."""

    def phase(self, name: str) -> AbstractContextManager[None]:
        """Context of one phase."""

    def result(self, name: str, value: Any) -> Any:
        """What the run goes on with, where the phase gave `value`."""


_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Tell `listener` of all phases of this process from now on."""
    _listeners.append(listener)


def listening_callbacks() -> list[TrainerCallback]:
    """Callbacks of all listeners."""
    return [callback for listener in _listeners for callback in listener.callbacks]


def phase(name: str) -> Callable[[Callable[P, Result]], Callable[P, Result]]:
    """Decorator: a call of the function is the phase `name`."""

    def decorator(function: Callable[P, Result]) -> Callable[P, Result]:
        @wraps(function)
        def within(*args: P.args, **kwargs: P.kwargs) -> Result:
            with ExitStack() as stack:
                for listener in _listeners:
                    stack.enter_context(listener.phase(name))
                result = function(*args, **kwargs)
            for listener in _listeners:
                result = listener.result(name, result)
            return result

        return within

    return decorator
