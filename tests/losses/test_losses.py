import math
from typing import Any

import pytest
import torch

from ntil import CE, DEL, EMD, EMO, NTIL, NTL, NumberVocab, StepInfo, Sum, ValueEMD
from ntil.config.errors import ConfigError
from ntil.losses import RAFT, CoordExp
from ntil.losses.base import NumberLoss
from ntil.losses.noise import gumbel_like
from ntil.preflight import compose_checked

VOCAB = NumberVocab([7, 3, 5, 11, 2, 13, 17, 19, 23, 29], point_ids=[4], minus_ids=[6])
LOSSES = {"ce": CE(VOCAB), "emd": EMD(VOCAB), "ntil": NTIL(VOCAB, noise=0)}


def encode(text):
    return [{".": 4, "-": 6}.get(c, VOCAB.digit_ids[int(c)] if c.isdigit() else 0) for c in text]


def batch(*texts, seed=0, dtype=torch.float32):
    longest = max(map(len, texts))
    labels = torch.tensor([encode(t) + [-100] * (longest - len(t)) for t in texts])
    logits = torch.randn(*labels.shape, 31, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return logits.to(dtype), labels


def test_noise_has_a_generator_of_its_own():
    logits, labels = batch("123")
    before = torch.get_rng_state()
    first = NTIL(VOCAB, noise=5.0, seed=1)(logits, labels).components["relative"]
    assert torch.equal(before, torch.get_rng_state())
    assert first == NTIL(VOCAB, noise=5.0, seed=1)(logits, labels).components["relative"]
    others = [NTIL(VOCAB, noise=5.0, seed=s)(logits, labels).components["relative"] for s in range(2, 8)]
    assert any(first != other for other in others)


def test_the_nth_draw_depends_on_the_seed_and_n_alone():
    """So that a resumed run, or one whose loss was called for a look in between, draws what it would have drawn."""
    logits, labels = batch("123")

    def relative(loss, draw):
        return loss(logits, labels, info=StepInfo(draw=draw)).components["relative"]

    one, other = NTIL(VOCAB, noise=5.0), NTIL(VOCAB, noise=5.0)
    first, second = (relative(one, draw) for draw in range(2))
    assert relative(one, 0) == one(logits, labels).components["relative"] == first
    torch.manual_seed(7)
    torch.rand(3)
    assert relative(other, 1) == second
    assert relative(other, 0) == first
    assert any(relative(one, draw) != first for draw in range(1, 8))


def test_the_noise_is_gumbels():
    """Mean 0.5772, variance pi^2 / 6; the tenth, half and nine tenths are where -log(-log u) has them."""
    drawn = gumbel_like(torch.empty(1000, 200), seed=3, draw=0, first=0, rows=0)
    assert drawn.mean().item() == pytest.approx(0.5772, abs=0.01)
    assert drawn.var().item() == pytest.approx(torch.pi**2 / 6, abs=0.03)
    u = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(drawn.flatten()[:100_000].quantile(u), -torch.log(-torch.log(u)), atol=0.02, rtol=0)


def test_the_noise_of_a_step_does_not_depend_on_how_it_is_cut():
    def noise(rows, draw, first, whole):
        return gumbel_like(torch.empty(rows, 10), 3, draw, first, whole)

    whole = noise(12, 5, 0, 12)
    parts = [noise(n, 5, first, 12) for first, n in ((0, 5), (5, 1), (6, 6))]
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(noise(12, 5, 0, 0), whole)
    assert not torch.equal(noise(12, 6, 0, 12), whole)


def test_ablation_switches():
    logits, labels = batch("120,45")
    no_exp = NTIL(VOCAB, exp=False, noise=0)(logits, labels).components
    assert no_exp["digit"] == LOSSES["emd"](logits, labels).components["digit"]
    off = NTIL(VOCAB, exp=False, rel=False, mag=False, noise=0)(logits, labels)
    torch.testing.assert_close(off.components["aux"], LOSSES["emd"](logits, labels).components["aux"])


@pytest.mark.parametrize("sigma", [0.2, 1.5, 9.0])
@pytest.mark.parametrize("make", [lambda s: NTIL(VOCAB, sigma=s), lambda s: DEL(VOCAB, sigma=s)])
def test_places_of_a_long_run_weigh_finitely(make, sigma):
    logits, labels = batch("1234567890" * 15)
    logits.requires_grad_()
    out = make(sigma)(logits, labels)
    (gradient,) = torch.autograd.grad(out.total, logits)
    assert out.total.isfinite()
    assert gradient.isfinite().all()


def test_terms_are_not_rescaled_by_cross_entropy_without_their_digits():
    with pytest.raises(ValueError, match="would fade with the rest"):
        NTIL(VOCAB, replace_ce=True)
    parts: dict[str, NumberLoss] = {"emd": EMD(VOCAB), "raft": RAFT(VOCAB)}
    with pytest.raises(ValueError, match="set replace_ce=false"):
        Sum(VOCAB, parts=parts, replace_ce=True)
    with pytest.raises(ValueError, match="set replace_ce=false"):
        Sum(VOCAB, parts={"raft": RAFT(VOCAB)}, balance="grad_norm")


def test_a_preset_that_does_nothing_is_refused():
    paper: dict[str, Any] = {"lam": 1.0, "rescale": False, "replace_ce": True, "number_style": "decimal"}
    with pytest.raises(ValueError, match=r"preset=released does nothing: .* are paper's"):
        NTIL(VOCAB, preset="released", **paper)
    assert NTIL(VOCAB, preset="paper", **paper).lam == NTIL(VOCAB, **paper).lam == 1
    with pytest.raises(ConfigError, match="preset=paper does nothing"):
        compose_checked(["loss=ntil", "loss.preset=paper"])


@pytest.mark.parametrize("words", [{"exp": False, "sigma": 0.5}, {"rel": False, "alpha": 1}, {"mag": False, "beta": 3}])
def test_a_weight_beside_its_switch_turned_off_is_refused(words):
    switch, name = words
    with pytest.raises(ValueError, match=f"{name}={words[name]} does nothing beside {switch}=false"):
        NTIL(VOCAB, **words)
    NTIL(VOCAB, **{switch: False, name: 0})
    NTIL(VOCAB, **{name: words[name]})


@pytest.mark.parametrize(
    ("make", "options"), [(ValueEMD, {"eps": 100.0}), (NTIL, {"noise": 0.0, "seed": 3})], ids=["eps", "seed"]
)
def test_an_option_that_does_nothing_is_refused(make, options):
    with pytest.raises(ValueError, match=r"leave one of them out"):
        make(VOCAB, **options)
    assert ValueEMD(VOCAB, form="log", eps=100.0).eps == 100
    assert NTIL(VOCAB, seed=3).seed == 3


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (NTIL, {"alpha": -0.1}),
        (NTIL, {"beta": -3.0}),
        (NTIL, {"digit_weight": -1.0}),
        (NTIL, {"digit_weight": math.nan}),
        (NTIL, {"digit_weight": 0.0, "alpha": 0.0, "beta": 0.0}),
        (NTIL, {"digit_weight": 0.0, "rel": False, "mag": False}),
        (CoordExp, {"l1_weight": -1.0}),
        (CoordExp, {"l1_weight": 0.0, "ciou_weight": 0.0}),
        (EMO, {"lam": 0.0, "ce_weight": 0.0}),
    ],
)
def test_weights_below_zero_or_all_zero_are_refused(make, options):
    with pytest.raises(ValueError, match=r"must be >= 0, and one of them above 0"):
        make(VOCAB, **options)


def test_a_weight_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="need lam >= 0"):
        NTL(VOCAB, lam=math.nan)
    with pytest.raises(ValueError, match="mass_weight"):
        NTL(VOCAB, mass="largest", mass_weight=math.nan)


def test_one_term_of_several_is_enough():
    assert NTIL(VOCAB, digit_weight=0.0, beta=0.0).alpha == 0.2
    assert CoordExp(VOCAB, l1_weight=0.0).ciou_weight == 0.5


def test_wrong_shapes_say_what_was_wrong():
    with pytest.raises(ValueError, match="do not fit labels"):
        LOSSES["ce"](torch.zeros(2, 3, 31), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="needs logits"):
        LOSSES["ce"](torch.zeros(3, 31), torch.zeros(3, dtype=torch.long), shift=True)


def test_gradient_norms_are_those_of_the_weighted_parts():
    loss = NTIL(VOCAB, noise=0.0)
    logits = torch.randn(7, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([3, 5, 1, 11, 2, 13, -100])
    norms = loss.gradient_norms(logits, labels)
    assert norms.keys() == {"ce", "digit", "relative", "magnitude"}
    leaf = logits.clone().requires_grad_()
    (expected,) = torch.autograd.grad(torch.nn.functional.cross_entropy(leaf, labels), leaf)
    torch.testing.assert_close(norms["ce"], expected.norm())
    alone = NTIL(VOCAB, noise=0.0, rel=False, mag=False, rescale=False, lam=1.0)
    total = alone(leaf, labels).total - torch.nn.functional.cross_entropy(leaf, labels)
    factor = loss(logits, labels).components["factor"]
    torch.testing.assert_close(norms["digit"], factor * torch.autograd.grad(total, leaf)[0].norm())
    assert loss.gradient_norms(logits, torch.full_like(labels, 1))["digit"] == 0
