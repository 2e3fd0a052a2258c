"""Paired intervals and tests of the difference between two losses, over the same test examples and seeds.

Such a difference has two sources of variance: the examples of the test split, and the seeds that the models were
trained with. Examples are resampled (paired bootstrap). Seeds are few: resampling three of them gives intervals that
exclude zero too often (`python -m benchmarks.significance` prints how often), so their part comes from Student's t of
the seeds' own differences. The permutation test swaps the two losses example by example, and so tests whether these
trained models differ. A verdict needs both. Examples of one picture share what is hard about it, so they are resampled
and swapped together.

Metrics are functions of sums over examples (`Task.sum_scores`, `Task.metrics_from_sums`), so that hmean or a
correlation is resampled as correctly as a mean is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

MetricsFromSums = Callable[[dict[str, float]], dict[str, float]]
Verdict = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class ScoreSums:
    """Sums [S, N, K] of seeds and examples with names [K], and the function that makes the metric of them.

    Examples of one picture are one of the N, see `by_picture`.

    rows: how many examples there are; None: N.
    """

    sums: np.ndarray
    names: Sequence[str]
    metrics_from_sums: MetricsFromSums
    metric: str
    rows: int | None = None

    def by_picture(self, pictures: Sequence[str | None]) -> ScoreSums:
        """The same with the sums of a picture's examples added up.

        Args:
            pictures: [N] what tells an example's picture from others; None: it has none in common with others.
        """
        numbers: dict[str | int, int] = {}
        keys = (i if picture is None else picture for i, picture in enumerate(pictures))
        index = np.array([numbers.setdefault(key, len(numbers)) for key in keys])
        sums = np.zeros((self.sums.shape[0], len(numbers), self.sums.shape[2]))
        np.add.at(sums.swapaxes(0, 1), index, self.sums.swapaxes(0, 1))
        return replace(self, sums=sums, rows=self.sums.shape[1])

    def metric_of(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The metric per seed [S], or [B, S] under example weights [B, N]."""
        if weights is None:
            return self.metric_of(np.ones((1, self.sums.shape[1])))[0]
        return self.finished(np.tensordot(weights, self.sums, axes=(1, 1)))

    def finished(self, totals: np.ndarray) -> np.ndarray:
        """The metric of sums [..., K].

        Of arrays at once, where the task's formula takes them. One that branches on its sums, or would divide by 0,
        gets them as numbers, set by set.
        """
        if totals.size > len(self.names):
            columns: dict[str, Any] = {name: totals[..., i] for i, name in enumerate(self.names)}
            try:
                with np.errstate(divide="raise", invalid="raise"):
                    values = self.metrics_from_sums(columns)[self.metric]
                return np.array(np.broadcast_to(values, totals.shape[:-1]), dtype=np.float64)
            except (ValueError, TypeError, FloatingPointError):
                pass  # the formula's own refusal, if it is one, comes again below
        flat = totals.reshape(-1, totals.shape[-1])
        by_name = (dict(zip(self.names, row, strict=True)) for row in flat.tolist())
        return np.array([self.metrics_from_sums(sums)[self.metric] for sums in by_name]).reshape(totals.shape[:-1])


def score_means(scores: np.ndarray) -> ScoreSums:
    """The sums of a metric that is the mean of per-example scores [S, N]."""
    sums = np.stack([scores, np.ones_like(scores)], axis=-1)
    return ScoreSums(sums, ("score", "examples"), lambda s: {"mean": s["score"] / s["examples"]}, "mean")


@dataclass(frozen=True)
class Comparison:
    """`ours` against `base`: difference of the metric's mean over seeds, its 95 % interval, p-values, seeds needed.

    p: of the permutation test over examples; p_holm: corrected over the table (p until `holm` is applied).
    seeds_needed: how many paired seeds would show a difference of the seen size with 80 % power at 5 %; None with one
        seed only, or no difference at all; infinite where these test examples are too few for any number of seeds.
    pictures: how many there are, where some have several examples.
    """

    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seeds: int
    examples: int
    seeds_needed: float | None
    greater_is_better: bool = True
    pictures: int | None = None

    @property
    def verdict(self) -> Verdict:
        """Verdict at 5 %: both the interval and the corrected test must exclude equality."""
        if not np.isfinite([self.low, self.high]).all():  # of a score that is no number nothing can be told
            return "not distinguishable"
        if self.low <= 0 <= self.high or self.p_holm >= 0.05:
            return "not distinguishable"
        return "better" if (self.difference > 0) == self.greater_is_better else "worse"


def compare(
    ours: ScoreSums,
    base: ScoreSums,
    greater_is_better: bool = True,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """Compare two losses on the same seeds and examples.

    Raises:
        ValueError: other seeds or other examples on the two sides.
    """
    if ours.sums.shape != base.sums.shape:
        raise ValueError(f"not paired: {ours.sums.shape[:2]} and {base.sums.shape[:2]} seeds and examples")
    rng = np.random.default_rng(seed)
    per_seed = ours.metric_of() - base.metric_of()
    difference = float(per_seed.mean())
    low, high, shared = interval(ours, base, per_seed, rng, draws, level)
    p = permutation_p(ours, base, rng, draws)
    seeds, units = ours.sums.shape[:2]
    examples = units if ours.rows is None else ours.rows
    needed = seeds_needed(per_seed, shared)
    pictures = units if units < examples else None
    return Comparison(difference, low, high, p, p, seeds, examples, needed, greater_is_better, pictures)


def interval(
    ours: ScoreSums, base: ScoreSums, per_seed: np.ndarray, rng: np.random.Generator, draws: int, level: float
) -> tuple[float, float, float]:
    """Quantiles of: mean difference + bootstrap over examples + Student's t over seeds (none with one seed).

    The spread over seeds already includes their different outcomes on single examples. So only the part of the
    bootstrap's variance that seeds share is added: the covariance of the draws between seeds.

    Returns:
        Low, high, and that shared variance, which no number of seeds makes smaller (0 with one seed).
    """
    examples = ours.sums.shape[1]
    gaps = np.empty((draws, len(per_seed)))
    for start in range(0, draws, 250):
        size = min(250, draws - start)
        weights = rng.multinomial(examples, np.full(examples, 1 / examples), size=size)
        gaps[start : start + size] = ours.metric_of(weights) - base.metric_of(weights)
    draws_of_mean = gaps.mean(-1)
    seeds, shared = len(per_seed), 0.0
    if seeds > 1:
        covariance = np.cov(gaps.T)
        shared = max(0.0, float(covariance.sum() - np.trace(covariance)) / (seeds * (seeds - 1)))
        shrinkage = np.sqrt(shared / max(draws_of_mean.var(), 1e-300))
        centre = per_seed.mean()
        error = per_seed.std(ddof=1) / np.sqrt(seeds)
        draws_of_mean = centre + shrinkage * (draws_of_mean - centre) + error * rng.standard_t(seeds - 1, size=draws)
    low, high = np.quantile(draws_of_mean, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), shared


def permutation_p(ours: ScoreSums, base: ScoreSums, rng: np.random.Generator, draws: int) -> float:
    """Two-sided p: the share of differences as large when each example's two outcomes are swapped at random.

    All seeds of an example are swapped together, because they share its difficulty. Never 0: the observed assignment
    counts as one of the draws (Phipson and Smyth, 2010).
    """
    observed = abs((ours.metric_of() - base.metric_of()).mean())
    if not np.isfinite(observed):
        return 1.0
    total = ours.sums + base.sums
    gap = ours.sums - base.sums
    as_large = 0
    for start in range(0, draws, 250):
        signs = rng.choice([-1.0, 1.0], size=(min(250, draws - start), gap.shape[1]))
        moved = np.tensordot(signs, gap, axes=(1, 1))
        totals = total.sum(1)[None]
        swapped = ours.finished((totals + moved) / 2) - base.finished((totals - moved) / 2)
        as_large += int((np.abs(swapped.mean(-1)) >= observed - 1e-12).sum())
    return (as_large + 1) / (draws + 1)


def seeds_needed(per_seed: np.ndarray, shared: float = 0.0, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Paired seeds at which a t-test would show a difference of the seen size, given the seen spread over seeds.

    shared: the variance that comes from the test examples; it stays however many seeds there are, so the difference
        must stand out by as much more.
    """
    if len(per_seed) < 2 or per_seed.mean() == 0:
        return None
    deviation = per_seed.std(ddof=1)
    reach = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    beyond = per_seed.mean() ** 2 - reach**2 * shared
    if beyond <= 0:
        return np.inf
    mean = np.sqrt(beyond)
    return 2 if deviation == 0 else _sample_size(mean / deviation, alpha, power)


def _sample_size(effect: float, alpha: float, power: float) -> int:
    """Smallest size at which a paired t-test has the power; statsmodels' root finder fails for large effects."""
    most = 10_000_000
    enough = 2
    while enough < most and _power(effect, enough, alpha) < power:
        enough *= 2
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if _power(effect, middle, alpha) >= power else (middle, enough)
    return max(2, min(enough, most))


def _power(effect: float, size: int, alpha: float) -> float:
    """Power of a two-sided t-test of a mean of `effect` deviations."""
    critical, shift = stats.t.ppf(1 - alpha / 2, size - 1), effect * np.sqrt(size)
    # Where scipy's noncentral t is NaN, far from its centre, nearly all of it lies above.
    above = np.nan_to_num(stats.nct.sf(critical, size - 1, shift), nan=1.0)
    below = np.nan_to_num(stats.nct.cdf(-critical, size - 1, shift), nan=0.0)
    return float(above + below)


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's correction over all of them."""
    if not comparisons:
        return []
    corrected = multipletests([c.p for c in comparisons], method="holm")[1]
    return [replace(c, p_holm=float(p)) for c, p in zip(comparisons, corrected, strict=True)]


def plain_bootstrap(
    ours: ScoreSums, base: ScoreSums, rng: np.random.Generator, draws: int, level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval over seeds and examples; only `benchmarks.significance` uses it, to show its errors."""
    seeds, examples = ours.sums.shape[:2]
    gaps = np.empty(draws)
    for draw in range(draws):
        weights = rng.multinomial(examples, np.full(examples, 1 / examples), size=1)
        chosen = rng.integers(0, seeds, seeds)
        gaps[draw] = (ours.metric_of(weights) - base.metric_of(weights))[0, chosen].mean()
    low, high = np.quantile(gaps, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def normal_interval(per_seed: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval over seeds alone, for comparison; NaN for one seed."""
    if len(per_seed) < 2:
        return float("nan"), float("nan")
    error = stats.sem(per_seed)
    low, high = stats.t.interval(level, len(per_seed) - 1, loc=per_seed.mean(), scale=error)
    return float(low), float(high)
