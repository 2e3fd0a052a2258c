"""The released NTIL algorithm as the straight Python loop that it is there: a reading of it, and its cost.

Written from the description of what that code computes (arXiv 2505.13077, github xfey/NTIL): one token and one item()
at a time; `tests/losses/test_golden.py` holds it to the same golden values as `ntil.NTIL`. Only benchmarks use it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100


def released_loop(
    logits: Tensor,
    labels: Tensor,
    digit_ids: list[int],
    lam: float = 0.3,
    alpha: float = 0.2,
    beta: float = 0.2,
    sigma: float = 0.2,
    digit_weight: float = 1.0,
    temperature: float = 0.1,
) -> tuple[Tensor, Tensor]:
    """(total, aux) of logits [B, T, V] and labels [B, T], without noise."""
    ce = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORE)
    samples = [
        _sample(logits[b], labels[b], digit_ids, alpha, beta, sigma, digit_weight, temperature)
        for b in range(len(labels))
    ]
    aux = sum(samples, ce.new_zeros(())) / len(samples)
    return ce + lam * (ce / (aux + 1e-10)).detach() * aux, aux


def _sample(
    logits: Tensor, labels: Tensor, ids: list[int], alpha: float, beta: float, sigma: float, weight: float, tau: float
) -> Tensor:
    digits, relative, magnitude = [], [], []
    for run in _runs(labels, ids):
        values = torch.arange(10.0, device=logits.device)
        guess, true = logits.new_zeros(()), 0.0
        for i, (position, digit) in enumerate(run):
            z = logits[position, ids]
            place = len(run) - 1 - i
            digits.append((1 + sigma) ** place * (torch.softmax(z, -1) * (values - digit).abs()).sum())
            soft = torch.softmax(z / tau, -1)
            hard = F.one_hot(torch.tensor(soft.argmax().item(), device=z.device), 10) - soft.detach() + soft
            guess = guess + (hard * values).sum() * 10.0**place
            true += digit * 10.0**place
        large, small = guess.clamp(min=true), guess.clamp(max=true)
        relative.append((guess - true).abs() / (large + 1))
        magnitude.append(torch.log((large + 1) / (small + 1)))
    if not digits:
        return logits.new_zeros(())
    means = [torch.stack(part).mean() for part in (digits, relative, magnitude)]
    return weight * means[0] + alpha * means[1] + beta * means[2]


def _runs(labels: Tensor, ids: list[int]) -> list[list[tuple[int, int]]]:
    """Maximal runs of digit labels as (position, digit)."""
    runs: list[list[tuple[int, int]]] = [[]]
    for position in range(len(labels)):
        label = labels[position].item()
        if label in ids:
            runs[-1].append((position, ids.index(int(label))))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
