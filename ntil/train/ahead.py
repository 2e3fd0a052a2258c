"""The next batch is taken over from its data worker while the step computes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

END = object()


class Ahead(Iterator[Any]):
    """The items of `batches` in their order, each asked for in a thread when the one before it is handed out.

    A batch that a worker process has ready still costs milliseconds to take over: file handles are passed and both
    sides wait for each other's interpreter. With pinned memory torch has a thread for that, on a CPU it has none.

    What `batches` raises is raised in its place. The first item is taken in the calling thread, so that the workers
    are its children. An iterator that is left unfinished has asked for one item more than it gave.
    """

    def __init__(self, batches: Iterator[Any]) -> None:
        self.batches = batches
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ahead")
        self._next: Future[Any] = Future()
        self._next.set_result(next(batches, END))

    def __next__(self) -> Any:
        batch = self._next.result()
        if batch is END:
            self._thread.shutdown()
            raise StopIteration
        self._next = self._thread.submit(next, self.batches, END)
        return batch
