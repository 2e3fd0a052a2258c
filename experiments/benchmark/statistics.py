"""Figures over a benchmark: the worth of trials, ranks over cells, seeds that a pilot asks for, hypotheses."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from experiments.analysis import CellReport
from experiments.benchmark.protocol import Hypothesis
from experiments.significance import seeds_needed


def expected_best(scores: Sequence[float], greater_is_better: bool = True) -> list[float]:
    """Expected best validation score of 1, 2, ... trials drawn with replacement from those that were made.

    Dodge et al., Show Your Work, EMNLP 2019, eq. 2-3. A failed trial (NaN) is as bad as the worst that finished.
    """
    signed = np.array(scores) * (1 if greater_is_better else -1)
    ordered = np.sort(np.where(np.isnan(signed), np.nanmin(signed), signed))
    count = len(ordered)
    shares = np.arange(count + 1) / count
    best = [float(ordered @ np.diff(shares**budget)) for budget in range(1, count + 1)]
    return best if greater_is_better else [-value for value in best]


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of losses over cells, 1 the best, and whether they differ.

    p: of Friedman's test that all are alike. critical: Nemenyi's critical difference of two mean ranks at 5 %.
    """

    means: dict[str, float]
    cells: int
    p: float
    critical: float


def ranks(values: Sequence[Mapping[str, float]], greater_is_better: Sequence[bool]) -> Ranks | None:
    """Ranks of the losses that all cells have (Demšar, JMLR 7, 2006); None with fewer than three, or than two cells.

    Args:
        values: of each cell, loss -> the headline metric's mean over seeds.
        greater_is_better: of each cell's metric.
    """
    losses = [loss for loss in (values[0] if values else {}) if all(loss in cell for cell in values)]
    if len(losses) < 3 or len(values) < 2:
        return None
    signs = [-1 if greater else 1 for greater in greater_is_better]
    table = np.array([[sign * cell[loss] for loss in losses] for sign, cell in zip(signs, values, strict=True)])
    ranked = np.apply_along_axis(stats.rankdata, 1, table)
    # Where all losses tie in all cells the statistic is 0 / 0.
    p = float(np.nan_to_num(stats.friedmanchisquare(*table.T).pvalue, nan=1.0))
    count, cells = len(losses), len(values)
    quantile = stats.studentized_range.ppf(0.95, count, np.inf) / math.sqrt(2)
    critical = float(quantile * math.sqrt(count * (count + 1) / (6 * cells)))
    return Ranks(dict(zip(losses, ranked.mean(0).tolist(), strict=True)), cells, p, critical)


def seeds_for(differences: Sequence[float], effect: float) -> int:
    """Paired seeds at which a difference of `effect` shows with 80 % power at 5 %, given a pilot's spread.

    Args:
        differences: of two losses, seed by seed.
    """
    centred = np.asarray(differences) - np.mean(differences) + effect
    needed = seeds_needed(centred)
    assert needed is not None
    return int(needed)


@dataclass(frozen=True)
class Judgement:
    """A hypothesis against the runs: the cells where `better` was better, or worse, than each loss of `than`."""

    hypothesis: Hypothesis
    better: dict[str, list[str]]
    worse: dict[str, list[str]]
    undecided: list[str]

    @property
    def holds(self) -> bool | None:
        """None where runs are missing that could change the answer."""
        least, bound = self.hypothesis.in_at_least, self.hypothesis.worse_in_at_most
        if any(len(cells) > bound for cells in self.worse.values()):
            return False
        if self.undecided:
            return None
        return all(len(cells) >= least for cells in self.better.values())


def judge(
    hypothesis: Hypothesis,
    reports: Mapping[str, Mapping[str, CellReport]],
    cells: Sequence[str],
    unfinished: Collection[tuple[str, str]],
) -> Judgement:
    """Judge a hypothesis.

    Args:
        reports: base loss -> cell -> its report, in which that loss is the base; cells without a run have none.
        cells: of the protocol.
        unfinished: (cell, loss) with runs that have not finished, be it that they failed.
    """
    better: dict[str, list[str]] = {}
    worse: dict[str, list[str]] = {}
    undecided: list[str] = []
    for other in hypothesis.than:
        verdicts = {}
        for cell in cells:
            report = reports[other].get(cell)
            lines = report.lines if report and report.base == other else ()
            line = next((line for line in lines if line.loss == hypothesis.better), None)
            comparison = line.against.get(report.headline) if line and report else None
            if comparison is None or {(cell, hypothesis.better), (cell, other)} & {*unfinished}:
                undecided.append(f"{cell}: {hypothesis.better} against {other}")
            else:
                verdicts[cell] = comparison.verdict
        better[other] = [cell for cell, verdict in verdicts.items() if verdict == "better"]
        worse[other] = [cell for cell, verdict in verdicts.items() if verdict == "worse"]
    return Judgement(hypothesis, better, worse, undecided)
