"""The figures of a benchmark against brute force and published values."""

import itertools
import math
from types import SimpleNamespace

import pytest

from experiments.analysis import CellReport, Line
from experiments.benchmark.draws import draws
from experiments.benchmark.protocol import Hypothesis, Range
from experiments.benchmark.report import rankable
from experiments.benchmark.statistics import expected_best, judge, ranks, seeds_for
from experiments.cells import Cell

SEARCH = {"optim.lr": Range(1e-4, 1e-2, True), "loss.lam": Range(0.1, 1.0), "loss.sigma": Range(0.0, 1.0)}


def test_the_expected_best_is_the_mean_over_all_draws():
    scores = [0.3, 0.9, 0.1, 0.5]
    for budget, value in enumerate(expected_best(scores), start=1):
        drawn = [max(chosen) for chosen in itertools.product(scores, repeat=budget)]
        assert value == pytest.approx(sum(drawn) / len(drawn))
    lowest = expected_best(scores, greater_is_better=False)
    assert lowest[0] == pytest.approx(0.45)
    assert lowest[1] == pytest.approx(sum(min(pair) for pair in itertools.product(scores, repeat=2)) / 16)


def test_a_failed_trial_is_as_bad_as_the_worst():
    assert expected_best([0.2, math.nan, 0.8]) == pytest.approx(expected_best([0.2, 0.2, 0.8]))


def test_nemenyis_critical_difference_is_the_published_one():
    # Demšar (2006), section 3.2.2: four algorithms, 14 data sets, q = 2.569.
    cells = [{"a": 1.0 + i, "b": 0.5 + i, "c": 0.2 + i, "d": i} for i in range(14)]
    ranked = ranks(cells, [True] * 14)
    assert ranked is not None
    assert ranked.critical == pytest.approx(2.569 * math.sqrt(4 * 5 / (6 * 14)), abs=1e-3)
    assert ranked.means == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert ranked.p < 1e-6


def test_ranks_follow_each_metrics_direction_and_share_ties():
    ranked = ranks([{"a": 1.0, "b": 1.0, "c": 3.0}, {"a": 3.0, "b": 1.0, "c": 2.0}], [True, False])
    assert ranked is not None
    assert ranked.means == {"a": 2.75, "b": 1.75, "c": 1.5}
    assert ranks([{"a": 1.0, "b": 2.0, "c": 3.0}], [True]) is None


def test_draws_are_the_same_for_every_loss_and_more_go_on():
    lr_only = draws(SEARCH, ["optim.lr"], 6, 0)
    both = draws(SEARCH, ["loss.lam", "optim.lr"], 6, 0)
    assert [d.get("optim.lr") for d in lr_only] == [d.get("optim.lr") for d in both]
    assert both[0] == {}
    assert draws(SEARCH, ["loss.lam", "optim.lr"], 9, 0)[:6] == both
    assert draws(SEARCH, ["optim.lr"], 6, 1) != lr_only
    values = [d["optim.lr"] for d in draws(SEARCH, ["optim.lr"], 400, 0)[1:]]
    assert min(values) >= 1e-4
    assert max(values) <= 1e-2
    assert 0.4 < sum(value < 1e-3 for value in values) / len(values) < 0.6  # half below the middle of the logarithms


def test_more_spread_needs_more_seeds():
    narrow, wide = ([0.1, 0.11, 0.09, 0.1], [0.1, 0.2, 0.0, 0.1])
    assert seeds_for(narrow, 0.03) < seeds_for(wide, 0.03)
    assert seeds_for(wide, 0.03) > seeds_for(wide, 0.3)


def report(verdict, base="ce"):
    line = SimpleNamespace(loss="mine", against={"iou": SimpleNamespace(verdict=verdict)} if verdict else {})
    return SimpleNamespace(lines=[line], headline="iou", base=base)


@pytest.mark.parametrize(
    ("verdicts", "holds"),
    [
        (["better", "better", "not distinguishable"], True),
        (["better", "not distinguishable", "not distinguishable"], False),
        (["better", "better", "worse"], False),
        (["better", "better", None], None),
        (["worse", None, None], False),
    ],
)
def test_a_hypothesis_is_judged_by_the_verdicts(verdicts, holds):
    reports = {"ce": {f"cell {i}": report(verdict) for i, verdict in enumerate(verdicts)}}
    hypothesis = Hypothesis("mine is better", "mine", ["ce"], in_at_least=2, worse_in_at_most=0)
    assert judge(hypothesis, reports, list(reports["ce"]), ()).holds is holds


def test_what_has_still_to_be_run_decides_nothing():
    hypothesis = Hypothesis("mine is better", "mine", ["ce"], in_at_least=1)
    reports = {"ce": {"one": report("better")}}
    assert judge(hypothesis, reports, ["one"], ()).holds is True
    assert judge(hypothesis, reports, ["one", "two"], ()).holds is None
    assert judge(hypothesis, reports, ["one"], {("one", "ce")}).holds is None
    partly = judge(hypothesis, {"ce": {"one": report("worse")}}, ["one"], {("one", "mine")})
    assert (partly.holds, partly.worse) == (None, {"ce": []})


def test_a_cell_without_the_base_decides_nothing():
    hypothesis = Hypothesis("mine is better", "mine", ["ce"])
    judgement = judge(hypothesis, {"ce": {"cell": report("better", base="emd")}}, ["cell"], ())
    assert judgement.undecided == ["cell: mine against ce"]


def of_cell(values: dict[str, list[float]], base: str | None = "ce", refused: str | None = None) -> CellReport:
    lines = tuple(Line(loss, tuple(range(len(v))), {"exact": v}) for loss, v in values.items())
    return CellReport(Cell("t", "m", ()), base, lines, (), refused, "exact", ("exact",))


def test_a_mean_over_the_seeds_that_are_left_has_no_rank():
    values = {"ce": [0.8] * 8, "ntil": [0.85] * 8, "emd": [0.99]}
    reports = {"one": of_cell(values), "two": of_cell({**values, "emd": [0.7] * 8}), "none": of_cell({}, None)}
    reports |= {"other": of_cell(values, refused="the runs differ"), "begun": of_cell(values)}
    means, left_out = rankable(reports, [("one", "emd"), ("begun", "ce"), ("begun", "emd")])
    assert means == {"one": {"ce": 0.8, "ntil": 0.85}, "two": pytest.approx({"ce": 0.8, "ntil": 0.85, "emd": 0.7})}
    assert left_out == [
        "emd: runs are missing in one",
        "none: no run is finished",
        "other: the runs differ",
        "begun: runs of ce are missing",
    ]
    assert ranks(list(means.values()), [True, True]) is None


def test_what_is_no_number_in_one_cell_leaves_the_others_their_ranks():
    values = {"ce": [0.8], "ntil": [0.85], "emd": [0.7], "mine": [math.nan]}
    means, left_out = rankable({"a": of_cell(values), "b": of_cell({**values, "mine": [0.9]})}, [])
    assert left_out == ["mine: exact is no number in a"]
    outcome = ranks(list(means.values()), [True, True])
    assert outcome is not None
    assert outcome.means == {"ce": 2, "ntil": 1, "emd": 3}
