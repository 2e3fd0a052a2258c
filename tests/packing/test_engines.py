"""Packed on two ranks under DeepSpeed, and without packing in one process: the same steps.

A step has all rows, so that its rows are the same in both orders; noise goes by a row's place in the step, so there is
none.
"""

import shutil

import pytest

from tests.support.forked import finish, freeze

RUN = [
    "task=grounding_nano",
    "task.source.questions=4",
    "task.source.rows={train:16,validation:4,test:4}",
    "optim.batch_size=16",
    "optim.steps=2",
    "optim.warmup=0",
    "optim.lr=1e-5",
    "loss=ntil",
    "loss.noise=0",
    "engine.workers=0",
    "save_every=0",
]
CASES = [
    ("llava_nano", "full", 2, "pictures"),
    ("qwen2_vl_nano", "full", 3, "tokens"),
    ("yi_vl_nano", "lora", 3, "pictures"),
    ("llava_nano", "lora_all", 2, "tokens"),
    ("paligemma_nano", "full", 3, "tower"),
]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))


def steps(place, *words):
    run = freeze([*RUN, f"runs={place}", *words])
    assert set(finish(run)) == {0}, run.error.read_text() if run.error.exists() else "no error"
    records = [record for record in run.read_history() if "loss" in record]
    figures = [[record["loss"], record["grad_norm"]] for record in records], run.read_metrics()["ce"]
    shutil.rmtree(run.path)
    return figures


@pytest.mark.slow
@pytest.mark.parametrize(("model", "tuning", "zero", "mode"), CASES)
def test_two_ranks_packed_are_one_process_unpacked(tmp_path, model, tuning, zero, mode):
    words = [f"model={model}", f"tuning={tuning}", "engine.gradient_checkpointing=true"]
    alone, ce = steps(tmp_path / "alone", *words, "engine=local")
    two = [f"engine=zero{zero}", "engine.processes=2", "engine.accumulation=2", f"packing={mode}"]
    ranks, ce_of_ranks = steps(tmp_path / "two", *words, *two)
    assert len(alone) == len(ranks) == 2
    for (loss, norm), (other_loss, other_norm) in zip(alone, ranks, strict=True):
        assert other_loss == pytest.approx(loss, rel=1e-5)
        assert other_norm == pytest.approx(norm, rel=1e-4)
    assert ce_of_ranks == pytest.approx(ce, rel=1e-5)


@pytest.mark.slow
def test_a_packed_run_from_the_first_command_to_its_metrics(tmp_path):
    loss, ce = steps(tmp_path, "model=llava_nano", "packing=pictures", "engine=local", "optim.batch_size=8")
    assert len(loss) == 2
    assert ce > 0
