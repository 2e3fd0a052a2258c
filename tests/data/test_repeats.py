"""Repeated and weighted rows of training splits."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.common.errors import InvalidData, InvalidOption
from data.common.repeats import repeated
from data.jsonl import Jsonl


def source(folder, weights, **options):
    rows = ({"prompt": f"{n}?", "answer": n, "weight": w} for n, w in enumerate(weights))
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        rows = ({"prompt": f"v{n}?", "answer": n, "weight": 5} for n in range(3))
    return Jsonl("numeric", str(folder / "train.jsonl"), str(folder / "validation.jsonl"), **options)


def answers(rows):
    return [int(answer) for answer in rows["answer"]]


def test_a_column_of_weights_counts_only_where_it_is_named(tmp_path):
    plain = source(tmp_path, [2, 0, 1]).rows("train")
    assert answers(plain) == [0, 1, 2]
    assert "weight" not in plain.column_names
    weighted = source(tmp_path, [2, 0, 1], columns={"weight": "weight"})
    assert answers(weighted.rows("train")) == [0, 0, 2]
    assert answers(weighted.rows("validation")) == [0, 1, 2]
    assert "weight" not in weighted.rows("train").column_names + weighted.rows("validation").column_names


def test_repeat_multiplies_weights_and_leaves_other_splits(tmp_path):
    assert answers(source(tmp_path, [1, 1], repeat=3).rows("train")) == [0, 1, 0, 1, 0, 1]
    assert answers(source(tmp_path, [0.5, 1], repeat=3, columns={"weight": "weight"}).rows("train")) == [0, 1, 1, 1]
    assert answers(source(tmp_path, [1, 1], repeat=3).rows("validation")) == [0, 1, 2]


def test_what_cannot_be_counted_is_refused(tmp_path):
    with pytest.raises(InvalidData, match=r"line 2, field weight: -1\.0 is below 0"):
        source(tmp_path, [1, -1], columns={"weight": "weight"}).rows("train")
    with pytest.raises(InvalidData, match="is no number"):
        source(tmp_path, [1, None], columns={"weight": "weight"}).rows("train")
    for weights in ([1e308, 1e308, 1], [1e308], [2.0**31, 2.0**31]):
        with pytest.raises(InvalidOption, match=r"the weights add up to .* rows, more than 2,147,483,648; divide them"):
            source(tmp_path, weights, columns={"weight": "weight"}).rows("train")
    with pytest.raises(InvalidOption, match="less than one row"):
        source(tmp_path, [0.2, 0.3], columns={"weight": "weight"}).rows("train")
    with pytest.raises(InvalidOption, match=r"task\.source\.repeat must lie in"):
        source(tmp_path, [1], repeat=0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 4), min_size=1, max_size=30))
def test_every_stretch_of_rows_has_its_weights_within_one(weights):
    from datasets import Dataset

    rows = Dataset.from_dict({"n": list(range(len(weights))), "weight": weights})
    if int(sum(weights) + 1e-9) < 1:
        with pytest.raises(InvalidOption):
            repeated(rows, None)
        return
    chosen = repeated(rows, None)["n"]
    assert list(chosen) == sorted(chosen)
    for start in range(0, len(weights), 5):
        for end in range(start + 1, len(weights) + 1, 5):
            count = sum(start <= n < end for n in chosen)
            assert abs(count - sum(weights[start:end])) <= 1 + 1e-6
