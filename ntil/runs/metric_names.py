"""Names of metrics: `<metric>`, `<group>/<metric>`, and of further decodings `decoding/<name>/<metric>`."""

from __future__ import annotations

PREFIX = "decoding/"


def decoding_and_metric(key: str) -> tuple[str, str]:
    """The decoding's name and the metric, as the generated answers' is named; no name where it is of no decoding."""
    name, slash, metric = key.removeprefix(PREFIX).partition("/")
    return (name, metric) if key.startswith(PREFIX) and slash else ("", key)


def is_lenient(key: str) -> bool:
    """Whether the metric is of the lenient reading of answers, over all rows or over a group of them."""
    return key.rpartition("/")[2].startswith("lenient_")
