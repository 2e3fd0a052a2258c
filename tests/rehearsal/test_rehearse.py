"""`ntil rehearse` in the processes of a real run: what passes, and what a night would have died of."""

from __future__ import annotations

import pytest
import yaml

from ntil.cli import main
from ntil.models import inventory
from ntil.rehearsal import perform
from ntil.rehearsal.meter import measures_of
from ntil.runs.folder import find_runs
from tests.rehearsal.test_weights import small_facts
from tests.support.runs import TINY_RUN

NANO = [
    *TINY_RUN,
    "model=llava_nano",
    "task=text_detection_single",
    "task.source.rows={train:40,validation:12,test:12}",
    "evaluation.every_steps=100",
    "evaluation.validation_rows=8",
    "evaluation.batch_size=4",
    "engine.device=cpu",
]
# A loss that dies as a full GPU or a full disk would have it die: rank by rank, in the middle of a step or a save.
DYING = """
import errno, os, torch
from ntil.losses import CE

class Dying(CE):
    def __init__(self, vocab, smoothing: float = 0.0, how: str = "memory", calls: int = 3):
        super().__init__(vocab, smoothing=smoothing)
        self.how, self.left = how, calls

    def parts(self, *args, **kwargs):
        self.left -= 1
        if self.how == "disk":  # here, in the worker: a loss is built in the command's own process too
            torch.save = full
        if self.how == "memory" and self.left == 0:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().parts(*args, **kwargs)

def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "220")
    return tmp_path


def rehearse(capfd, *words):
    code = main(["rehearse", *NANO, "runs=runs", *words])
    return code, *capfd.readouterr()


@pytest.mark.slow
def test_a_sweep_that_goes_through(place, capfd):
    code, out, err = rehearse(capfd, "-m", "engine=local", "loss=ce,ntil", "seed=0,1", "to=report.md", "keep=kept")
    assert code == 0, err
    assert "4 runs of 1 kind rehearsed: neither memory nor disk nor a typo will end the sweep" in out
    text = (place / "report.md").read_text()
    phases = (
        "data",
        "load",
        "engine",
        "first step",
        "step",
        "save",
        "resume",
        "validation",
        "save model",
        "evaluation",
    )
    for phase in (*phases, "export"):
        assert f"| {phase} | " in text
    # The run itself, and a step of the other loss.
    first, other = find_runs(place / "kept" / "runs")
    assert first.done
    assert [m.phase for m in measures_of(other)[0]] == ["data", "load", "engine", "step"]
    steps = [m for m in measures_of(first)[0] if m.phase == "step"]
    assert [m.step for m in steps] == [1, 2, 3]
    for step in steps:
        assert step.parts.keys() == {"data", "forward", "backward", "optimizer"}
        assert sum(step.parts.values()) == pytest.approx(step.seconds, rel=0.05)
    assert (place / "kept" / "exported" / "README.md").exists()
    assert not (place / "runs").exists()


@pytest.mark.slow
@pytest.mark.parametrize("engine", [["engine=zero2", "tuning=lora"], ["engine=zero3"]])
def test_two_ranks(place, capfd, engine):
    code, out, err = rehearse(capfd, *engine, "engine.processes=2", "loss=ntil", "keep=kept", "seed=0")
    assert code == 0, err
    (run,) = find_runs(place / "kept" / "runs")
    measures = measures_of(run)
    assert sorted(measures) == [0, 1]
    for rank in measures.values():
        assert {"save", "resume", "validation", "evaluation"} <= {m.phase for m in rank}
        (profiled,) = [m for m in rank if m.profiled]
        assert profiled.parts["communication"] > 0
        assert profiled.step == 3
    assert "collective operations are busy for" in out


@pytest.mark.slow
def test_without_weights_tokenizer_and_data(place, capfd, monkeypatch):
    """Nothing of a full-size run is here but its name: published sizes (small ones here), a drawn twin of the data."""
    file = place / "published.yaml"
    file.write_text(yaml.safe_dump({"qwen2_vl_2b": small_facts("qwen2_vl_2b")}))
    monkeypatch.setattr(inventory, "PUBLISHED", file)
    words = [*TINY_RUN, "model=qwen2_vl_2b", "task=refcoco", "tuning=lora", "loss=ntil", "engine.device=cpu"]
    words += ["model.min_pixels=3136", "model.max_pixels=12544", "optim.batch_size=2", "evaluation.batch_size=2"]
    words += ["weights=random", "data=drawn", "size=96", "runs=runs", "evaluation.every_steps=100"]
    assert main(["rehearse", *words]) == 0, capfd.readouterr().err
    out = capfd.readouterr().out
    assert "the tokenizer of Qwen/Qwen2-VL-2B-Instruct isn't on this machine" in out
    assert "the rows are drawn" in out
    assert [path.name for path in place.iterdir()] == ["published.yaml", "cache"] or not list(
        place.glob(".rehearsal-*")
    )


@pytest.fixture
def dying(place, monkeypatch):
    (place / "code").mkdir()
    (place / "code" / "dying.py").write_text(DYING)
    monkeypatch.syspath_prepend(place / "code")
    monkeypatch.setenv("PYTHONPATH", f"{place / 'code'}:{perform.__file__.partition('/ntil/')[0]}")
    monkeypatch.setenv("NTIL_PACKAGES", "dying")
    return ["loss=ce", "loss.target=dying:Dying", "engine=local", "optim.batch_size=8"]


@pytest.mark.slow
def test_out_of_memory_is_found_with_its_phase_and_remedy(dying, place, capfd):
    code, out, err = rehearse(capfd, *dying, "+loss.calls=2", "engine.accumulation=1")
    assert code == 1
    assert "step: out of memory: set engine.accumulation=2 (now 1): the same step in smaller pieces" in err
    assert "1 problem: the sweep would not go through as it is" in out
    assert not list(place.glob(".rehearsal-*"))


@pytest.mark.slow
def test_a_full_disk_is_found(dying, place, capfd):
    code, _, err = rehearse(capfd, *dying, "+loss.how=disk")
    assert code == 1
    assert "save: the disk is full" in err
