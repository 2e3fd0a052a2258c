"""The statistics against scipy where it has the same, and by simulation where honesty is the question."""

from typing import Any

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower

from benchmarks.significance import picture_rates, rates
from experiments.significance import Comparison, ScoreSums, compare, holm, score_means, seeds_needed
from tasks.metrics.detection import figures

RNG = np.random.default_rng(0)


def pair(examples=300, seeds=1, effect=0.1):
    base = (RNG.random((seeds, examples)) < 0.5).astype(float)
    better = np.maximum(base, RNG.random((seeds, examples)) < effect * 2)
    return score_means(better), score_means(base)


def test_one_seed_interval_is_scipys_paired_bootstrap():
    ours, base = pair()
    found = compare(ours, base, draws=4000)
    gap = (ours.sums - base.sums)[0, :, 0]
    theirs = stats.bootstrap((gap,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert found.difference == pytest.approx(gap.mean())
    assert found.low == pytest.approx(theirs.low, abs=0.006)
    assert found.high == pytest.approx(theirs.high, abs=0.006)
    assert found.verdict == "better"
    assert found.seeds_needed is None


def test_permutation_p_is_scipys():
    scores = RNG.normal(size=(1, 40))
    ours, base = score_means(scores + RNG.normal(0.25, 1.0, size=(1, 40))), score_means(scores)
    found = compare(ours, base, draws=6000)
    gap = (ours.sums - base.sums)[0, :, 0]
    theirs = stats.permutation_test((gap,), np.mean, permutation_type="samples", n_resamples=6000, rng=1)
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)


def test_many_seeds_and_examples_come_near_the_t_interval():
    """Where examples add nothing (all alike), only the seeds' Student interval is left."""
    seeds, examples = 5, 50
    level = RNG.normal(0.1, 0.05, (seeds, 1))
    ours, base = score_means(np.tile(0.5 + level, (1, examples))), score_means(np.full((seeds, examples), 0.5))
    found = compare(ours, base, draws=20_000)
    low, high = stats.t.interval(0.95, seeds - 1, loc=level.mean(), scale=stats.sem(level[:, 0]))
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


def test_a_metric_of_sums_is_resampled_as_a_whole():
    """hmean of counts: the point value is of the summed counts, not a mean of per-example values."""
    counts = RNG.integers(0, 5, (2, 60, 3)).astype(float)  # true positives, predictions, truths
    counts[..., 1:] += counts[..., :1]

    def hmean(sums):
        return {"hmean": 2 * sums["tp"] / (sums["predictions"] + sums["truths"])}

    ours = ScoreSums(counts, ("tp", "predictions", "truths"), hmean, "hmean")
    total = counts.sum(1)
    expected = 2 * total[:, 0] / (total[:, 1] + total[:, 2])
    np.testing.assert_allclose(ours.metric_of(), expected)
    weights = np.zeros((1, 60))
    weights[0, :10] = 6
    part = counts[:, :10].sum(1)
    np.testing.assert_allclose(ours.metric_of(weights)[0], 2 * part[:, 0] / (part[:, 1] + part[:, 2]))
    assert compare(ours, ours).p == 1.0


def test_formulas_of_arrays_and_formulas_of_numbers_say_the_same():
    """One that branches on its sums, and one that divides by what may be 0, get them as numbers."""
    counts = RNG.integers(0, 3, (3, 40, 2)).astype(float)
    weights = RNG.multinomial(40, np.full(40, 1 / 40), size=7)

    def branching(sums):
        return {"share": sums["part"] / sums["all"] if sums["all"] > 0 else 0.0}

    def of_arrays(sums):
        return {"share": sums["part"] / sums["all"], "constant": 1.0}

    one, other = (ScoreSums(counts, ("part", "all"), formula, "share") for formula in (branching, of_arrays))
    np.testing.assert_array_equal(one.metric_of(weights), other.metric_of(weights))
    np.testing.assert_array_equal(one.metric_of(), other.metric_of())
    constant = ScoreSums(counts, ("part", "all"), of_arrays, "constant")
    np.testing.assert_array_equal(constant.metric_of(weights), np.ones((7, 3)))
    none = counts * [1, 0]
    assert not ScoreSums(none, ("part", "all"), branching, "share").metric_of(weights).any()
    with pytest.raises(ZeroDivisionError):
        ScoreSums(none, ("part", "all"), of_arrays, "share").metric_of(weights)


def test_holm_is_the_textbook():
    found = holm([Comparison(0.1, 0.05, 0.15, p, p, 3, 100, None) for p in (0.01, 0.04, 0.03)])
    assert [c.p_holm for c in found] == pytest.approx([0.03, 0.06, 0.06])
    assert [c.verdict for c in found] == ["better", "not distinguishable", "not distinguishable"]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("mean", "spread"), [(1.0, 1.0), (0.2, 1.0), (3.0, 1.0), (3.279, 1.0), (0.0371, 1.0), (1.537, 1.0)]
)
def test_seeds_needed_gives_the_power_it_promises(mean, spread):
    values = mean + spread * np.array([-1.0, 0.0, 1.0])
    count = seeds_needed(values)
    assert count is not None
    power = TTestPower().power
    assert power(mean / spread, count, 0.05) >= 0.8
    assert count == 2 or power(mean / spread, count - 1, 0.05) < 0.8
    assert seeds_needed(np.array([0.0, 0.0])) is None
    assert seeds_needed(np.array([0.3])) is None


@pytest.mark.parametrize("effect", [8.442, 10.5, 25.0])
def test_two_seeds_are_enough_only_where_they_are(effect):
    """By simulation, where statsmodels' power is not a number."""
    values = effect + np.array([-1.0, 0.0, 1.0])
    count = seeds_needed(values)
    samples = np.random.default_rng(0).normal(effect, 1.0, (40_000, 3))

    def power(size):
        return np.mean(stats.ttest_1samp(samples[:, :size], 0, axis=1).pvalue < 0.05)

    assert count == (2 if power(2) >= 0.8 else 3)
    assert power(3) > 0.8


def test_what_test_examples_leave_open_no_number_of_seeds_can_tell():
    values = np.array([0.05, -0.01, 0.03, 0.0, 0.03])
    without_shared = seeds_needed(values)
    assert seeds_needed(values, shared=0.0) == without_shared
    with_shared = seeds_needed(values, shared=0.003**2)
    assert without_shared is not None
    assert with_shared is not None
    assert with_shared > without_shared
    assert seeds_needed(values, shared=0.02**2) == np.inf
    # At the number it gives, seeds and examples together have the power it promises.
    shared = 0.004**2
    count = seeds_needed(values, shared)
    assert count is not None
    error = np.sqrt(shared + values.var(ddof=1) / count)
    seen = np.random.default_rng(0).normal(values.mean(), error, 20_000)
    assert np.mean(np.abs(seen) > stats.norm.ppf(0.975) * error) == pytest.approx(0.8, abs=0.05)


def test_worse_is_seen_from_the_metrics_direction():
    high = Comparison(5.0, 3.0, 7.0, 0.001, 0.001, 3, 100, 2, greater_is_better=False)
    assert high.verdict == "worse"


@pytest.mark.parametrize("greater", [True, False])
def test_of_a_score_that_is_no_number_nothing_is_told(greater):
    rng = np.random.default_rng(0)
    ours, base = (score_means(rng.random((2, 40)) + offset) for offset in (5.0, 0.0))
    ours.sums[0, 3] = np.nan
    comparison = compare(ours, base, greater, draws=200)
    assert comparison.p == 1
    assert comparison.verdict == "not distinguishable"
    low_p = Comparison(np.nan, np.nan, np.nan, 0.001, 0.001, 2, 40, 2, greater)
    assert low_p.verdict == "not distinguishable"


def test_unpaired_sides_are_refused():
    with pytest.raises(ValueError, match="not paired"):
        compare(score_means(np.ones((1, 10))), score_means(np.ones((1, 11))))


@pytest.mark.slow
def test_no_difference_is_called_one_in_about_five_percent():
    """Under no difference; 3 seeds. The plain hierarchical bootstrap is why seeds are not resampled here."""
    found = rates(trials=300, seeds=3, examples=200, spread=0.5, draws=300)
    assert found["interval"] <= 0.08
    assert found["verdict"] <= 0.08
    assert found["plain hierarchical bootstrap"] > 0.1
    alone = rates(trials=300, seeds=1, examples=200, spread=0.0, draws=300)
    assert 0.02 <= alone["interval"] <= 0.08
    assert 0.02 <= alone["permutation"] <= 0.08
    found = rates(trials=60, seeds=5, examples=200, spread=0.1, effect=2.0, draws=300)
    assert found["verdict"] >= 0.9


def test_examples_of_a_picture_are_resampled_together():
    """As scipy does with the pictures' means where all have equally many examples; the metric itself is the same."""
    ours, base = pair(examples=240)
    pictures = [str(i % 60) for i in range(240)]
    comparison = compare(ours.by_picture(pictures), base.by_picture(pictures), draws=4000)
    gap = (ours.sums - base.sums)[0, :, 0].reshape(4, 60).mean(0)
    theirs = stats.bootstrap((gap,), np.mean, n_resamples=4000, method="percentile", rng=1).confidence_interval
    assert comparison.difference == pytest.approx(compare(ours, base).difference)
    assert (comparison.examples, comparison.pictures) == (240, 60)
    assert comparison.low == pytest.approx(theirs.low, abs=0.006)
    assert comparison.high == pytest.approx(theirs.high, abs=0.006)
    alone = ours.by_picture([None, *map(str, range(239))])
    np.testing.assert_array_equal(alone.sums, ours.sums)
    assert compare(alone, base.by_picture([None] * 240)).pictures is None


@pytest.mark.slow
def test_examples_of_a_picture_make_no_difference_of_none():
    alone = picture_rates(trials=100, seeds=8, examples=400, per_picture=8, draws=200)
    assert alone["by example"] > 0.15
    assert alone["by picture"] <= 0.1


def test_the_official_figures_of_text_detection_take_arrays():
    """As resampling needs: the same numbers as one set of sums at a time, also where all are 0."""
    names = ("true", "found", "matched", "siou", "tiou_recall", "tiou_precision")
    totals = np.concatenate([RNG.integers(0, 4, (5, 6)), np.zeros((1, 6))]).astype(float)
    columns: Any = {name: totals[:, i] for i, name in enumerate(names)}
    together: Any = figures(columns)
    for number, row in enumerate(totals):
        alone = figures(dict(zip(names, row.tolist(), strict=True)))
        assert {key: values[number] for key, values in together.items()} == alone
