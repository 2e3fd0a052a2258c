"""Values of a parametrized test of which the fast suite takes some: the others are slow."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def slow_but(quick: Collection[Any], values: Iterable[Any]) -> list[Any]:
    """The values as parameters, those that aren't among the quick ones marked `slow`.

    Raises:
        ValueError: one of the quick ones isn't among the values, so that a renamed case isn't lost unseen.
    """
    values = list(values)
    if missing := [value for value in quick if value not in values]:
        raise ValueError(f"no such cases: {missing}")
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
