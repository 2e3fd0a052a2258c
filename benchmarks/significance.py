"""How often intervals and tests find a difference where there is none: `python -m benchmarks.significance`.

Takes about three minutes on one core.

Two losses that do not differ, three seeds, 400 examples with right/wrong scores whose difficulty varies by example, and
seeds that differ by `spread` in accuracy. A method is honest when it tells the two apart in about 5 % of the trials.
Then the same with 8 examples a picture, where each loss has its own luck with a picture that all its seeds share.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.special import expit
from tqdm import tqdm

from data.common.counts import counted
from experiments.significance import ScoreSums, compare, normal_interval, plain_bootstrap, score_means


def trial(
    rng: np.random.Generator, seeds: int, examples: int, spread: float, effect: float = 0.0
) -> tuple[ScoreSums, ScoreSums]:
    """Scores of two losses on shared examples; seeds move the whole model, independently for the two losses."""
    difficulty = rng.normal(0, 1.5, examples)
    sides = []
    for shift in (effect, 0.0):
        skill = 0.5 + shift + rng.normal(0, spread, (seeds, 1))
        sides.append(score_means((rng.random((seeds, examples)) < expit(skill + difficulty)).astype(float)))
    return sides[0], sides[1]


def rates(
    trials: int, seeds: int, examples: int, spread: float, effect: float = 0.0, draws: int = 500
) -> dict[str, float]:
    """Share of trials in which each method tells the two losses apart."""
    rng = np.random.default_rng(0)
    found = {"interval": 0, "permutation": 0, "verdict": 0, "plain hierarchical bootstrap": 0, "t over seeds": 0}
    for number in tqdm(range(trials), desc=f"{counted(seeds, 'seed')}, spread {spread}, effect {effect}", leave=False):
        ours, base = trial(rng, seeds, examples, spread, effect)
        c = compare(ours, base, draws=draws, seed=number)
        found["interval"] += not c.low <= 0 <= c.high
        found["permutation"] += c.p < 0.05
        found["verdict"] += c.verdict != "not distinguishable"
        low, high = plain_bootstrap(ours, base, rng, draws)
        found["plain hierarchical bootstrap"] += not low <= 0 <= high
        low, high = normal_interval(ours.metric_of() - base.metric_of())
        found["t over seeds"] += not low <= 0 <= high
    return {name: count / trials for name, count in found.items()}


def picture_rates(trials: int, seeds: int, examples: int, per_picture: int, draws: int = 300) -> dict[str, float]:
    """Share of trials with a verdict where no difference is, with examples taken by themselves and by picture."""
    rng = np.random.default_rng(0)
    pictures = [str(i // per_picture) for i in range(examples)]
    verdicts = {"by example": 0, "by picture": 0}
    for number in tqdm(range(trials), desc=f"{counted(seeds, 'seed')}, {per_picture} a picture", leave=False):
        difficulty = rng.normal(0, 1, examples // per_picture)
        sides = []
        for luck in rng.normal(0, 1.5, (2, len(difficulty))):
            logits = np.repeat(difficulty + luck, per_picture) + rng.normal(0, 0.2, (seeds, 1))
            sides.append(score_means((rng.random((seeds, examples)) < expit(logits)).astype(float)))
        joined = [side.by_picture(pictures) for side in sides]
        for name, (ours, base) in {"by example": sides, "by picture": joined}.items():
            verdicts[name] += compare(ours, base, draws=draws, seed=number).verdict != "not distinguishable"
    return {name: count / trials for name, count in verdicts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--examples", type=int, default=400)
    options = parser.parse_args()
    print("| seeds | spread over seeds | effect | interval | permutation | verdict | plain bootstrap | t over seeds |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for seeds, spread, effect in (
        (3, 0.0, 0.0),
        (3, 0.2, 0.0),
        (3, 0.5, 0.0),
        (8, 0.2, 0.0),
        (3, 0.2, 1.0),
        (8, 0.2, 1.0),
    ):
        shares = " | ".join(f"{x:.1%}" for x in rates(options.trials, seeds, options.examples, spread, effect).values())
        print(f"| {seeds} | {spread} | {effect} | {shares} |", flush=True)
    print("\n| seeds | examples a picture | verdict by example | verdict by picture |\n| ---: | ---: | ---: | ---: |")
    for seeds in (3, 8):
        shares = " | ".join(f"{x:.1%}" for x in picture_rates(options.trials, seeds, options.examples, 8).values())
        print(f"| {seeds} | 8 | {shares} |", flush=True)


if __name__ == "__main__":
    main()
