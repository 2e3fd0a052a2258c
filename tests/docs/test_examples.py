"""The examples of `docs/examples` run as they stand, learn, and give one step however it is cut."""

import importlib
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from ntil import NTL, ValueEMD

FOLDER = Path(__file__).parents[2] / "docs/examples"


@pytest.fixture
def example(monkeypatch):
    """Imports an example by name, as `python docs/examples/NAME.py` would find its neighbours."""
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for path in FOLDER.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_plain_torch(example):
    module = example("plain_torch")
    _, history = module.train()
    assert history[-1]["total"] < 0.75 * history[0]["total"]
    assert history[0].keys() == {"total", "ce", "value", "aux"}
    whole, again = module.train(steps=2, batch=16, accumulation=1)
    cut, parts = module.train(steps=2, batch=4, accumulation=4)
    assert parts[0] == pytest.approx(again[0], rel=1e-5)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hf_trainer", "trl_sft"])
def test_trainers(example, tmp_path, name):
    if name == "trl_sft":
        pytest.importorskip("trl", reason="the test extra installs trl")
    module = example(name)
    _, history = module.train(tmp_path)
    losses = [line["loss"] for line in history if "loss" in line]
    assert len(losses) == 40
    assert losses[-1] < 0.75 * losses[0]
    assert any(0 < line.get("eval_loss", 0) < losses[0] for line in history)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hf_trainer", "trl_sft"])
@pytest.mark.parametrize("loss", [partial(ValueEMD, form="log"), NTL], ids=["per sample", "per digit"])
def test_trainers_give_one_step_however_it_is_cut(example, tmp_path, name, loss):
    if name == "trl_sft":
        pytest.importorskip("trl", reason="the test extra installs trl")
    module = example(name)
    whole, logged = module.train(tmp_path, loss, steps=2, batch=8, accumulation=1)
    cut, logged_cut = module.train(tmp_path, loss, steps=2, batch=2, accumulation=4)
    assert logged_cut[0]["loss"] == pytest.approx(logged[0]["loss"], rel=1e-3)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[key], value, atol=2e-5, rtol=1e-3, msg=key)
