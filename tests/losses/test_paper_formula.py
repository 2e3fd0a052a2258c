"""`ntil_paper` is the formula of arXiv 2505.13077, by hand on one number."""

import math

import pytest
import torch

from ntil import NTIL, NumberVocab

VOCAB = NumberVocab(range(10), point_ids=[10])


def test_the_paper_preset_is_the_formula():
    labels = torch.tensor([[1, 2, 10, 5, 11]])  # 12.5 and another token
    logits = torch.randn(1, 5, 14, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    out = NTIL(VOCAB, preset="paper", noise=0)(logits, labels)
    costs = -logits[0].log_softmax(-1)
    ce = (costs[2, 10] + costs[4, 11]).item() / 5
    p = logits[0, [0, 1, 3], :10].softmax(-1)
    distance = sum(1.2 ** (3 - i - 1) * p[i, k].item() * abs(k - y) for i, y in enumerate((1, 2, 5)) for k in range(10))
    x = sum(p[i].argmax().item() * scale for i, scale in enumerate((10, 1, 0.1)))
    low, high, eps = min(x, 12.5), max(x, 12.5), 0.1
    assert high > low + 1
    relative, magnitude = (high - low) / (high + eps), math.log((high + eps) / (low + eps))
    total = ce + distance / 3 + 0.2 * relative + 0.2 * magnitude
    assert out.total.item() == pytest.approx(total, rel=1e-6)
