"""Metrics of the decodings that a file of predictions holds beside the generated answers.

* `decoding/<name>/...`: every metric of the task, for that decoding's answers.
* `decoding/sampled/...`: over all samples of all rows: what one sample is expected to score.
* `decoding/covered`: share of a number's distribution that was followed, the least of each row, mean over rows.
* `decoding/assumed`: share of it in numbers taken to end (`ntil.evaluation.number_trees`), the largest of each row.
* `decoding/as_generated`: share of the rows that no decoding of distributions could change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from data.common.rows import Row
from ntil.runs.folder import read_jsonl
from ntil.runs.metric_names import PREFIX, decoding_and_metric

Summarize = Callable[[Iterator[Row]], dict[str, float]]


def decoding_metrics(file: Path, summarize: Summarize) -> dict[str, float]:
    """Metrics of every decoding in the file; empty without any. It is read once for each, in constant memory."""
    first = next(iter(read_jsonl(file)), {})
    metrics: dict[str, float] = {}
    for name in first.get("decodings", {}):
        metrics |= _named(name, summarize(_of_decoding(file, name)))
    if "sampled" in first:
        metrics |= _named("sampled", summarize(_of_samples(file)))
    return metrics | (_coverage(file) if "decoded" in first else {})


def by_decoding(metrics: dict[str, float]) -> dict[str, dict[str, float]]:
    """The metrics of every decoding by its name, as the generated answers' are named; empty without any."""
    decodings: dict[str, dict[str, float]] = {}
    for key, value in metrics.items():
        name, metric = decoding_and_metric(key)
        if name:
            decodings.setdefault(name, {})[metric] = value
    return decodings


def _named(name: str, metrics: dict[str, float]) -> dict[str, float]:
    return {f"{PREFIX}{name}/{key}": v for key, v in metrics.items() if key.rpartition("/")[2] != "examples"}


def _of_decoding(file: Path, name: str) -> Iterator[Row]:
    for record in read_jsonl(file):
        yield {**record, **record["decodings"][name]}


def _of_samples(file: Path) -> Iterator[Row]:
    for record in read_jsonl(file):
        for one in record["sampled"]:
            yield {**record, **one}


def _coverage(file: Path) -> dict[str, float]:
    rows, as_generated, covered, assumed = 0, 0, 0.0, 0.0
    for record in read_jsonl(file):
        rows += 1
        as_generated += record["decoded"]["as_generated"]
        covered += record["decoded"]["covered"]
        assumed += record["decoded"]["assumed"]
    shares = {f"{PREFIX}as_generated": as_generated / rows}
    decoded = rows - as_generated
    if not decoded:
        return shares
    return {**shares, f"{PREFIX}covered": covered / decoded, f"{PREFIX}assumed": assumed / decoded}
