"""Evaluation by a server: a comparison with this process's answers first, then the records of all rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from datasets import Dataset
from tqdm.auto import tqdm

from data.common.rows import Row, spread
from ntil.collator import Collator
from ntil.config.schema import EvaluationConfig
from ntil.evaluation.decoding import Decoder, records_of
from ntil.evaluation.generate import generate
from ntil.evaluation.parity import Parity
from ntil.evaluation.server import Server

AHEAD = 8  # rows of a batch for every request at once, so that the slowest of them holds up few


def compare(model: Any, collator: Collator, server: Server, rows: Dataset, batch_size: int) -> Parity:
    """Compare the server's greedy answers to rows, evenly spread, with the model's.

    Args:
        model: in this process. batch_size: rows that generate at once.
    """
    indices = spread(len(rows), server.config.parity_rows)
    ids: list[str] = []
    ours: list[str] = []
    theirs: list[str] = []
    for start in range(0, len(indices), batch_size):
        batch = [rows[i] for i in indices[start : start + batch_size]]
        ids += [str(row["id"]) for row in batch]
        ours += generate(model, collator, batch, None, server.generation)
        theirs += server.answers(batch)
    return Parity.of(ids, ours, theirs)


def predict_by_server(
    server: Server,
    evaluation: EvaluationConfig,
    rows: Dataset,
    title: str | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, Row]]:
    """Yield the rows' records, each with its row's index; `check` is called before every batch and may raise.

    Raises:
        ConfigError: see `Server.answers`.
    """
    size = AHEAD * server.config.parallel
    decoder = Decoder.of(evaluation, size)
    with tqdm(total=len(rows), desc=title, unit="row", disable=title is None) as bar:
        for start in range(0, len(rows), size):
            check()
            batch = [rows[i] for i in range(start, min(start + size, len(rows)))]
            draw = partial(server.answers, batch)
            records = records_of(None, server.collator, batch, server.answers(batch), draw, decoder)
            yield from enumerate(records, start)
            bar.update(len(batch))
