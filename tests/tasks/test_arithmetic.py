"""Metrics of numbers against their definitions, readings against any text, and the prompts of arithmetic."""

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from data.arithmetic import ArithmeticProblems
from ntil.config.build import build
from ntil.config.schema import Component
from tasks.answers.number_words import number_words
from tasks.answers.numbers import numbers, read_lenient, read_strict
from tasks.arithmetic import Arithmetic
from tasks.base import ParseFailure
from tasks.numeric import LOG_WORST, number_scores

COUNTS = {"train": 50, "validation": 20, "test": 41}
TASK = Arithmetic(ArithmeticProblems(COUNTS, operations=["+", "-", "*", "/"], wording="both"))
NUMBERS = st.decimals(-(10**12), 10**12, places=3)
TEXTS = st.text() | st.from_regex(r"[-+0-9.,eE$ =]{0,20}") | NUMBERS.map(str)


def row(answer: str) -> dict:
    return {"id": "r", "left": "1", "operation": "+", "right": "1", "wording": 0, "places": 2, "answer": answer} | {
        "range": "interpolation"
    }


@pytest.fixture(autouse=True, scope="module")
def _own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_the_taught_answer_reads_as_right_everywhere():
    for split in ("train", "validation", "test"):
        records = [TASK.record(TASK.answer(r), r) for r in TASK.rows(split)]
        assert all(r["failure"] is None and r["scores"] == r["lenient"] for r in records)
        summary = TASK.summarize(json.loads(json.dumps(records)))
        assert summary["exact"] == 1
        assert summary["mae"] == summary["log_error"] == summary["relative_error"] == 0
        assert summary["pearson"] == pytest.approx(1)
        assert summary["spearman"] == pytest.approx(1)
    assert summary["interpolation/examples"] == 21
    assert summary["extrapolation/examples"] == 20


def test_prompts():
    shown = {**row("-0.5"), "left": "-3", "right": "-2.5", "operation": "-"}
    assert TASK.prompt(shown) == "-3 - (-2.5) ="
    assert TASK.prompt(shown | {"wording": 1}) == "What is -3 minus -2.5?"
    divided = shown | {"operation": "/", "wording": 2}
    assert TASK.prompt(divided) == "Compute -3 divided by -2.5 rounded to 2 decimals, halves away from zero."


@settings(max_examples=500)
@given(TEXTS, NUMBERS)
def test_no_text_crashes_a_reading_or_scores_above_what_it_says(text, truth):
    record = TASK.record(text, row(str(truth)))
    strict, lenient = read_strict(text), read_lenient(text)
    # Said independently of the reader: the stripped text is the truth's value and holds nothing but number characters.
    said = text.strip()
    plain = bool(said) and set(said) <= set("0123456789.-") and said.lstrip("-")[:1].isdigit() and said[-1].isdigit()
    right = plain and not isinstance(strict, ParseFailure) and Decimal(said) == truth
    assert record["scores"]["exact"] == right
    assert record["failure"] is None or record["scores"] == number_scores(ParseFailure(""), truth)
    if isinstance(lenient, ParseFailure):
        assert record["lenient"]["exact"] == 0
        assert record["lenient"]["relative_error"] == 1
    else:
        assert any(c.isnumeric() or c == "π" for c in text) or number_words(text)
    for scores in (record["scores"], record["lenient"]):
        assert scores["exact"] <= 1
        assert 0 <= scores["relative_error"] <= 1
        assert 0 <= scores["log_error"] <= LOG_WORST
        assert 0 <= scores["mae"] <= 10 * max(abs(float(truth)), 1)
        assert scores["exact"] == 0 or scores["mae"] == scores["relative_error"] == scores["log_error"] == 0
    assert json.loads(json.dumps(record)) == record


@given(NUMBERS, NUMBERS)
def test_scores_follow_their_definitions(reading, truth):
    x, y = float(reading), float(truth)
    scores = number_scores(reading, truth)
    assert scores["exact"] == (reading == truth)
    assert scores["mae"] == pytest.approx(min(abs(x - y), 10 * max(abs(y), 1)), abs=1e-3)
    relative = min(abs(x - y) / abs(y), 1) if y else float(x != 0)
    assert scores["relative_error"] == pytest.approx(relative, abs=1e-9)
    logs = [np.sign(v) * np.log10(1 + abs(v)) for v in (x, y)]
    assert scores["log_error"] == pytest.approx(min(abs(logs[0] - logs[1]), 10), abs=1e-12)


def test_strict_and_lenient_readings():
    for text in ("", "+3", "03", "1,000", "1e3", ".5", "3.", "--3", "3 4", "3%", "answer 3", "٣", "Infinity", "9" * 41):
        assert isinstance(read_strict(text), ParseFailure), text
    assert isinstance(read_lenient("10-5"), ParseFailure)  # a range, or a difference: neither of its parts
    for text, value in ((" -3\n", -3), ("4.0", 4), ("0", 0), ("-0", 0)):
        assert read_strict(text) == value
    for text, number in (
        ("12 + 5 = 17.", "17"),
        ("it costs $1,234.50", "1234.50"),
        ("x = -5", "-5"),
        ("= \N{MINUS SIGN}5", "-5"),
        ("1.5e3", "1500"),
        ("3, 4", "4"),
        (".5", "0.5"),
    ):
        assert read_lenient(text) == Decimal(number), text
    assert read_lenient("0E0E0") == 0  # an exponent alone is no number
    for text in ("none", "", "1e999", "9" * 41):
        assert isinstance(read_lenient(text), ParseFailure), text
    assert numbers("1,234,567 1,23 1.2.3") == ["1234567"]  # parts of broken groups are no numbers


@given(st.lists(st.tuples(st.integers(-(10**6), 10**6), st.integers(-50, 50)), min_size=2, max_size=40))
def test_correlations_agree_with_numpy(pairs):
    records = [TASK.record(str(x), row(str(y))) for x, y in pairs]
    found, values = TASK.summarize(records), np.array(pairs, dtype=float).T
    if np.ptp(values[0]) == 0 or np.ptp(values[1]) == 0:
        assert found["pearson"] == found["spearman"] == 0
        return
    assert found["pearson"] == pytest.approx(np.corrcoef(values)[0, 1], abs=1e-9)
    assert found["spearman"] == pytest.approx(np.corrcoef([rankdata(v) for v in values])[0, 1])


def test_large_values_of_a_small_spread_correlate():
    records = [TASK.record(str(10**8 + i), row(str(10**8 + i))) for i in range(60)]
    assert TASK.summarize(records)["pearson"] == pytest.approx(1)


def test_sums_are_plain_numbers_that_a_bootstrap_can_weigh():
    records = [TASK.record(t, row(a)) for t, a in zip(["1", "5", "x"], ["2", "4", "9"], strict=True)]
    sums = TASK.sum_scores(records)
    assert all(type(value) is float for value in sums.values())
    twice = TASK.metrics_from_sums({key: 2 * value for key, value in sums.items()})
    assert {k: v for k, v in TASK.summarize(records * 2).items() if "spearman" not in k} == pytest.approx(twice)


def test_failures_are_read_as_the_mirrored_truth_and_counted():
    answers = ["1", "2", "-3", "10"]
    records = [TASK.record("no idea", row(a)) for a in answers]
    summary = TASK.summarize(records)
    assert summary["parse_failure_rate"] == 1
    assert summary["exact"] == 0
    assert summary["log_error"] == LOG_WORST
    assert summary["mae"] == (10 + 20 + 30 + 100) / 4
    assert summary["pearson"] == pytest.approx(-1)
    assert summary["spearman"] == pytest.approx(-1)
    # One row counts although nothing was read of it: dropping it would give a perfect 1.
    summary = TASK.summarize([*(TASK.record(a, row(a)) for a in answers[:3]), records[3]])
    assert summary["pearson"] < 0
    assert summary["parse_failure_rate"] == 0.25


def test_sums_of_two_ranks_add_to_those_of_all():
    texts = ["1", "2", "x", "-7", "5.5", "1,000"]
    records = [TASK.record(t, row(a)) for t, a in zip(texts, ["1", "3", "4", "-7", "5", "1000"], strict=True)]
    one, two = TASK.sum_scores(records[::2]), TASK.sum_scores(records[1::2])
    joined = {key: one.get(key, 0.0) + two.get(key, 0.0) for key in {**one, **two}}
    whole = TASK.summarize(records)
    assert TASK.metrics_from_sums(joined) == pytest.approx({k: v for k, v in whole.items() if "spearman" not in k})


def test_wrong_arguments_name_the_key():
    source = {"target": "data.arithmetic:ArithmeticProblems", "rows": COUNTS, "wording": "roman"}
    with pytest.raises(ValueError, match=r"task\.source\.wording"):
        build("task", Component("arithmetic", "tasks.arithmetic:Arithmetic", {"source": source}))
    with pytest.raises(ValueError, match=r"set task\.source\.rows\.train"):
        Arithmetic(ArithmeticProblems({})).rows("train")
