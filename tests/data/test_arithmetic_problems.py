"""Generated arithmetic: right answers, splits that share no problem, and rows that depend on nothing else."""

import re
from decimal import Decimal
from fractions import Fraction

import pytest

from data.arithmetic import OPERATIONS, SPLITS, Problem, Shape, canonical, load, problems, split_of, whole_digits

SHAPE = Shape(operations=OPERATIONS, digits=2, extrapolation_digits=4, decimals=1, wordings=(0, 1, 2))


def problem(row):
    return Problem(Decimal(row["left"]), row["operation"], Decimal(row["right"]))


def test_answers_agree_with_exact_fractions():
    for split in SPLITS:
        for row in problems(split, 400, SHAPE):
            left, right, answer = (Fraction(row[name]) for name in ("left", "right", "answer"))
            if row["operation"] == "/":
                scaled = left / right * 10 ** row["places"]
                nearest = int(abs(scaled) + Fraction(1, 2)) * (1 if scaled >= 0 else -1)
                assert answer == Fraction(nearest, 10 ** row["places"]), row
            else:
                exact = {"+": left + right, "-": left - right, "*": left * right}[row["operation"]]
                assert answer == exact, row
            assert re.fullmatch(r"0|-?(0\.[0-9]*[1-9]|[1-9][0-9]*(\.[0-9]*[1-9])?)", row["answer"]), row


def test_no_evaluation_problem_is_ever_trained_on():
    # A space so small that train sees nearly all of its share: 4,000 rows of a few hundred problems, and of two seeds.
    small = Shape(operations=("+", "*"), digits=1, extrapolation_digits=2, decimals=0, negatives=False)
    trained = {canonical(problem(row)) for seed in (0, 1) for row in problems("train", 2000, small, seed)}
    held_out = {
        split: [canonical(problem(row)) for row in problems(split, 6, small)] for split in ("validation", "test")
    }
    beyond = [canonical(problem(row)) for row in problems("extrapolation", 200, small)]
    assert len(trained) > 60
    for split, found in {**held_out, "extrapolation": beyond}.items():
        assert len(set(found)) == len(found), f"{split} repeats a problem"
        assert not trained & set(found), split
    assert not set(held_out["validation"]) & set(held_out["test"])


def test_large_splits_share_nothing_either():
    seen = {split: {canonical(problem(row)) for row in problems(split, 3000, SHAPE)} for split in SPLITS}
    for one in SPLITS:
        for other in SPLITS:
            assert one == other or not seen[one] & seen[other], (one, other)


def test_order_and_trailing_zeros_make_no_new_problem():
    two, three = Decimal("2.50"), Decimal(3)
    assert canonical(Problem(two, "+", three)) == canonical(Problem(three, "+", Decimal("2.5")))
    assert split_of(canonical(Problem(three, "*", two))) == split_of(canonical(Problem(two, "*", three)))
    assert canonical(Problem(two, "-", three)) != canonical(Problem(three, "-", two))


def test_extrapolation_is_longer_than_anything_trained():
    def longest(row):
        return max(whole_digits(Decimal(row["left"])), whole_digits(Decimal(row["right"])))

    assert {longest(row) for row in problems("train", 300, SHAPE)} == {1, 2}
    assert {longest(row) for row in problems("extrapolation", 300, SHAPE)} == {3, 4}


def test_row_i_does_not_depend_on_how_many_there_are(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path))
    for split in SPLITS:
        assert list(load(split, rows=20, shape=SHAPE)) == problems(split, 50, SHAPE)[:20]
    assert problems("train", 5, SHAPE, seed=1) != problems("train", 5, SHAPE, seed=0)


def test_impossible_requests_name_the_key():
    with pytest.raises(ValueError, match=r"no new problem for row .* of test .*turn task\.source\.digits"):
        problems("test", 60, Shape(operations=("+",), digits=1, decimals=0, negatives=False))
    with pytest.raises(ValueError, match=r"task\.source\.operations"):
        load("train", rows=1, shape=Shape(operations=("%",)))
    with pytest.raises(ValueError, match=r"task\.source\.extrapolation_digits"):
        load("train", rows=1, shape=Shape(digits=5, extrapolation_digits=5))
    with pytest.raises(ValueError, match="splits train"):
        load("training", rows=1, shape=SHAPE)
