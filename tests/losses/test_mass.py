"""What mass off the digits costs: against sums over the whole vocabulary, CoordExp's gate, and PyPI `ntloss`."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from ntil import NumberSpans, NumberVocab
from ntil.config.build import build, check_component
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.losses import DEL, DIST2, EMD, NTIL, NTL, SMMD, NTLNumber, NumberLoss, ValueEMD
from ntil.losses.mass import MassOptions
from tests.support.chosen import slow_but

IDS = [7, 3, 5, 11, 2, 13, 17, 19, 23, 29]
SIZE = 31
VOCAB = NumberVocab(IDS, point_ids=[4], minus_ids=[6])
LARGEST: MassOptions = {"mass": "largest"}


def encode(text):
    return [{".": 4, "-": 6}.get(c, IDS[int(c)] if c.isdigit() else 0) for c in text]


def batch(*texts, seed=0, scale=1.5):
    longest = max(map(len, texts))
    labels = torch.tensor([encode(t) + [-100] * (longest - len(t)) for t in texts])
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*labels.shape, SIZE, generator=generator, dtype=torch.float64), labels


def rows(logits, labels):
    """True digit and the whole softmax as a list, of every digit label."""
    for row, label in zip(logits.reshape(-1, SIZE), labels.reshape(-1).tolist(), strict=True):
        if label in IDS:
            yield IDS.index(label), row.softmax(-1).tolist()


def test_emd_under_the_whole_softmax_has_every_other_token_as_far_as_the_farthest_digit():
    logits, labels = batch("7,2", "a9", "0")
    far = {token: IDS.index(token) if token in IDS else None for token in range(SIZE)}
    costs = [sum(q[t] * (9 if k is None else abs(k - y)) for t, k in far.items()) for y, q in rows(logits, labels)]
    out = NTL(VOCAB, **LARGEST)(logits, labels)
    assert out.components["digit"].item() == pytest.approx(sum(costs) / len(costs), rel=1e-6)
    per_sample = EMD(VOCAB, **LARGEST)(logits, labels).components["digit"].item()
    assert per_sample == pytest.approx(((costs[0] + costs[1]) / 2 + costs[2] + costs[3]) / 3, rel=1e-6)


def test_a_value_loss_is_the_expectation_over_readable_and_unreadable_numbers():
    logits, labels = batch("42", scale=2.5)
    q = [q for _, q in rows(logits, labels)]
    expected = 0.0
    for tokens in itertools.product(range(SIZE), repeat=2):
        digits = [IDS.index(t) for t in tokens if t in IDS]
        distance = abs(10 * digits[0] + digits[1] - 42) if len(digits) == 2 else 99
        expected += q[0][tokens[0]] * q[1][tokens[1]] * distance
    found = ValueEMD(VOCAB, **LARGEST)(logits, labels).components["value"].item()
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make", [NTL, EMD, SMMD, ValueEMD, partial(NTIL, noise=0), DIST2, DEL])
def test_a_gate_is_minus_the_log_of_the_mass_on_digits(make):
    logits, labels = batch("42", "a7.5")
    gates = [-math.log(sum(q[t] for t in IDS)) for _, q in rows(logits, labels)]
    loss = make(VOCAB, mass="gate", mass_weight=5.0)
    out, plain = loss(logits, labels).components, make(VOCAB)(logits, labels).components
    means = {"batch": sum(gates) / 4, "sample": ((gates[0] + gates[1]) / 2 + (gates[2] + gates[3]) / 2) / 2}
    assert out["gate"].item() == pytest.approx(means[loss.reduction], rel=1e-6)
    assert (out["aux"] - plain["aux"]).item() == pytest.approx(5 * means[loss.reduction], rel=1e-5)


def test_kl_with_the_gate_is_kl_to_the_whole_softmax():
    logits, labels = batch("5")
    q = torch.softmax(-((torch.arange(10.0, dtype=torch.float64) - 5) ** 2), -1)
    expected = (q * (q.log() - logits[0, 0].log_softmax(-1)[IDS])).sum()
    out = DIST2(VOCAB, mass="gate")(logits, labels).components
    assert out["aux"].item() == pytest.approx(expected.item(), rel=1e-6)


BOUNDED: dict[str, Callable[..., NumberLoss]] = {
    "was": NTL,
    "mse": partial(NTL, cost="mse"),
    "squash": partial(NTL, squash=3.0),
    "number": NTLNumber,
    "smmd": SMMD,
    "value": ValueEMD,
    "log": partial(ValueEMD, form="log"),
    "relative": partial(ValueEMD, form="relative"),
    "ntil": partial(NTIL, noise=0),
}


@pytest.mark.parametrize("make", BOUNDED.values(), ids=BOUNDED)
def test_leaving_the_digits_costs_more_the_more_mass_leaves_and_at_last_the_largest_cost(make):
    """And the gradient brings it back, which that of the digits' softmax alone doesn't."""
    loss, plain = make(VOCAB, **LARGEST), make(VOCAB)
    seen = []
    for gap in (0.0, 4.0, 8.0, 60.0):
        logits = torch.zeros(1, 1, SIZE, dtype=torch.float64)
        logits[0, 0, IDS[4]], logits[0, 0, 30] = 6.0, gap
        z = logits.requires_grad_()
        aux = loss.parts(z, torch.tensor([[IDS[4]]])).aux
        assert torch.autograd.grad(aux, z)[0][0, 0, 30] > 0 or gap == 60
        seen.append(aux.item())
        assert not torch.autograd.grad(plain.parts(z, torch.tensor([[IDS[4]]])).aux, z)[0][0, 0, 30]
    assert seen == sorted(seen)
    costs = []
    for k in range(10):
        logits = torch.full((1, 1, SIZE), -90.0, dtype=torch.float64)
        logits[0, 0, IDS[k]] = 0.0
        costs.append(loss.parts(logits, torch.tensor([[IDS[4]]])).aux.item())
    assert 0 < max(costs) <= seen[-1] * (1 + 1e-6)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("mass", slow_but(["gate"], ["largest", "gate"]))
def test_gradcheck(name, mass):
    logits, labels = batch("12.5", "-7a")
    smooth = {"rel": False, "mag": False} if name == "ntil" else {}
    loss = BOUNDED[name](VOCAB, mass=mass, mass_weight=1.01, **smooth)
    loss.rescale = False
    assert torch.autograd.gradcheck(lambda z: loss(z, labels).total, (logits.requires_grad_(),), atol=1e-6)


@pytest.fixture(scope="module")
def their_tokenizer(shared):
    pytest.importorskip("ntloss", reason="the test extra installs ntloss")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "assets/tokenizers/qwen2_5")
    texts = ["boxes [103, 877] at 12:45, 7 of 90", "of 3.25 and 0.07, 12", "no digit"]
    ids = [tokenizer(t, add_special_tokens=False).input_ids for t in texts]
    labels = torch.nn.utils.rnn.pad_sequence([torch.tensor(i) for i in ids], batch_first=True, padding_value=-100)
    generator = torch.Generator().manual_seed(0)
    # Twelve, so that digits have any mass among 150,000 tokens.
    logits = torch.randn(*labels.shape, len(tokenizer), generator=generator)
    logits[..., NumberVocab.from_tokenizer(tokenizer).digit_ids] += 11.0
    return tokenizer, logits, labels


CASES: dict[str, tuple[str, dict[str, Any], Callable[..., NumberLoss], dict[str, Any]]] = {
    "was": ("NTLoss", {}, NTL, {}),
    "squash": ("NTLoss", {"squash_factor": 2.0}, NTL, {"squash": 2.0}),
    "mse": ("NTLossDotProduct", {}, NTL, {"cost": "mse"}),
    "number": ("NumberLevelLoss", {"float_level": False}, NTLNumber, {"number_style": "released"}),
    "float": ("NumberLevelLoss", {"float_level": True}, NTLNumber, {"number_style": "decimal"}),
}


@pytest.mark.parametrize("reweigh", [False, True])
@pytest.mark.parametrize("case", slow_but(("was", "float"), CASES))
def test_it_equals_the_published_package_in_value_and_gradient(their_tokenizer, case, reweigh):
    import ntloss

    kind, options, make, ours = CASES[case]
    tokenizer, logits, labels = their_tokenizer
    theirs = getattr(ntloss, kind)(tokenizer, vocab_size=len(tokenizer), reweigh=reweigh, **options)
    mass = {"mass": "largest", "mass_weight": 1.01} if reweigh else {}
    loss = make(NumberVocab.from_tokenizer(tokenizer), **ours, **mass)
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    expected, found = theirs(a, labels), loss.parts(b, labels).aux
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    (one,), (two,) = torch.autograd.grad(expected, a), torch.autograd.grad(found, b)
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(two, one, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["ntloss_was", "ntloss_mse", "ntloss_squash", "ntloss_number", "emd_mass", "emd_gate"])
def test_configs_are_what_their_names_say(name):
    loss = build("loss", compose([f"loss={name}"]).loss, vocab=VOCAB)
    assert loss.mass == ("gate" if name == "emd_gate" else "largest")
    assert loss.mass_weight == (1.01 if name.startswith("ntloss") else 1.0)
    assert getattr(loss, "squash", None) == (2.0 if name == "ntloss_squash" else None)


def test_a_key_of_it_is_set_on_the_command_line_and_checked():
    config = compose(["loss=emd", "loss.mass=largest", "loss.mass_weight=2"])
    loss = build("loss", config.loss, vocab=VOCAB)
    assert (loss.mass, loss.mass_weight) == ("largest", 2)
    with pytest.raises(ConfigError, match=r"loss\.mass=all"):
        check_component("loss", compose(["loss=emd", "loss.mass=all"]).loss)
    with pytest.raises(ConfigError, match=r"loss\.mas\b.*mass"):
        check_component("loss", compose(["loss=emd", "+loss.mas=gate"]).loss)
    with pytest.raises(ConfigError, match="needs a `mass`"):
        build("loss", compose(["loss=emd", "loss.mass_weight=2"]).loss, vocab=VOCAB)
    with pytest.raises(ConfigError, match="DIST2: mass must be gate, got 'largest'"):
        build("loss", compose(["loss=dist2", "loss.mass=largest"]).loss, vocab=VOCAB)


def test_where_no_digit_is_mass_costs_nothing():
    logits, labels = batch("ab")
    spans = NumberSpans.find(labels, VOCAB)
    for mass in ("largest", "gate"):
        parts = EMD(VOCAB, mass=mass).parts(logits, labels, spans)
        assert parts.aux == 0
