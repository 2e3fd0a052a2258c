"""Rows that are drawn by several processes are those that one draws."""

import pytest
from datasets import Features, Value

from data.common import cache
from data.common.cache import drawn_rows

FEATURES = Features({"square": Value("int64")})


def square(row):
    return {"square": row["index"] ** 2}


@pytest.mark.parametrize("at_least", [1, 4, 100])
def test_rows_are_the_same_and_in_order(monkeypatch, at_least):
    monkeypatch.setattr(cache, "ROWS_A_PROCESS", at_least)
    rows = drawn_rows(square, 9, FEATURES, "squares")
    assert rows.column_names == ["square"]
    assert rows["square"][:] == [index**2 for index in range(9)]
