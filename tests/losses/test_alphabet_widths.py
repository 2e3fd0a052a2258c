"""Widths in tenths of the alphabet: nothing new on ten digits, the same share of the scale on any other alphabet."""

import math
from dataclasses import replace

import pytest
import torch

from ntil import NumberVocab
from ntil.config.build import build
from ntil.config.compose import compose
from ntil.config.identity import config_hash
from ntil.losses import DIST2, SoftLabel

DIGITS = NumberVocab(range(10))
BINS = NumberVocab(range(40), one_place=True)
KINDS = {"dist2": (DIST2, {}), "gaussian": (SoftLabel, {}), "triangular": (SoftLabel, {"shape": "triangular"})}


def target(kind, y, size, width):
    """The soft target of the formula, a list."""
    bumps = {
        "dist2": lambda gap: math.exp(-(gap**2) / width),
        "gaussian": lambda gap: math.exp(-(gap**2) / (2 * width**2)),
        "triangular": lambda gap: max(0.0, 1 - gap / width),
    }
    bump = [bumps[kind](abs(k - y)) for k in range(size)]
    return torch.tensor([b / sum(bump) for b in bump], dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS)
def test_on_ten_digits_it_changes_nothing(kind):
    make, options = KINDS[kind]
    logits = torch.randn(1, 4, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([[3, 11, 9, 0]])
    scaled, plain = (make(DIGITS, width=2.0, scale_width=s, **options)(logits, labels) for s in (True, None))
    assert torch.equal(scaled.total, plain.total)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaled", [False, True])
def test_on_other_alphabets_it_is_the_formula_with_a_width_in_tenths(kind, scaled):
    make, options = KINDS[kind]
    width, lam = 1.5, 0.1
    logits = torch.randn(1, 3, 45, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels, true = torch.tensor([[0, 17, 39]]), [0, 17, 39]
    steps = width * (40 / 10) ** (2 if kind == "dist2" else 1) if scaled else width
    z = logits.clone().requires_grad_()
    loss = make(BINS, width=width, scale_width=scaled, **options)
    out = loss(z, labels)
    log_p = logits[0].log_softmax(-1)
    expected = 0.0
    for i, y in enumerate(true):
        q = target(kind, y, 40, steps)
        if kind == "dist2":
            entropy = torch.special.xlogy(q, q).sum()
            expected += (-log_p[i, y] + lam * (entropy - (q * logits[0, i, :40].log_softmax(-1)).sum())) / 3
        else:
            expected -= (0.92 * log_p[i, y] + 0.08 * (q * log_p[i, :40]).sum()) / 3
    assert out.total.item() == pytest.approx(float(expected), rel=1e-6)
    assert torch.autograd.gradcheck(lambda t: loss(t, labels).total, (z,), atol=1e-6)


@pytest.mark.parametrize("name", ["dist2", "soft_label"])
def test_old_runs_keep_their_hash_and_the_scaled_configs_have_another(name):
    plain = compose([f"loss={name}"])
    new = {"scale_width", "mass", "mass_weight"} & plain.loss.options.keys()
    assert "scale_width" in new
    older = {k: v for k, v in plain.loss.options.items() if k not in new}
    assert config_hash(replace(plain, loss=replace(plain.loss, options=older))) == config_hash(plain)
    assert config_hash(compose([f"loss={name}_scaled"])) != config_hash(plain)
    assert build("loss", compose([f"loss={name}_scaled"]).loss, vocab=BINS).scale_width
