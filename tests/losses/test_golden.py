"""`NTIL` and `EMD` against inputs and outputs of the released code."""

import json
from typing import Any

import pytest
import torch

from ntil import EMD, NTIL, NumberVocab

TOLERANCE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def golden(shared):
    return json.loads((shared / "golden" / "ntil_reference.json").read_text())


def _vocab(golden):
    return NumberVocab([golden["vocab"][str(d)] for d in range(10)])


def _loss(golden, hyper):
    return NTIL(
        _vocab(golden),
        lam=hyper["ntil_lambda"],
        alpha=hyper["abs_alpha"],
        beta=hyper["mag_alpha"],
        sigma=hyper["digit_exp"] - 1,
        digit_weight=hyper["digit_alpha"],
        noise=0,
    )


def test_golden_file_has_cases(golden):
    assert len(golden["cases"]) >= 8


def test_totals_components_and_gradients(golden):
    for case in golden["cases"]:
        logits = torch.tensor(case["logits"], requires_grad=True)
        labels = torch.tensor(case["labels"])
        out = _loss(golden, case["hyper"])(logits, labels)
        expected = {"ce": case["ce"], "aux": case["aux"]}
        for name in ("digit", "relative", "magnitude"):
            expected[name] = sum(s[name] for s in case["per_sample"]) / len(case["per_sample"])
        for name, value in expected.items():
            assert out.components[name].item() == pytest.approx(value, abs=1e-5), (case["name"], name)
        assert out.total.item() == pytest.approx(case["total"], abs=1e-5)
        (gradient,) = torch.autograd.grad(out.total, logits)
        torch.testing.assert_close(gradient.abs().sum(-1), torch.tensor(case["grad_total_row_l1"]), **TOLERANCE)


def test_gradient_of_the_number_terms_alone(golden):
    for case in golden["cases"]:
        logits = torch.tensor(case["logits"], requires_grad=True)
        loss = _loss(golden, case["hyper"])
        loss.rescale, loss.lam = False, 1.0
        out = loss(logits, torch.tensor(case["labels"]))
        ce = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(case["labels"]).flatten())
        (gradient,) = torch.autograd.grad(out.total - ce, logits)
        torch.testing.assert_close(gradient.abs().sum(-1), torch.tensor(case["grad_aux_row_l1"]), **TOLERANCE)


def test_emd_variant(golden):
    """`emd_aux` keeps each case's position weight; the EMD preset (sigma 0) is the case without one."""
    for case in golden["cases"]:
        loss = _loss(golden, {**case["hyper"], "abs_alpha": 0, "mag_alpha": 0})
        logits, labels = torch.tensor(case["logits"]), torch.tensor(case["labels"])
        assert loss(logits, labels).components["aux"].item() == pytest.approx(case["emd_aux"], abs=1e-5), case["name"]
        if case["hyper"]["digit_exp"] == 1:
            emd = EMD(_vocab(golden))(logits, labels)
            assert emd.components["aux"].item() == pytest.approx(case["emd_aux"], abs=1e-5), case["name"]
