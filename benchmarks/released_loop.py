"""The released NTIL algorithm as the straight Python loop that it is there: a reading of it, and its cost.

Written from the description of what that code computes (arXiv 2505.13077, github xfey/NTIL), in float32, one token and
one item() at a time, and with the logits indexed as often as there: once for the digits of a sample, twice for every
number, each of which costs a gradient of all its sample's logits. The tests hold it to the golden values, as they do
`ntil.NTIL`, and `ntil.NTIL` to it on random cases.
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
) -> tuple[Tensor, dict[str, Tensor]]:
    """(total, components) of logits [B, T, V] and labels [B, T], without noise."""
    ce = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORE)
    samples = [_sample(logits[b], labels[b], digit_ids, sigma, temperature) for b in range(len(labels))]
    digit, relative, magnitude = (torch.stack(parts).mean() for parts in zip(*samples, strict=True))
    aux = digit_weight * digit + alpha * relative + beta * magnitude
    total = ce + lam * (ce / (aux + 1e-10)).detach() * aux
    return total, {"ce": ce, "aux": aux, "digit": digit, "relative": relative, "magnitude": magnitude}


def _sample(logits: Tensor, labels: Tensor, ids: list[int], sigma: float, tau: float) -> tuple[Tensor, Tensor, Tensor]:
    """The digit, the relative and the magnitude term of one sample: logits [T, V], labels [T]."""
    runs = _runs(labels, ids)
    if not runs:
        return (logits.new_zeros(()),) * 3
    values = torch.arange(10.0, device=logits.device)
    z = logits[[position for run in runs for position, _ in run]][:, ids]
    digits = [digit for run in runs for _, digit in run]
    weights = torch.tensor([(1 + sigma) ** place for run in runs for place in reversed(range(len(run)))])
    distances = torch.stack([(values - digit).abs() for digit in digits])
    emd = (torch.softmax(z, -1) * distances).sum(-1) * weights.to(z.device)
    relative, magnitude = [], []
    for run in runs:
        guess, true = _read(logits, run, ids, tau)
        relative.append((guess - true).abs() / (torch.maximum(guess, true) + 1))
    for run in runs:
        guess, true = _read(logits, run, ids, tau)
        magnitude.append(torch.log((torch.maximum(guess, true) + 1) / (torch.minimum(guess, true) + 1)))
    return emd.mean(), torch.stack(relative).mean(), torch.stack(magnitude).mean()


def _read(logits: Tensor, run: list[tuple[int, int]], ids: list[int], tau: float) -> tuple[Tensor, Tensor]:
    """The number of a run as predicted, by a straight-through argmax, and as labelled."""
    z = logits[run[0][0] : run[-1][0] + 1, ids]
    powers = torch.tensor([10.0**place for place in reversed(range(len(run)))], device=z.device)
    soft = torch.softmax(z / tau, -1)
    hard = F.one_hot(soft.argmax(-1), 10) - soft.detach() + soft
    guess = (hard @ torch.arange(10.0, device=z.device) * powers).sum()
    return guess, (torch.tensor([digit for _, digit in run], device=z.device) * powers).sum()


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
