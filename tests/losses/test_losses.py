import pytest
import torch
import torch.nn.functional as F

from ntil import CE, EMD, NTIL, NumberSpans, NumberVocab

VOCAB = NumberVocab([7, 3, 5, 11, 2, 13, 17, 19, 23, 29], point_ids=[4], minus_ids=[6])
LOSSES = {"ce": CE(VOCAB), "emd": EMD(VOCAB), "ntil": NTIL(VOCAB, noise=0)}


def encode(text):
    return [{".": 4, "-": 6}.get(c, VOCAB.digit_ids[int(c)] if c.isdigit() else 0) for c in text]


def batch(*texts, seed=0, dtype=torch.float32):
    longest = max(map(len, texts))
    labels = torch.tensor([encode(t) + [-100] * (longest - len(t)) for t in texts])
    logits = torch.randn(*labels.shape, 31, generator=torch.Generator().manual_seed(seed), dtype=torch.float32)
    return logits.to(dtype), labels


@pytest.mark.parametrize("name", ["emd", "ntil"])
def test_without_numbers_the_loss_is_cross_entropy(name):
    logits, labels = batch("ab,", "c  ")
    out = LOSSES[name](logits, labels)
    assert torch.equal(out.total, F.cross_entropy(logits.flatten(0, 1), labels.flatten()))
    assert out.components["digit"] == 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_the_float32_value(name, dtype):
    logits, labels = batch("12:45", "3.5", dtype=dtype)
    exact = LOSSES[name](logits.float(), labels)
    half = LOSSES[name](logits, labels)
    assert torch.equal(half.total, exact.total)
    assert half.total.dtype == torch.float32


@pytest.mark.parametrize("name", ["emd", "ntil"])
def test_components_are_the_mean_of_what_samples_give_alone(name):
    texts = ["12:45", "[103, 877]", "7", "abc"]
    logits, labels = batch(*texts)
    whole = LOSSES[name](logits, labels).components["aux"]
    alone = [LOSSES[name](logits[i : i + 1], labels[i : i + 1]).components["aux"] for i in range(len(texts))]
    torch.testing.assert_close(whole, torch.stack(alone).mean())


@pytest.mark.parametrize("name", LOSSES)
def test_selected_positions_equal_the_padded_batch(name):
    logits, labels = batch("12:45", "3.5 and 17")
    spans = NumberSpans.find(labels, VOCAB, LOSSES[name].number_style)
    keep = labels.flatten() != -100
    full = LOSSES[name](logits, labels)
    picked = LOSSES[name](logits.flatten(0, 1)[keep], labels.flatten()[keep], spans.select(keep))
    torch.testing.assert_close(picked.total, full.total)
    for component in full.components:
        torch.testing.assert_close(picked.components[component], full.components[component])


def test_shift_is_the_hugging_face_convention():
    logits, labels = batch("912:45")
    aligned = LOSSES["ntil"](logits[:, :-1], labels[:, 1:])
    shifted = LOSSES["ntil"](logits, labels, shift=True)
    assert torch.equal(aligned.total, shifted.total)


@pytest.mark.parametrize("gold", range(10))
def test_digit_cost_sorts_by_distance(gold):
    labels = torch.tensor([[VOCAB.digit_ids[gold]]])
    costs = []
    for guess in range(10):
        logits = torch.zeros(1, 1, 31)
        logits[..., VOCAB.digit_ids[guess]] = 12.0
        costs.append(LOSSES["emd"](logits, labels).components["digit"].item())
    assert sorted(range(10), key=costs.__getitem__)[0] == gold
    for a in range(10):
        for b in range(10):
            if abs(a - gold) < abs(b - gold):
                assert costs[a] < costs[b]


def test_noise_has_a_generator_of_its_own():
    logits, labels = batch("123")
    before = torch.get_rng_state()
    first = NTIL(VOCAB, noise=5.0, seed=1)(logits, labels).components["relative"]
    assert torch.equal(before, torch.get_rng_state())
    assert first == NTIL(VOCAB, noise=5.0, seed=1)(logits, labels).components["relative"]
    others = [NTIL(VOCAB, noise=5.0, seed=s)(logits, labels).components["relative"] for s in range(2, 8)]
    assert any(first != other for other in others)


def test_ablation_switches():
    logits, labels = batch("120,45")
    no_exp = NTIL(VOCAB, exp=False, noise=0)(logits, labels).components
    assert no_exp["digit"] == LOSSES["emd"](logits, labels).components["digit"]
    off = NTIL(VOCAB, exp=False, rel=False, mag=False, noise=0)(logits, labels)
    torch.testing.assert_close(off.components["aux"], LOSSES["emd"](logits, labels).components["aux"])


def test_forty_digit_runs_stay_finite():
    logits, labels = batch("9" * 400)
    logits.requires_grad_()
    out = LOSSES["ntil"](logits, labels)
    out.total.backward()
    assert torch.isfinite(out.total)
    assert torch.isfinite(logits.grad).all()


def test_wrong_shapes_say_what_was_wrong():
    with pytest.raises(ValueError, match="do not fit labels"):
        LOSSES["ce"](torch.zeros(2, 3, 31), torch.zeros(2, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="needs logits"):
        LOSSES["ce"](torch.zeros(3, 31), torch.zeros(3, dtype=torch.long), shift=True)


def test_gradcheck_of_the_differentiable_terms():
    _, labels = batch("12.5", "-7")
    spans = NumberSpans.find(labels, VOCAB)
    digits = torch.randn(labels.numel(), 10, dtype=torch.float64, requires_grad=True)
    from ntil.losses.costs import expected_distance

    assert torch.autograd.gradcheck(lambda x: expected_distance(x, spans.digit)[spans.is_digit], digits)


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
