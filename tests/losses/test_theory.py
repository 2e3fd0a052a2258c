"""docs/theory.md: its table is computed, and what is known by hand is found."""

from pathlib import Path

import pytest
import torch

from benchmarks import loss_theory as theory
from ntil import CE, EMD
from ntil.losses.ntl import NTL
from tests.support.chosen import slow_but

PAGE = Path(__file__).parents[2] / "docs" / "theory.md"
Q = torch.tensor(theory.TRUTH, dtype=torch.float64)


def page(first):
    """Lines of the page's table from its head on."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return lines[lines.index(first) :]


@pytest.mark.slow
def test_the_page_has_the_table_as_it_is_computed_now():
    computed = theory.markdown().splitlines()
    assert page(computed[0])[: len(computed)] == computed


@pytest.mark.slow
def test_the_page_has_all_losses():
    """And of some of them what is computed; of all in the slow test."""
    head, rule, *lines = page(f"| {' | '.join(theory.COLUMNS)} |")
    assert head.count("|") == rule.count("|")
    names = list(theory.specs())
    assert [line.split("`")[1] for line in lines[: len(names)]] == names
    some = ["ce", "ntl_was", "smmd", "value_emd"]
    assert set(theory.markdown(some).splitlines()) <= {head, rule, *lines}


@pytest.mark.slow
def test_known_minimisers():
    """Of E|X - Y| all mass on the median, of the squared error of the mean every p with the right mean."""
    assert theory.proper("ntl_was") == "no: 0 0 100 0"
    assert theory.proper("emd") == theory.proper("value_emd") == "no: 0 0 100 0"
    assert theory.proper("ntl_mse") == theory.proper("raft") == "weakly"
    assert theory.proper("smmd") == "strictly"
    assert theory.proper("dist2") == "no: 15 20 30 35"
    torch.testing.assert_close(theory.minimiser("ce"), Q)
    assert theory.minimiser("raft") is None


@pytest.mark.slow
def test_softened_labels_have_the_softened_truth():
    """Cross-entropy against (1 - eta) q + eta psi(q) is least at that mixture."""
    eta, values = 0.08, torch.arange(4.0, dtype=torch.float64)
    bump = torch.exp(-((values[:, None] - values) ** 2) / 2)
    softened = (1 - eta) * Q + eta * (Q[:, None] * bump / bump.sum(-1, keepdim=True)).sum(0)
    least = theory.minimiser("soft_label")
    assert least is not None
    assert (least - softened).abs().max() <= 0.002


@pytest.mark.parametrize("kind", slow_but([EMD], [NTL, EMD]))
def test_the_grid_finds_what_training_finds(kind):
    """The same truth as a batch of ten numbers, one prediction for all of them, by plain descent on the total."""
    loss = kind(theory.Case.of(CE()).vocab)
    labels = torch.tensor([0, 0, 1, 2, 2, 2, 3, 3, 3, 3])[:, None]
    z = torch.zeros(theory.SIZE, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([z], lr=0.05)
    for _ in range(500):
        optimizer.zero_grad()
        loss(z.expand(10, 1, -1), labels).total.backward()
        optimizer.step()
    p = z.detach().softmax(-1)[:4]
    name = {NTL: "ntl_was", EMD: "emd"}[kind]
    least = theory.minimiser(name)
    assert least is not None
    assert (p - least).abs().max() < 0.005


def test_gradients_where_a_model_is_sure_and_wrong():
    """Of cross-entropy sqrt(2) - the wrong digit's 1 down, the right one's 1 up - and of a softmax's mean none."""

    def sure(z):
        return z.index_fill(0, torch.tensor([3]), 40.0)

    assert theory.pull("ce", sure, True).norm().item() == pytest.approx(2**0.5, rel=1e-6)
    assert theory.pull("emd", sure, False).norm() < 1e-12
    assert theory.vanishes("emd", False)
    assert not theory.vanishes("emd", True)
    assert theory.vanishes("ntil_paper", True)  # nothing else is on the digits


def test_units_and_mass():
    assert theory.unit_free("emd")
    assert theory.unit_free("value_emd_rescaled")
    assert not theory.unit_free("value_emd")
    assert theory.mass("emd") == "none"
    assert theory.mass("emd_gate") == "pulls"
    assert theory.mass("raft") == "either way"


def test_memory():
    """A number loss has no tensor of the logits' size beyond those of cross-entropy; EMO has."""
    assert theory.allocations("emd") == theory.allocations("ce")
    assert theory.allocations("emo") > theory.allocations("ce")
