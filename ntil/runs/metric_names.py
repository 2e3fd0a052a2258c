"""Names of metrics in metrics.json: of the generated answers, and `decoding/<name>/<metric>` of further decodings."""

from __future__ import annotations

PREFIX = "decoding/"


def decoding_and_metric(key: str) -> tuple[str, str]:
    """The decoding's name and the metric, as the generated answers' is named; no name where it is of no decoding."""
    name, slash, metric = key.removeprefix(PREFIX).partition("/")
    return (name, metric) if key.startswith(PREFIX) and slash else ("", key)
