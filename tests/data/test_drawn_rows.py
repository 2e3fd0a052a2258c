"""Rows that are drawn by several processes are those that one draws."""

import pytest
from datasets import Features, Value

from data.common import cache
from data.common.cache import cached_dataset, drawn_rows

FEATURES = Features({"square": Value("int64")})


def square(row):
    return {"square": row["index"] ** 2}


def test_a_damaged_entry_is_made_anew(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    build = lambda: drawn_rows(square, 9, FEATURES, "squares")  # noqa: E731
    kept = cached_dataset("squares", {}, [], build)["square"][:]
    (file,) = tmp_path.glob("datasets/squares-*/*.arrow")
    for content in (file.read_bytes()[:100], b""):
        file.write_bytes(content)
        assert cached_dataset("squares", {}, [], build)["square"][:] == kept
        assert "damaged, made anew" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("at_least", [1, 4, 100])
def test_rows_are_the_same_and_in_order(monkeypatch, at_least):
    monkeypatch.setattr(cache, "ROWS_A_PROCESS", at_least)
    rows = drawn_rows(square, 9, FEATURES, "squares")
    assert rows.column_names == ["square"]
    assert rows["square"][:] == [index**2 for index in range(9)]
