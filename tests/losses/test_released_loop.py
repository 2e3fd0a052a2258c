"""`NTIL(preset="released")` and `EMD` against the released algorithm as a loop, on random cases of every kind."""

import json
import random
from typing import Any

import pytest
import torch

from benchmarks.released_loop import released_loop
from ntil import EMD, NTIL, NumberSpans, NumberVocab

IDS = [8, 6, 7, 5, 9, 14, 11, 12, 13, 10]
VOCAB = NumberVocab(IDS, point_ids=15, minus_ids=16, comma_ids=17)
SIZE = 24
CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def case(seed):
    """Logits, labels and weights: batches of one, no digit in a sample or at all, ignored labels inside numbers,
    decimals, runs up to seven digits, flat and sharp logits, and numbers that are read right."""
    pick = random.Random(seed)
    labels = torch.full((pick.randint(1, 5), pick.randint(1, 24)), -100)
    for row in labels:
        kind = pick.choice(["mixed", "mixed", "mixed", "long", "no digit", "ignored"])
        for t in range(len(row)):
            if kind == "long":
                row[t] = 18 if t % 8 == 7 else pick.choice(IDS)
            elif kind == "mixed":
                row[t] = pick.choice([*IDS, *IDS, 15, 15, 16, 17, 18, 22, -100, -100])
            elif kind == "no digit":
                row[t] = pick.choice([15, 16, 18, 22, -100])
    spans = NumberSpans.find(labels, VOCAB, "released")
    labels.view(-1)[spans.length > 7] = 22
    if (labels == -100).all():
        labels[0, 0] = 22  # the released code has no cross-entropy to start from
    noise = torch.randn(*labels.shape, SIZE, generator=torch.Generator().manual_seed(seed))
    logits = pick.choice([0.3, 1, 1, 3, 6]) * noise
    right = torch.full((*labels.shape, 1), float(pick.choice([0, 0, 1, 2, 4])))
    logits.scatter_add_(2, labels.clamp(min=0)[..., None], right)
    weights = {"alpha": pick.choice([0.2, 0, 1.0]), "beta": pick.choice([0.2, 0, 0.5]), "sigma": pick.choice([0.2, 0])}
    return (logits * 1e4).round() / 1e4, labels, weights | {"lam": pick.choice([0.3, 1.0])}


def both(ours, logits, labels, **weights):
    """(total, components, gradient) of the loop and of `ours`, the gradients on the whole logits."""
    inputs = [logits.clone().requires_grad_() for _ in range(2)]
    pairs = [released_loop(inputs[0], labels, IDS, **weights), ours(inputs[1], labels)]
    return [(t, c, torch.autograd.grad(t, z)[0]) for z, (t, c) in zip(inputs, pairs, strict=True)]


def same(ours, logits, labels, **weights):
    (total, parts, gradient), (found, found_parts, found_gradient) = both(ours, logits, labels, **weights)
    torch.testing.assert_close(found, total, **CLOSE)
    for name in found_parts.keys() & parts.keys():
        torch.testing.assert_close(found_parts[name], parts[name], **CLOSE, msg=name)
    torch.testing.assert_close(found_gradient, gradient, **CLOSE)
    torch.testing.assert_close(found_gradient.abs().sum(-1), gradient.abs().sum(-1), **CLOSE)


@pytest.mark.parametrize("chunk", range(10))
def test_ntil_on_random_cases(chunk):
    for seed in range(30 * chunk, 30 * chunk + 30):
        logits, labels, weights = case(seed)
        same(NTIL(VOCAB, preset="released", noise=0, **weights), logits, labels, **weights)


def test_emd_on_random_cases():
    for seed in range(1000, 1100):
        logits, labels, weights = case(seed)
        same(EMD(VOCAB, lam=weights["lam"]), logits, labels, lam=weights["lam"], alpha=0, beta=0, sigma=0)


def test_the_call_of_the_readme_with_the_papers_symbols():
    """The whole call, by keyword; its default noise moves the value terms a little, not the digit term."""
    logits, labels, _ = case(4)
    loss = NTIL(
        vocab=NumberVocab(digit_ids=IDS, point_ids=[15], minus_ids=[16]),
        preset="released",
        lam=0.3,
        alpha=0.2,
        beta=0.2,
        sigma=0.2,
        temperature=0.1,
        noise=0.01,
    )
    total, components = loss(logits, labels)
    expected, parts = released_loop(logits, labels, IDS)
    torch.testing.assert_close(total, expected, **CLOSE)
    torch.testing.assert_close(components["digit"], parts["digit"], **CLOSE)
    assert set(components) == {"ce", "aux", "digit", "relative", "magnitude", "factor"}
    torch.testing.assert_close(components["factor"], 0.3 * components["ce"] / components["aux"])


def test_a_number_read_right_has_no_value_term_and_no_pull():
    """Also where the right digit is unsure: hard - soft + soft of the released code is exactly the one-hot."""
    labels = torch.tensor([[IDS[d] for d in (1, 2, 7)]])
    logits = torch.zeros(1, 3, SIZE).scatter(2, labels[..., None], 0.1)
    only_value = {"alpha": 1.0, "beta": 1.0, "digit_weight": 0.0}
    (_, parts, gradient), (_, found, ours) = both(NTIL(VOCAB, noise=0, **only_value), logits, labels, **only_value)
    assert found["relative"] == found["magnitude"] == parts["relative"] == parts["magnitude"] == 0
    torch.testing.assert_close(ours, gradient, **CLOSE)


def test_the_loop_equals_the_golden_values(shared):
    golden = json.loads((shared / "golden" / "ntil_reference.json").read_text())
    ids = [golden["vocab"][str(d)] for d in range(10)]
    for case in golden["cases"]:
        hyper = case["hyper"]
        logits = torch.tensor(case["logits"], requires_grad=True)
        total, parts = released_loop(
            logits,
            torch.tensor(case["labels"]),
            ids,
            hyper["ntil_lambda"],
            hyper["abs_alpha"],
            hyper["mag_alpha"],
            hyper["digit_exp"] - 1,
            hyper["digit_alpha"],
        )
        assert total.item() == pytest.approx(case["total"], abs=1e-5)
        assert parts["aux"].item() == pytest.approx(case["aux"], abs=1e-5)
        gradient = torch.autograd.grad(total, logits)[0].abs().sum(-1)
        torch.testing.assert_close(gradient, torch.tensor(case["grad_total_row_l1"]), **CLOSE)
