"""RAFT against the sum over its grid, and what its mean does not see."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ntil import NumberVocab
from ntil.losses import RAFT, ValueEMD
from ntil.losses.values import slowed

IDS = [7, 3, 5, 11, 2, 13, 17, 19, 23, 29]
VOCAB = NumberVocab(IDS, point_ids=[4], minus_ids=[6])


def encode(text):
    return [{".": 4, "-": 6}.get(c, IDS[int(c)] if c.isdigit() else 0) for c in text]


def batch(text, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(1, len(text), 31, generator=generator, dtype=torch.float64), torch.tensor([encode(text)])


@pytest.mark.parametrize("text", ["7", "42", "103", "2.5", "-0.07"])
@pytest.mark.parametrize("form", ["absolute", "range"])
def test_it_is_the_squared_error_of_the_sum_over_all_numbers_of_that_length(text, form):
    logits, labels = batch(text)
    q = [row.softmax(-1).tolist() for row, t in zip(logits[0], labels[0].tolist(), strict=True) if t in IDS]
    unit = 10.0 ** -len(text.partition(".")[2])
    mean = 0.0
    for guess in itertools.product(range(10), repeat=len(q)):
        chance = math.prod(q[i][IDS[k]] for i, k in enumerate(guess))
        mean += chance * int("".join(map(str, guess))) * unit
    error = (abs(float(text)) - mean) / (unit * (10 ** len(q) - 1) if form == "range" else 1)
    out = RAFT(VOCAB, form=form)(logits, labels)
    assert out.components["squared"].item() == pytest.approx(error**2, rel=1e-6)
    keep = [t not in IDS for t in labels[0].tolist()]
    # Cross-entropy of the other tokens, over the count of all.
    other = F.cross_entropy(logits[0][keep], labels[0][keep], reduction="sum").item() if any(keep) else 0.0
    assert out.total.item() == pytest.approx(other / len(keep) + error**2, rel=1e-6)


def test_of_one_token_scores_it_is_tracts_loss():
    """TRACT: probabilities of the scores under the whole softmax, times the scores, against the score."""
    scores = NumberVocab(IDS[:6], one_place=True)  # 0 has the weight 0
    logits, _ = batch("1234")
    labels = torch.tensor([[IDS[1], IDS[5], IDS[3], 30]])
    p = logits[0].softmax(-1)[:3]
    weighted = sum(k * p[:, IDS[k]] for k in range(1, 6))
    expected = F.mse_loss(weighted, torch.tensor([1.0, 5.0, 3.0], dtype=torch.float64))
    assert RAFT(scores)(logits, labels).components["squared"].item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("options", [{}, {"form": "range"}, {"replace_ce": False}])
def test_gradcheck(options):
    logits, labels = batch("12.5 -7a")
    loss = RAFT(VOCAB, **options)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels).total, (logits.requires_grad_(),), atol=1e-6)


def test_the_right_mean_is_enough_and_mass_off_the_numbers_is_not():
    labels = torch.tensor([[IDS[5]]])
    costs = {}
    for name, digits in {"5": [5], "4 or 6": [4, 6], "0": [0], "9": [9]}.items():
        logits = torch.full((1, 1, 31), -60.0, dtype=torch.float64)
        logits[0, 0, [IDS[k] for k in digits]] = 0.0
        costs[name] = RAFT(VOCAB)(logits, labels).components["squared"].item()
        logits[0, 0, 30] = 60.0
        assert RAFT(VOCAB)(logits, labels).components["squared"].item() == pytest.approx(25)
    assert costs == pytest.approx({"5": 0, "4 or 6": 0, "0": 25, "9": 16}, abs=1e-12)


def test_a_form_that_there_is_not_is_refused():
    options: dict[str, Any] = {"form": "relative"}
    with pytest.raises(ValueError, match="absolute"):
        RAFT(VOCAB, **options)


LOSSES = {"absolute": RAFT(VOCAB), "range": RAFT(VOCAB, form="range"), "value_emd": ValueEMD(VOCAB)}


@pytest.mark.parametrize("digits", [12, 15, 16, 18, 32, 200, 400])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_numbers_of_any_length_have_a_gradient(loss, digits):
    logits, labels = batch("1" * digits)
    logits = logits.float()
    logits[..., IDS] += 20  # the product of the masses on digits must not underflow
    out = loss(logits.requires_grad_(), labels)
    (gradient,) = torch.autograd.grad(out.total, logits)
    assert torch.isfinite(out.total)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 0, IDS].abs().max() > 0


def test_beyond_the_largest_error_the_square_goes_on_as_its_logarithm():
    """Value and slope are the same on both sides of it."""
    error = torch.tensor([3.0, 0.999e15, 1.001e15, 1e20], dtype=torch.float64, requires_grad=True)
    cost = slowed(error.square(), 1e30)
    (slope,) = torch.autograd.grad(cost.sum(), error)
    expected = [9, 0.999**2 * 1e30, (1 + 2 * math.log(1.001)) * 1e30, (1 + 10 * math.log(10)) * 1e30]
    assert cost.tolist() == pytest.approx(expected, rel=1e-9)
    assert slope.tolist() == pytest.approx([6, 2 * 0.999e15, 2e30 / 1.001e15, 2e30 / 1e20], rel=1e-9)
    labels, logits = torch.tensor([[IDS[9]] * 18]), torch.full((1, 18, 31), -60.0, dtype=torch.float64)
    logits[0, range(18), [IDS[d] for d in [8] + [9] * 17]] = 60.0
    squared = RAFT(VOCAB)(logits, labels).components["squared"].item()
    assert squared == pytest.approx(1e30 * (1 + 2 * math.log(1e17 / 1e15)), rel=1e-6)
