"""Is one loss better than another? Paired intervals and tests over the same test examples and the same seeds.

Two sources of chance are in a difference between two losses: which examples the test split happens to hold, and which
seeds the models were trained with. Examples are resampled (paired bootstrap). Seeds are few: three of them resampled
give intervals that exclude zero too often (`python -m experiments.simulate` prints how often), so their part comes from
Student's t of the seeds' own differences. The permutation test swaps the two losses example by example: it asks whether
these trained models differ. A verdict needs both.

Metrics are functions of sums over examples (`Task.tally`, `Task.finish`), so that hmean or a correlation is resampled
as correctly as a mean is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

Finish = Callable[[dict[str, float]], dict[str, float]]
Verdict = Literal["better", "worse", "not distinguishable"]


@dataclass(frozen=True)
class Tallies:
    """What each seed's model scored on each example: sums [S, N, K] with names [K], and how they make the metric."""

    sums: np.ndarray
    names: Sequence[str]
    finish: Finish
    metric: str

    def metric_of(self, weights: np.ndarray | None = None) -> np.ndarray:
        """[S] the metric per seed, or [B, S] under example weights [B, N]."""
        if weights is None:
            return self.metric_of(np.ones((1, self.sums.shape[1])))[0]
        totals = np.einsum("bn,snk->bsk", weights, self.sums)
        return self.finished(totals)

    def finished(self, totals: np.ndarray) -> np.ndarray:
        """The metric of sums [..., K]."""
        flat = totals.reshape(-1, totals.shape[-1])
        named = (dict(zip(self.names, row, strict=True)) for row in flat.tolist())
        return np.array([self.finish(sums)[self.metric] for sums in named]).reshape(totals.shape[:-1])


def of_means(scores: np.ndarray) -> Tallies:
    """Tallies of a metric that is the mean of per-example scores [S, N]."""
    sums = np.stack([scores, np.ones_like(scores)], axis=-1)
    return Tallies(sums, ("score", "examples"), lambda s: {"mean": s["score"] / s["examples"]}, "mean")


@dataclass(frozen=True)
class Comparison:
    """`ours` against `base`: difference of the metric's mean over seeds, its 95 % interval, p-values, seeds needed.

    p: of the permutation test over examples; p_holm: corrected over the table (p until `holm` is applied).
    seeds_needed: how many paired seeds would show a difference of the seen size with 80 % power at 5 %; None with one
        seed only, or no difference at all; infinite where these test examples are too few for any number of seeds.
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

    @property
    def verdict(self) -> Verdict:
        """Both the interval and the corrected test must tell them apart."""
        if self.low <= 0 <= self.high or self.p_holm >= 0.05:
            return "not distinguishable"
        return "better" if (self.difference > 0) == self.greater_is_better else "worse"


def compare(
    ours: Tallies,
    base: Tallies,
    greater_is_better: bool = True,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Comparison:
    """
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
    seeds, examples = ours.sums.shape[:2]
    return Comparison(difference, low, high, p, p, seeds, examples, seeds_needed(per_seed, shared), greater_is_better)


def interval(
    ours: Tallies, base: Tallies, per_seed: np.ndarray, rng: np.random.Generator, draws: int, level: float
) -> tuple[float, float, float]:
    """Quantiles of: mean difference + bootstrap over examples + Student's t over seeds (none with one seed).

    What seeds do differently on single examples is in the seeds' spread already. So of the bootstrap's variance only
    the part that seeds share counts: the covariance of the draws between seeds.

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
        kept = np.sqrt(shared / max(draws_of_mean.var(), 1e-300))
        centre = per_seed.mean()
        error = per_seed.std(ddof=1) / np.sqrt(seeds)
        draws_of_mean = centre + kept * (draws_of_mean - centre) + error * rng.standard_t(seeds - 1, size=draws)
    low, high = np.quantile(draws_of_mean, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), shared


def permutation_p(ours: Tallies, base: Tallies, rng: np.random.Generator, draws: int) -> float:
    """Two-sided p: how often a difference as large comes up when each example's two outcomes are swapped by a coin.

    All seeds of an example are swapped together, because they share its difficulty. Never 0: the observed assignment
    counts as one of the draws (Phipson and Smyth, 2010).
    """
    observed = abs((ours.metric_of() - base.metric_of()).mean())
    total = ours.sums + base.sums
    gap = ours.sums - base.sums
    as_large = 0
    for start in range(0, draws, 250):
        signs = rng.choice([-1.0, 1.0], size=(min(250, draws - start), gap.shape[1]))
        moved = np.einsum("bn,snk->bsk", signs, gap)
        whole = total.sum(1)[None]
        swapped = ours.finished((whole + moved) / 2) - base.finished((whole - moved) / 2)
        as_large += int((np.abs(swapped.mean(-1)) >= observed - 1e-12).sum())
    return (as_large + 1) / (draws + 1)


def seeds_needed(per_seed: np.ndarray, shared: float = 0.0, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """Paired seeds at which a t-test would show a difference of the seen size, given the seen spread over seeds.

    shared: the variance that comes from the test examples; it stays however many seeds there are, so the difference
        must stand out by as much more.
    """
    if len(per_seed) < 2 or per_seed.mean() == 0:
        return None
    spread = per_seed.std(ddof=1)
    reach = stats.norm.ppf(1 - alpha / 2) + stats.norm.ppf(power)
    beyond = per_seed.mean() ** 2 - reach**2 * shared
    if beyond <= 0:
        return np.inf
    mean = np.sqrt(beyond)
    if spread == 0 or mean / spread > 10:
        return 2
    return max(2, int(np.ceil(_solve(mean / spread, alpha, power))))


def _solve(effect: float, alpha: float, power: float) -> float:
    """Sample size of a paired t-test by bisection (the library's root finder fails for large effects)."""
    test = TTestPower()
    if test.power(effect, 2, alpha) >= power:
        return 2
    low, high = 2.0, 4.0
    while test.power(effect, high, alpha) < power and high < 1e7:
        low, high = high, high * 2
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (middle, high) if test.power(effect, middle, alpha) < power else (low, middle)
    return high


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with Holm's correction over all of them."""
    if not comparisons:
        return []
    corrected = multipletests([c.p for c in comparisons], method="holm")[1]
    return [replace(c, p_holm=float(p)) for c, p in zip(comparisons, corrected, strict=True)]


def plain_bootstrap(
    ours: Tallies, base: Tallies, rng: np.random.Generator, draws: int, level: float = 0.95
) -> tuple[float, float]:
    """Seeds and examples both resampled, kept to show in `experiments.simulate` why it is not used."""
    seeds, examples = ours.sums.shape[:2]
    gaps = np.empty(draws)
    for draw in range(draws):
        weights = rng.multinomial(examples, np.full(examples, 1 / examples), size=1)
        chosen = rng.integers(0, seeds, seeds)
        gaps[draw] = (ours.metric_of(weights) - base.metric_of(weights))[0, chosen].mean()
    low, high = np.quantile(gaps, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def normal_interval(per_seed: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Student's interval over seeds alone, for comparison."""
    error = stats.sem(per_seed)
    low, high = stats.t.interval(level, len(per_seed) - 1, loc=per_seed.mean(), scale=error)
    return float(low), float(high)
