"""The meter by itself: what it records, where a process died, and answers of the greatest length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import TrainerControl

from ntil.components import Components
from ntil.config.compose import compose
from ntil.evaluation.generate import generate
from ntil.rehearsal.meter import Meter, Script, communication_seconds, measures_of, unfinished_phase
from ntil.rehearsal.peaks import peak, reset_peak
from ntil.runs.folder import RunFolder
from ntil.train import phases

CONTROL = TrainerControl()


@pytest.fixture
def meter(tmp_path):
    return Meter(RunFolder(tmp_path), 0, Script({}))


def state(step, steps=3) -> Any:
    return SimpleNamespace(global_step=step, max_steps=steps)


def test_a_phase_that_ends_is_measured_and_one_that_dies_is_named(meter):
    with meter.phase("data"):
        pass
    with pytest.raises(MemoryError), meter.phase("evaluation"):
        raise MemoryError
    measures = measures_of(meter.folder)[0]
    assert [m.phase for m in measures] == ["data"]
    assert measures[0].seconds >= 0
    assert measures[0].memory.host > 10**7
    assert unfinished_phase(meter.folder) == "evaluation"


def test_rows_are_those_of_the_script(tmp_path):
    rows = Dataset.from_dict({"id": list("abcdef")})
    meter = Meter(RunFolder(tmp_path), 0, Script({"train": [5, 1, 5], "test": [0]}))
    assert meter.rows("train", rows)["id"][:] == ["f", "b", "f"]
    assert meter.rows("test", rows)["id"][:] == ["a"]


def test_a_script_is_read_as_it_was_written(tmp_path):
    script = Script({"train": [3, 1]}, save_after=2)
    script.write(RunFolder(tmp_path))
    assert Script.read(RunFolder(tmp_path)) == script


def test_phases_of_a_run_are_told_to_listeners(meter, monkeypatch):
    monkeypatch.setattr(phases, "_listeners", [])

    @phases.phase("load")
    def load(value):
        return value + 1

    assert load(1) == 2
    assert measures_of(meter.folder) == {}
    phases.listen(meter)
    assert load(1) == 2
    assert [m.phase for m in measures_of(meter.folder)[0]] == ["load"]
    assert phases.listening_callbacks() == [meter]


def test_the_interruption_is_asked_for_a_step_ahead_and_not_after_a_resume(tmp_path):
    args: Any = SimpleNamespace(world_size=1)
    for began, asks in ((0, True), (2, False)):
        folder = RunFolder(tmp_path / str(began))
        folder.path.mkdir()
        meter = Meter(folder, 0, Script({}, save_after=2))
        meter.on_train_begin(args, state(began), CONTROL, model=torch.nn.Linear(1, 1))
        meter.on_step_begin(args, state(0, 9), CONTROL)
        meter.on_step_end(args, state(1, 9), CONTROL)
        assert folder.stop.exists() is asks


def test_a_loss_that_is_only_tried_ends_after_its_step(tmp_path):
    args: Any = SimpleNamespace(world_size=1)
    meter = Meter(RunFolder(tmp_path), 0, Script({}, end_after=1))
    meter.on_step_begin(args, state(0), CONTROL)
    with pytest.raises(KeyboardInterrupt):
        meter.on_step_end(args, state(1), CONTROL)


@pytest.mark.filterwarnings("ignore:Unfeasible length constraints")
@pytest.mark.parametrize("during", ["validation", "test"])
def test_answers_are_written_to_their_limit(meter, tmp_path, monkeypatch, during):
    """Memory is that of the longest answer, and every night one rambles."""
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    words = ["model=llava_nano", "task=clock", "task.source.rows={train:4}", "curriculum=none"]
    components = Components.build(compose(words))
    model = components.family.load().eval()
    ends = components.family.end_id

    def only_the_end(_module, _args, logits):
        return torch.zeros_like(logits).index_fill(-1, torch.tensor([ends]), 9.0)

    model.get_output_embeddings().register_forward_hook(only_the_end)
    calls: list[int] = []
    model.register_forward_hook(lambda *_: calls.append(1))
    rows = [components.task.rows("train")[0]]
    generate(model, components.collator, rows)
    assert len(calls) == 1
    meter.result("load", model)
    generate(model, components.collator, rows)
    assert len(calls) == 2
    if during == "test":
        meter.result("load trained", model)
    else:
        meter.on_train_begin(None, state(0), CONTROL, model=model)
    generate(model, components.collator, rows)
    assert len(calls) == 2 + components.task.max_new_tokens


def test_peaks_begin_anew():
    reset_peak()
    block = torch.ones(60_000_000)
    with_block = peak().host
    del block
    reset_peak()
    if with_block == peak().host:
        pytest.skip("the kernel's peak can't be reset here")
    assert with_block - peak().host > 200_000_000


def test_communication_is_the_collectives_alone():
    def event(key, cpu, device=0.0):
        return SimpleNamespace(key=key, self_cpu_time_total=cpu, self_device_time_total=device)

    events = [event("gloo:all_reduce", 2e6), event("aten::mm", 9e6), event("ncclDevKernel_AllGather", 5.0, 1e6)]
    profiler: Any = SimpleNamespace(key_averages=lambda: events)
    assert communication_seconds(profiler) == 3.0
