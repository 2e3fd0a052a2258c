"""Every baseline against its published package or a slow transcription of its formula; ours against enumeration."""

import itertools
import math
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F

from ntil import NumberVocab
from ntil.losses import CE, DEL, DIST2, EMO, NTIL, NTL, SMMD, SoftLabel, ValueEMD
from ntil.losses.base import NumberLoss
from ntil.losses.step import LossInputs, Term

IDS = [7, 3, 5, 11, 2, 13, 17, 19, 23, 29]
VOCAB = NumberVocab(IDS, point_ids=[4], minus_ids=[6])
EVERY = {
    "ntil": NTIL(VOCAB, noise=0),
    "ntil_paper": NTIL(VOCAB, preset="paper", noise=0),
    "was": NTL(VOCAB),
    "mse": NTL(VOCAB, cost="mse"),
    "smmd": SMMD(VOCAB),
    "dist2": DIST2(VOCAB),
    "soft": SoftLabel(VOCAB),
    "triangular": SoftLabel(VOCAB, shape="triangular", width=2.0),
    "del": DEL(VOCAB),
    "value": ValueEMD(VOCAB),
    "relative": ValueEMD(VOCAB, form="relative"),
    "log": ValueEMD(VOCAB, form="log"),
}


def encode(text):
    return [{".": 4, "-": 6}.get(c, IDS[int(c)] if c.isdigit() else 0) for c in text]


def batch(*texts, seed=0, dtype=torch.float64, scale=1.0):
    longest = max(map(len, texts))
    labels = torch.tensor([encode(t) + [-100] * (longest - len(t)) for t in texts])
    logits = scale * torch.randn(*labels.shape, 31, generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return logits, labels


def digits(logits, labels):
    """(true digit, its ten logits as a list) of every digit label, one after the other."""
    for row, label in zip(logits.reshape(-1, 31), labels.reshape(-1).tolist(), strict=True):
        if label in IDS:
            yield IDS.index(label), row[IDS].tolist()


def softmax(z):
    e = [math.exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


def smmd(y, z):
    p = softmax(z)
    r = [p[k] - (k == y) for k in range(10)]
    kernel = [[math.exp(-((i - j) ** 2) / 8) for j in range(10)] for i in range(10)]
    sums = [sum(row) for row in kernel]
    a = 1 / (2 * sum(sums) / 10)
    assert a == pytest.approx(0.118199, abs=1e-6)
    whole = [[kernel[i][j] + a * ((i == j) * sums[i] - kernel[i][j]) for j in range(10)] for i in range(10)]
    return sum(r[i] * whole[i][j] * r[j] for i in range(10) for j in range(10))


def dist2(y, z):
    p, q = softmax(z), softmax([-((k - y) ** 2) for k in range(10)])
    return sum(q[k] * math.log(q[k] / p[k]) for k in range(10))


def digit_entropy(y, z):
    p = softmax(z)
    probability = [1 / (1 + math.exp(-v)) for v in z]
    return sum(-math.log(probability[k] if k == y else 1 - probability[k]) * p[k] for k in range(10)) / 10


def was(y, z):
    return sum(p * abs(k - y) for k, p in enumerate(softmax(z)))


def mse(y, z):
    return (y - sum(p * k for k, p in enumerate(softmax(z)))) ** 2


@pytest.mark.parametrize(
    ("name", "cost"), [("was", was), ("mse", mse), ("smmd", smmd), ("dist2", dist2), ("del", digit_entropy)]
)
def test_digit_losses_equal_their_formula(name, cost):
    # One digit a number, so that DEL's place weight is 1.
    logits, labels = batch("7,2", "a9", "0")
    expected = [cost(y, z) for y, z in digits(logits, labels)]
    out = EVERY[name](logits, labels)
    ce = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert out.components["digit"].item() == pytest.approx(sum(expected) / len(expected), rel=1e-6)
    assert out.total.item() == pytest.approx(ce.item() + EVERY[name].lam * sum(expected) / len(expected), rel=1e-6)


def test_del_weighs_places_as_ntil_does():
    logits, labels = batch("123")
    costs = [digit_entropy(y, z) for y, z in digits(logits, labels)]
    expected = (1.2**2 * costs[0] + 1.2 * costs[1] + costs[2]) / 3
    assert EVERY["del"](logits, labels).components["digit"].item() == pytest.approx(expected, rel=1e-6)


def test_del_as_released_weighs_integer_and_decimal_places_as_the_authors_code_does():
    """The weights are what `generate_place` of PolyU-VCLab/DEL at 68c3d4d gives, but for its logarithms in float32."""
    weights = {
        "7": [2.0],
        "123": [6.0, 4.0, 2.0],
        "12.34": [4.0, 2.0, 0.9611687660217285, 0.9423223733901978],
        "0.5": [2.0, 0.9611687660217285],
        "1000.125": [8.0, 6.0, 4.0, 2.0, 0.9611687660217285, 0.9423223733901978, 0.923845648765564],
    }
    loss = DEL(VOCAB, places="released")
    for text, expected in weights.items():
        logits, labels = batch(text)
        costs = [w * digit_entropy(y, z) for w, (y, z) in zip(expected, digits(logits, labels), strict=True)]
        found = loss(logits, labels).components["digit"].item()
        assert found == pytest.approx(sum(costs) / len(costs), rel=1e-6), text
    z = logits.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: loss(t, labels).total, (z,), atol=1e-6)
    with pytest.raises(ValueError, match="places=released"):
        DEL(VOCAB, places="released", sigma=0.2)


@pytest.mark.parametrize("shape", ["gaussian", "triangular"])
def test_soft_labels_equal_cross_entropy_with_the_soft_target(shape):
    logits, labels = batch("12,5", "b0", "99")
    loss = SoftLabel(VOCAB, shape=shape, width=2.0, eta=0.3)
    total = count = 0.0
    for row, label in zip(logits.reshape(-1, 31), labels.reshape(-1).tolist(), strict=True):
        if label == -100:
            continue
        target = F.one_hot(torch.tensor(label), 31).double()
        if label in IDS:
            gaps = [abs(k - IDS.index(label)) for k in range(10)]
            bump = [math.exp(-(g**2) / 8) if shape == "gaussian" else max(0, 1 - g / 2) for g in gaps]
            psi = torch.zeros(31, dtype=torch.float64)
            psi[IDS] = torch.tensor(bump, dtype=torch.float64) / sum(bump)
            target = 0.7 * target + 0.3 * psi
        total, count = total - (target * row.log_softmax(-1)).sum().item(), count + 1
    assert loss(logits, labels).total.item() == pytest.approx(total / count, rel=1e-6)


@pytest.mark.parametrize("options", [{"width": 1.0}, {"width": 0.5}, {"width": 1.0, "scale_width": True}])
def test_a_triangle_over_the_digit_alone_is_refused(options):
    with pytest.raises(ValueError, match="steps wide is the digit alone"):
        SoftLabel(VOCAB, shape="triangular", **options)


def test_emo_equals_its_formula():
    logits, labels = batch("1a", "c2")
    table = torch.randn(31, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    out = EMO(VOCAB, embeddings=table)(logits, labels)
    unit = F.normalize(table, dim=-1)
    q = logits.reshape(-1, 31).softmax(-1)
    emo = (1 - (unit[labels.reshape(-1)] * (q @ unit)).sum(-1)).mean()
    ce = F.cross_entropy(logits.reshape(-1, 31), labels.reshape(-1))
    assert out.components["emo"].item() == pytest.approx(emo.item(), rel=1e-9)
    assert out.total.item() == pytest.approx(ce.item(), rel=1e-6)  # 0.5 CE + 0.5 (CE / emo) emo


@pytest.mark.parametrize("gap", [8.0, 12.0, 14.0])
def test_emo_of_sure_tokens_is_the_same_with_embeddings_in_half_precision(gap):
    generator = torch.Generator().manual_seed(0)
    table = (0.02 * torch.randn(500, 64, generator=generator)).bfloat16()
    labels = torch.randint(0, 500, (2, 8), generator=generator)
    logits = torch.randn(2, 8, 500, generator=generator).scatter(2, labels[..., None], gap)
    half = EMO(VOCAB, embeddings=table)(logits, labels).components
    exact = EMO(VOCAB, embeddings=table.double())(logits.double(), labels).components
    for key in ("emo", "factor"):
        assert half[key].item() == pytest.approx(exact[key].item(), rel=0.02)


@pytest.mark.parametrize("name", ["was", "mse"])
def test_ntl_equals_the_published_package(shared, name):
    ntloss = pytest.importorskip("ntloss", reason="the test extra installs ntloss")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(shared / "assets/tokenizers/qwen2_5")
    ids = tokenizer("boxes [103, 877] at 12:45, 7 of 90", add_special_tokens=False, return_tensors="pt").input_ids
    logits = torch.randn(1, ids.shape[1], len(tokenizer), generator=torch.Generator().manual_seed(0))
    kind = ntloss.NTLoss if name == "was" else ntloss.NTLossDotProduct
    theirs = kind(tokenizer, vocab_size=len(tokenizer), digit_level=True, reweigh=False)(logits, ids)
    ours = NTL(NumberVocab.from_tokenizer(tokenizer), cost=name)(logits, ids).components["digit"]
    torch.testing.assert_close(ours, theirs.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("text", ["7", "42", "103", "3.5", "0.07", "-12"])
def test_value_emd_equals_the_sum_over_all_numbers(text):
    logits, labels = batch(text, scale=2.0)
    unit = 10.0 ** -len(text.partition(".")[2])
    p = [softmax(z) for _, z in digits(logits, labels)]
    true = int("".join(c for c in text if c.isdigit()))
    expected = 0.0
    for guess in itertools.product(range(10), repeat=len(p)):
        chance = math.prod(p[i][k] for i, k in enumerate(guess))
        expected += chance * abs(int("".join(map(str, guess))) - true) * unit
    value = true * unit
    found = {name: EVERY[name](logits, labels).components["value"].item() for name in ("value", "relative", "log")}
    assert found["value"] == pytest.approx(expected, rel=1e-9)
    assert found["relative"] == pytest.approx(expected / (value + unit), rel=1e-9)
    assert found["log"] == pytest.approx(math.log1p(expected / unit), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ntil", "value", "smmd"])
def test_compiles_as_one_graph(name):
    logits, labels = batch("12:45", "3.5", dtype=torch.float32)
    from ntil import NumberSpans

    loss = EVERY[name]
    spans = NumberSpans.find(labels, VOCAB, loss.number_style)

    def total(z):
        return loss(z, labels, spans).total

    torch.testing.assert_close(torch.compile(total, fullgraph=True)(logits), total(logits))


def terms_of(loss: NumberLoss, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, Term]:
    """The terms as the loss computes them on its way to the total."""
    computed: dict[str, Term] = {}
    terms = loss.terms

    def keep(inputs: LossInputs) -> dict[str, Term]:
        computed.update(terms(inputs))
        return computed

    with patch.object(loss, "terms", keep):
        loss(logits, labels)
    return computed


def test_a_confidently_wrong_digit_is_pulled_back_by_value_emd_and_not_by_the_released_value_terms():
    """p(wrong) rises: the straight-through softmax at temperature 0.1 saturates, the expectation does not."""
    released = NTIL(VOCAB, noise=0, digit_weight=0.0, exp=False)
    strength = {}
    for gap in (1.0, 3.0):
        logits, labels = batch("5", scale=0.0)
        logits[0, 0, IDS[9]] = gap
        for name, loss, part in (("released", released, "aux"), ("value", EVERY["value"], "value")):
            z = logits.clone().requires_grad_()
            terms = terms_of(loss, z, labels)
            costs = [t.weight * t.cost.sum() for t in terms.values()] if part == "aux" else [terms[part].cost.sum()]
            cost = torch.stack(costs).sum()
            strength[name, gap] = torch.autograd.grad(cost, z)[0].abs().max().item()
    assert strength["released", 3.0] < 1e-8
    assert strength["value", 3.0] > 0.3


def test_cross_entropy_alone_needs_no_vocabulary():
    logits, labels = batch("12", "a")
    assert CE(None)(logits, labels).total == F.cross_entropy(logits.flatten(0, 1), labels.flatten())
