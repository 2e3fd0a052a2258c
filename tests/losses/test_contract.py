"""What every loss of `conf/loss` promises, whatever it computes; a new config is tested by being there."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ntil import LossOutput, NumberLoss, NumberSpans, NumberVocab
from ntil.config.build import build, locate
from ntil.config.schema import Component
from ntil.losses.step import WHOLE_STEP
from ntil.preflight import compose_checked
from tests.support.chosen import slow_but
from tests.support.losses import loss_configs

IDS = [7, 3, 5, 11, 2, 13, 17, 19, 23, 29]
SIZE = 31
# 30 stands for a token with several digits, which no text here has.
VOCAB = NumberVocab(IDS, point_ids=4, minus_ids=[6], comma_ids=[8], merged_ids=30)
TABLE = torch.randn(SIZE, 6, generator=torch.Generator().manual_seed(1))
ALL = loss_configs()
# Losses on boxes need spans that name them: tests/losses/test_boxes.py.
KINDS = {name: locate(spec.target, "loss") for name, spec in ALL.items()}
# A regression head is no loss on tokens: tests/losses/test_regression.py.
SPECS = {n: spec for n, spec in ALL.items() if not (KINDS[n].needs_shapes or KINDS[n].reads_numbers)}
# EMO is a loss on every token, not on numbers.
ON_NUMBERS = [name for name in SPECS if name not in ("ce", "ce_smooth", "untrained", "emo")]
# Those whose mean is over numbers, where it isn't over samples.
PER_NUMBER = ("raft", "raft_range", "ntloss_number")
# Those that differ from another in a constant alone.
CONSTANTS = ("dist2_scaled", "soft_label_scaled", "ntloss_was", "ntloss_mse", "raft_range", "ce_smooth", "ntil_no_exp")
BATCHES = [["12:45", "[103, 877]", "7", "abc"], ["3.015 -0.5"], ["a", "1,234 and 9", "-7"], ["", "90"]]


def make(name, **changes) -> NumberLoss:
    spec = SPECS[name]
    silent = {"noise": 0} if "noise" in spec.options else {}
    return built(replace(spec, options={**spec.options, **silent, **changes}), VOCAB, TABLE)


def built(spec: Component, vocab, table) -> NumberLoss:
    return build("loss", spec, vocab=vocab, embeddings=table)


def encode(text):
    return [{".": 4, "-": 6, ",": 8}.get(c, IDS[int(c)] if c.isdigit() else 0) for c in text]


def without_factor(loss):
    """The loss, and each part of a sum, with lam alone."""
    for part in loss.modules():
        if isinstance(part, NumberLoss):
            part.rescale = False
    return loss


def batch(*texts, seed=0, dtype=torch.float32):
    longest = max(map(len, texts))
    labels = torch.tensor([encode(t) + [-100] * (longest - len(t)) for t in texts])
    logits = 2 * torch.randn(*labels.shape, SIZE, generator=torch.Generator().manual_seed(seed))
    return logits.to(dtype), labels


def value_and_gradient(loss, logits, *args, **kwargs):
    logits = logits.clone().requires_grad_()
    out = loss(logits, *args, **kwargs)
    return out, torch.autograd.grad(out.total, logits)[0]


def test_all_the_losses_are_there():
    named = (
        "ce ce_smooth emd ntil ntil_paper ntil_no_exp ntil_no_rel ntil_no_mag ntl_was ntl_mse smmd dist2 soft_label "
        "emo del value_emd value_emd_relative value_emd_log value_emd_rescaled untrained del_released dist2_scaled "
        "soft_label_scaled emd_mass emd_gate ntil_mass value_emd_mass ntloss_was ntloss_mse ntloss_squash "
        "ntloss_number raft raft_range coordexp coordexp_gate box_iou box_iou_mass sum "
        "regression_head"
    )
    assert set(ALL) >= set(named.split())


@pytest.mark.parametrize("name", ON_NUMBERS)
def test_without_numbers_it_is_exactly_cross_entropy(name):
    logits, labels = batch("ab, ", "c.-")
    out, gradient = value_and_gradient(make(name), logits, labels)
    plain, expected = value_and_gradient(_plain, logits, labels)
    assert torch.equal(out.total, plain.total)
    assert torch.equal(gradient, expected)
    assert len(out.components) >= 4
    assert all(value == 0 for key, value in out.components.items() if not key.endswith(("ce", "factor")))


def _plain(logits, labels):
    return LossOutput(F.cross_entropy(logits.flatten(0, 1), labels.flatten()), {})


@pytest.mark.parametrize("name", SPECS)
def test_a_batch_with_nothing_to_learn_is_zero(name):
    labels = torch.full((2, 3), -100)
    out, gradient = value_and_gradient(make(name), torch.randn(2, 3, SIZE), labels)
    assert out.total == 0
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", SPECS)
def test_a_batch_of_no_samples_is_zero(name):
    loss, labels = make(name), torch.zeros(0, 3, dtype=torch.long)
    for info in (WHOLE_STEP, loss.step_info([labels])):
        out = loss(torch.randn(0, 3, SIZE), labels, info=info)
        assert out.total == 0
        assert all(value == 0 for key, value in out.components.items() if not key.endswith("factor"))


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_give_the_float32_value_and_gradient(name, dtype):
    logits, labels = batch("12:45", "3.5", "1037", dtype=dtype)
    half, gradient = value_and_gradient(make(name), logits, labels)
    exact, expected = value_and_gradient(make(name), logits.float(), labels)
    assert half.total.dtype == torch.float32
    assert torch.equal(half.total, exact.total)
    assert half.components == exact.components
    assert torch.equal(gradient, expected.to(dtype))


@pytest.mark.parametrize("name", SPECS)
def test_autocast_changes_nothing(name):
    logits, labels = batch("12:45", "3.5")
    expected = make(name)(logits, labels)
    with torch.autocast("cpu", torch.bfloat16):
        found = make(name)(logits, labels)
    assert found.components == expected.components
    assert torch.equal(found.total, expected.total)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("texts", BATCHES)
def test_a_batch_is_what_its_samples_give_alone(name, texts):
    """Each without its padding; CE is a mean over tokens, terms as the loss's `reduction` says."""
    loss = make(name)
    logits, labels = batch(*texts)
    whole = loss(logits, labels).components
    alone = [loss(logits[i : i + 1, : len(t)], labels[i : i + 1, : len(t)]) for i, t in enumerate(texts)]
    tokens = torch.tensor([float(len(t)) for t in texts])
    spans = [NumberSpans.find(torch.tensor(encode(t), dtype=torch.long), VOCAB, loss.number_style) for t in texts]
    per = "is_number" if name in PER_NUMBER else "is_digit"
    counts = {
        "sample": torch.ones(len(texts)),
        "token": tokens,
        "batch": torch.tensor([float(getattr(s, per).sum()) for s in spans]) if name != "emo" else tokens,
    }
    for key in _means(whole):
        share = counts[loss.reduction] if key != "ce" else tokens
        value = (torch.stack([out.components[key] for out in alone]) * share).sum() / share.sum().clamp(min=1)
        torch.testing.assert_close(whole[key], value, msg=f"{key}: {whole[key]} {value}")


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("texts", BATCHES)
def test_micro_batches_with_the_counts_of_the_step_add_up_to_it(name, texts):
    """Value and gradient; a rescaled loss only without its factor, which needs the CE and aux of the whole step."""
    loss = without_factor(make(name))
    logits, labels = batch("00", *[f"0{t}" for t in texts])  # shifted below, so that the 0 is no label
    whole, expected = value_and_gradient(loss, logits, labels, shift=True)
    info = loss.step_info([labels[:2], labels[2:]], shift=True)
    parts = [value_and_gradient(loss, logits[c], labels[c], shift=True, info=info) for c in (slice(2), slice(2, None))]
    torch.testing.assert_close(sum(out.total for out, _ in parts), whole.total)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), expected)
    for key in _means(whole.components):
        torch.testing.assert_close(sum(out.components[key] for out, _ in parts), whole.components[key])


@pytest.mark.parametrize("name", [name for name in SPECS if make(name).needs_reference])
def test_micro_batches_of_a_rescaled_loss_add_up_with_the_reference_of_the_step(name):
    loss = make(name)
    logits, labels = batch("12:45", "[103, 877]", "a", "7")
    whole, expected = value_and_gradient(loss, logits, labels)
    cuts = slice(1), slice(1, None)
    info = loss.step_info([labels[c] for c in cuts])
    means = [loss.parts(logits[c], labels[c], info=info) for c in cuts]
    reference = sum(loss.reference(m, logits[c], labels[c], info=info) for m, c in zip(means, cuts, strict=True))
    parts = [value_and_gradient(loss, logits[c], labels[c], info=replace(info, reference=reference)) for c in cuts]
    torch.testing.assert_close(sum(out.total for out, _ in parts), whole.total)
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), expected)
    for part, (out, _) in zip(means, parts, strict=True):
        assert torch.equal(loss.join(part, reference).total, out.total)
        for key in set(whole.components) - _means(whole.components):
            torch.testing.assert_close(out.components[key], whole.components[key])


@pytest.mark.parametrize("name", SPECS)
def test_selected_positions_equal_the_padded_batch(name):
    logits, labels = batch("12:45", "3.5 and 17", "x", "-0.07")
    loss = make(name)
    spans = NumberSpans.find(labels, VOCAB, loss.number_style)
    keep = labels.flatten() != -100
    full, picked = loss(logits, labels), loss(logits.flatten(0, 1)[keep], labels.flatten()[keep], spans.select(keep))
    torch.testing.assert_close(picked.total, full.total)
    for key in full.components:
        torch.testing.assert_close(picked.components[key], full.components[key])


@pytest.mark.parametrize("name", SPECS)
def test_shift_is_the_hugging_face_convention(name):
    logits, labels = batch("912:45", "8")
    assert torch.equal(make(name)(logits[:, :-1], labels[:, 1:]).total, make(name)(logits, labels, shift=True).total)


@pytest.mark.parametrize("name", SPECS)
def test_four_hundred_digits_and_masked_logits_stay_finite(name):
    logits, labels = batch("9" * 400, "0." + "0" * 90 + "1")
    logits[..., [0, 30]] = -torch.inf  # as a vocabulary padded to a round size has it
    labels[labels == 0] = -100
    out, gradient = value_and_gradient(make(name), logits, labels)
    # Smoothing gives every token a share, so a masked one costs infinitely much by definition.
    assert torch.isfinite(out.total) != (name == "ce_smooth")
    assert torch.isfinite(gradient).all()


class OnAnotherDevice(TorchDispatchMode):
    """Copies between the meta device and the CPU. On `meta` no operator can depend on a value: item() and nonzero() of
    a meta tensor raise, so what runs there makes no GPU wait."""

    def __init__(self):
        super().__init__()
        self.copies = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and isinstance(args[0] if args else None, torch.Tensor):
            devices = {args[0].device.type, out.device.type}
            if len(devices) > 1:
                self.copies.append(str(func))
        return out


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("found", [True, False], ids=["spans given", "spans found"])
def test_nothing_waits_for_the_host(name, found):
    """Forward, components and backward, traced on a device that has no values to read."""
    vocab = NumberVocab(IDS, point_ids=4, minus_ids=[6], comma_ids=[8], merged_ids=30)
    loss = built(SPECS[name], vocab, TABLE.to("meta"))
    labels = torch.empty(3, 8, dtype=torch.long, device="meta")
    spans = NumberSpans.find(labels, vocab, loss.number_style) if found else None
    logits = torch.empty(3, 8, SIZE, device="meta", requires_grad=True)
    loss(logits, labels, spans)  # moves its own few constants, once
    with OnAnotherDevice() as seen:
        out = loss(logits, labels, spans)
        out.total.backward()
    assert seen.copies == []
    assert all(isinstance(c, torch.Tensor) and c.device.type == "meta" for c in out.components.values())
    assert not any(c.requires_grad for c in out.components.values())


def test_the_trace_would_see_a_wait():
    with OnAnotherDevice() as seen:
        torch.ones(2).to("meta")
    assert seen.copies
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(2, device="meta").sum().item()
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.empty(2, device="meta").nonzero()


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in SPECS if name not in CONSTANTS])
def test_one_graph_takes_value_and_gradient(name):
    """Spans found inside; the backend runs the graph as it is, so this is about breaks, not about kernels."""
    logits, labels = batch("12:45", "3.5", "-1,234")
    torch._dynamo.reset()
    loss = make(name)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (out, gradient), (expected, plain) = (value_and_gradient(f, logits, labels) for f in (compiled, make(name)))
    torch.testing.assert_close(out.total, expected.total)
    torch.testing.assert_close(gradient, plain)
    for key, value in expected.components.items():
        torch.testing.assert_close(out.components[key], value)


def _terms(out):
    return (value for key, value in out.components.items() if not key.endswith(("ce", "aux", "factor")))


def _means(components):
    return {key for key in components if not key.endswith("factor")}


# SMMD by its definition and soft labels by theirs do not tell all distances apart.
STRICT_UP_TO = {
    "smmd": 4,
    "dist2": 3,
    "dist2_scaled": 3,
    "soft_label": 3,
    "soft_label_scaled": 3,
    "soft_label_triangular": 1,
}
# The relative error of `ntloss_number` divides by the sum of both: of 0 all wrong digits are off by 1.
UNORDERED = {"ce", "ce_smooth", "untrained", "emo", "del", "del_released", "ntloss_number"}


@pytest.mark.parametrize("name", [n for n in SPECS if n not in UNORDERED])
@pytest.mark.parametrize("gold", range(10))
def test_for_every_gold_digit_costs_sort_by_distance(name, gold):
    loss = make(name)
    labels = torch.tensor([[IDS[gold]]])
    costs = []
    for guess in range(10):
        logits = torch.zeros(1, 1, SIZE, dtype=torch.float64)
        logits[..., IDS[guess]] = 12.0
        out = loss(logits, labels)
        costs.append((out.total if name.startswith("soft") else next(_terms(out))).item())
    far = STRICT_UP_TO.get(name, 9)
    for a, b in itertools.permutations(range(10), 2):
        if abs(a - gold) < abs(b - gold) and abs(a - gold) <= far:
            assert costs[a] < costs[b], (a, b)
        elif abs(a - gold) < abs(b - gold) and name != "smmd":
            assert costs[a] <= costs[b] + 1e-12, (a, b)


@pytest.mark.parametrize("part", ["relative", "magnitude"])
@pytest.mark.parametrize("gold", range(10))
def test_value_terms_of_ntil_sort_by_distance_on_each_side(part, gold):
    """Not across sides: over max(X, Y), 2 for 5 is further off than 9 for 5."""
    labels = torch.tensor([[IDS[gold]]])
    costs = []
    for guess in range(10):
        logits = torch.zeros(1, 1, SIZE).index_fill(2, torch.tensor([IDS[guess]]), 9.0)
        costs.append(make("ntil")(logits, labels).components[part].item())
    assert costs[gold] == 0
    assert costs[: gold + 1] == sorted(costs[: gold + 1], reverse=True)
    assert costs[gold:] == sorted(costs[gold:])
    assert len(set(costs)) == 10 or gold in range(1, 9)


@pytest.mark.parametrize("name", ["value_emd", "value_emd_relative", "value_emd_log"])
@pytest.mark.parametrize("gold", [0, 95, 409, 500, 999])
def test_value_losses_sort_whole_numbers_by_distance(name, gold):
    """Where digits are far apart but numbers are near: 499 for 500 costs less than 510 for 500."""
    text = f"{gold:03}"
    costs = {}
    for guess in range(0, 1000, 7):
        logits = torch.zeros(1, 3, SIZE, dtype=torch.float64)
        for place, digit in enumerate(f"{guess:03}"):
            logits[0, place, IDS[int(digit)]] = 40.0
        costs[guess] = make(name)(logits, torch.tensor([encode(text)])).components["value"].item()
    ordered = sorted(costs, key=lambda g: abs(g - gold))
    for near, far in itertools.pairwise(ordered):
        assert costs[near] <= costs[far] * (1 + 1e-9) + 1e-9
    assert costs[ordered[-1]] > costs[ordered[0]]


@pytest.mark.parametrize(("name", "same"), [("value_emd_rescaled", True), ("value_emd", False)])
def test_a_rescaled_value_emd_does_not_know_the_unit(name, same):
    """0.51 and 051 are the same digits, a hundred times further apart."""
    digits = torch.randn(3, SIZE, generator=torch.Generator().manual_seed(3))
    other = torch.zeros(1, SIZE)
    hundredths, units = torch.cat([digits[:1], other, digits[1:]]), torch.cat([digits, other])
    (one, g1), (two, g2) = (
        value_and_gradient(make(name), logits[None], torch.tensor([encode(text)]))
        for logits, text in ((hundredths, "0.51"), (units, "051a"))
    )
    assert two.components["value"].item() == pytest.approx(100 * one.components["value"].item(), rel=1e-5)
    assert torch.allclose(g1[0, [0, 2, 3]], g2[0, :3], rtol=1e-4, atol=1e-7) == same
    assert (one.total.item() == pytest.approx(two.total.item(), rel=1e-5)) == same


# Straight-through terms have no derivative to check, and the factor is a constant to the gradient.
@pytest.mark.parametrize("name", slow_but(("ce", "ntil", "emd", "ntl_was", "value_emd_rescaled", "raft"), SPECS))
def test_gradcheck(name):
    smooth = {"rel": False, "mag": False} if name.startswith("ntil") else {}
    loss = without_factor(make(name, **smooth))
    if name == "emo":
        loss.embeddings = TABLE.double()
    logits, labels = batch("12.5", "-7a", dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, labels).total, (logits.requires_grad_(),), atol=1e-6)


@pytest.mark.parametrize("form", ["relative", "magnitude"])
def test_the_straight_through_gradient_is_that_of_the_softmax_at_its_temperature(form):
    """d cost / d X at the hard X, times d (sum_k soft_k k) / d logits: written out by the chain rule."""
    logits, labels = batch("58", dtype=torch.float64)
    weights = {"alpha": float(form == "relative"), "beta": float(form == "magnitude"), "digit_weight": 0.0}
    loss = make("ntil", temperature=0.7, **weights)
    loss.rescale, loss.lam, loss.ce_weight = False, 1.0, 0.0
    _, gradient = value_and_gradient(loss, logits, labels)
    z = logits[0][:, IDS]
    x, y = 10.0 * z[0].argmax().item() + z[1].argmax().item(), 58.0
    assert x != y
    slope = {
        "relative": (y + 1) / (x + 1) ** 2 if x > y else -1 / (y + 1),
        "magnitude": math.copysign(1 / (x + 1), x - y),
    }
    for place, scale in ((0, 10.0), (1, 1.0)):
        p = (z[place] / 0.7).softmax(-1)
        mean = sum(k * p[k] for k in range(10))
        expected = torch.stack([slope[form] * scale * p[k] * (k - mean) / 0.7 for k in range(10)])
        torch.testing.assert_close(gradient[0, place, IDS], expected)


@pytest.mark.parametrize("name", SPECS)
def test_location_bins_are_an_alphabet_like_any_other(name):
    """1,024 ordered tokens, each a number of its own, as PaliGemma's boxes have them."""
    bins = NumberVocab(range(100, 100 + 1024), one_place=True)
    loss = built(SPECS[name], bins, torch.randn(1200, 4))
    labels = torch.tensor([[112, 1123, 100, 613, 5], [5, 400, -100, -100, -100]])
    right = torch.zeros(2, 5, 1200).scatter(2, labels.clamp(min=0)[..., None], 30.0)
    near = torch.zeros(2, 5, 1200).scatter(
        2, (labels + (labels >= 100) * (labels < 1123)).clamp(min=0)[..., None], 30.0
    )
    for logits in (right, near):
        out, gradient = value_and_gradient(loss, logits, labels)
        assert torch.isfinite(out.total)
        assert torch.isfinite(gradient).all()
    if name in ("emd", "ntil", "ntl_was", "value_emd"):
        key = "value" if name == "value_emd" else "digit"
        mean = {"ntl_was": 4 / 5}.get(name, (3 / 4 + 1) / 2)  # one bin off each, but for the last bin
        assert loss(near, labels).components[key].item() == pytest.approx(mean, rel=1e-3)


def test_switches_of_the_command_line_are_the_ablations():
    logits, labels = batch("120, 45", "3.5")
    for switch, ablation in (("exp", "ntil_no_exp"), ("rel", "ntil_no_rel"), ("mag", "ntil_no_mag")):
        config = compose_checked(["loss=ntil", f"loss.{switch}=false", "loss.noise=0"])
        switched = build("loss", config.loss, vocab=VOCAB)(logits, labels)
        named, whole = make(ablation)(logits, labels), make("ntil")(logits, labels)
        assert switched.components == named.components
        assert switched.components["aux"] < whole.components["aux"]
        # A term that is switched off is still in the log.
        assert switched.components.keys() == whole.components.keys()


def test_label_smoothing_is_that_of_torch_on_supervised_tokens():
    logits, labels = batch("12:45", "3")
    keep = labels.flatten() != -100
    expected = F.cross_entropy(logits.flatten(0, 1)[keep], labels.flatten()[keep], label_smoothing=0.3)
    torch.testing.assert_close(make("ce_smooth")(logits, labels).total, expected)


@pytest.mark.parametrize("name", SPECS)
def test_selected_positions_are_one_sample_of_a_step(name):
    """Logits [N, V] with labels [N], as a trainer selects them: the count of a step has them as one sample too."""
    loss = make(name)
    logits, labels = (tensor[0] for tensor in batch("a[12, 3]"))
    info = loss.step_info([labels])
    torch.testing.assert_close(loss(logits, labels, info=info).total, loss(logits, labels).total)
