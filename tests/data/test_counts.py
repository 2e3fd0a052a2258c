"""Counts are written with the right number of their nouns."""

import pytest

from data.common.counts import counted


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0, "seed"), "0 seeds"),
        ((1, "broken row"), "1 broken row"),
        ((2, "run"), "2 runs"),
        ((1, "box", "boxes"), "1 box"),
        ((3, "entry", "entries"), "3 entries"),
        ((1234, "row", None, ","), "1,234 rows"),
    ],
)
def test_one_is_singular(arguments, text):
    assert counted(*arguments) == text
