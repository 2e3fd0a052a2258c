"""The best weights and the average of the weights with several ranks, under torch alone and ZeRO."""

import pytest
import torch
from safetensors.torch import load_file

from ntil.runs.folder import read_json
from tests.support.forked import finish, freeze, start, wait
from tests.support.in_process import stop_at_third_step

WORDS = [
    *("task=arithmetic", "model=qwen25_nano", "loss=ntil", "optim.steps=4", "optim.lr=1e-2", "tuning=lora"),
    *("task.source.rows={train:64,validation:8,test:8}", "evaluation.every_steps=2", "evaluation.test=best"),
    *("optim.patience=9", "save_every=2", "engine.workers=0"),
]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["zero2", "zero3"])
def test_the_best_of_two_ranks_is_that_of_one(tmp_path, engine):
    """SGD: elementwise, so that ZeRO's shares change nothing but the order of sums."""
    words = [
        *WORDS,
        "optim.name=sgd",
        "optim.options={momentum: 0.9}",
        *(["optim.ema=0.5"] if engine == "zero2" else []),
    ]
    one = freeze([*words, "engine=local", f"runs={tmp_path}/one"])
    two = freeze([*words, f"engine={engine}", "engine.processes=2", f"runs={tmp_path}/two"])
    for run in (one, two):
        assert not any(finish(run)), run.error.read_text()
        assert not run.best.exists()
    weights, of_two = (load_file(run.model / "adapter_model.safetensors") for run in (one, two))
    assert weights.keys() == of_two.keys()
    for name, value in weights.items():
        torch.testing.assert_close(of_two[name], value, rtol=1e-3, atol=1e-5)
    figures = [run.read_metrics() for run in (one, two)]
    assert figures[0]["train_best_step"] == figures[1]["train_best_step"]
    assert one.predictions.read_text() == two.predictions.read_text()
    if engine == "zero2":
        cut = freeze([*words, "engine=zero2", "engine.processes=2", f"runs={tmp_path}/cut"])
        assert wait(start(cut, before=stop_at_third_step)) == [130, 130]
        assert (cut.checkpoints / "checkpoint-3").exists()
        assert not any(finish(cut)), cut.error.read_text()
        resumed = load_file(cut.model / "adapter_model.safetensors")
        assert all(torch.equal(resumed[name], value) for name, value in of_two.items())
        assert read_json(cut.trained)["best"] == read_json(two.trained)["best"]
