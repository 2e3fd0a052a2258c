"""One item ahead, in order, errors in their place."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ntil.train.ahead import Ahead


def test_same_items_then_the_end_for_good() -> None:
    ahead = Ahead(iter(range(5)))
    assert list(ahead) == [0, 1, 2, 3, 4]
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(ahead)
    assert list(Ahead(iter(()))) == []


def test_the_next_item_is_made_while_one_is_used() -> None:
    made: dict[int, threading.Event] = {i: threading.Event() for i in range(4)}
    threads = []

    def items() -> Iterator[int]:
        for i in range(4):
            threads.append(threading.current_thread())
            made[i].set()
            yield i

    ahead = Ahead(items())
    assert not made[1].is_set()
    assert next(ahead) == 0
    assert made[1].wait(10) and not made[2].is_set()
    assert next(ahead) == 1
    assert made[2].wait(10) and not made[3].is_set()
    assert threads[0] is threading.main_thread() and threads[1] is not threading.main_thread()


def test_an_error_comes_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise OSError("the disk is gone")

    ahead = Ahead(items())
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)
