"""ZeRO-3 from a checkpoint in bfloat16 on two ranks: adapters, frozen towers, and losses that look at weights."""

import pytest

from ntil.components import Components
from ntil.config.compose import compose
from ntil.runs.checkpoints import complete_checkpoints
from tests.support.forked import finish, freeze

CASES = [("full", "emo"), ("freeze_vision", "ntil"), ("lora", "ntil"), ("lora_all", "ntil"), ("projector", "ntil")]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    family = Components.build(compose(["model=llava_nano"])).family
    family.save(family.load(), folder)
    return folder


def losses(run):
    return [record["loss"] for record in run.read_history() if "loss" in record]


@pytest.mark.slow
@pytest.mark.parametrize(("tuning", "loss"), CASES)
def test_steps_are_those_of_torch_alone(tmp_path, monkeypatch, checkpoint, tuning, loss):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    words = [f"runs={tmp_path}", f"model.checkpoint={checkpoint}", "model.dtype=bfloat16", f"tuning={tuning}"]
    words += [
        f"loss={loss}",
        "optim.steps=3",
        "save_every=2",
        "evaluation.every_steps=2",
        "evaluation.validation_rows=8",
    ]
    runs = [freeze([*words, *engine]) for engine in (["engine=local"], ["engine=zero3", "engine.processes=2"])]
    for run in runs:
        codes = finish(run)
        assert not any(codes), run.error.read_text()
        assert run.done
        assert complete_checkpoints(run.checkpoints)
    alone, spread = map(losses, runs)
    assert len(alone) == 3
    assert spread == pytest.approx(alone, rel=2e-3)
