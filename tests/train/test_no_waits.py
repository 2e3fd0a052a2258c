"""A training step reads no value of a tensor outside the model: on a GPU each reading waits for all that is queued.

Counted on the CPU, where the same operators run: those that turn a tensor's values into Python's, or into a shape. The
losses alone are traced on the meta device in tests/losses/test_contract.py.
"""

import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import ntil
from ntil.components import Components
from ntil.config.build import build
from ntil.config.compose import choices, compose
from ntil.preflight import compose_checked
from ntil.train.trainer import NumberTrainer, build_trainer
from tests.support.chosen import slow_but
from tests.support.runs import TINY_RUN

ROOT = str(Path(ntil.__file__).parent)
# Data workers and the collator have their tensors on the CPU; what is logged is read at logging steps alone.
STEP = tuple(f"{ROOT}/{part}" for part in ("train/trainer.py", "losses/", "numbers/", "models/head.py", "distributed/"))
COLLATOR = f"{ROOT}/collator.py"
READING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}


class Waits(TorchDispatchMode):
    """Counts the operators that would wait, by the place in this project that calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masks = name in ("index", "index_put", "index_put_") and any(
            one is not None and one.dtype == torch.bool for one in args[1]
        )
        counts = name == "repeat_interleave" and not (kwargs or {}).get("output_size")
        if name in READING or masks or counts:
            self.note(name)
        return func(*args, **(kwargs or {}))

    def note(self, name):
        stack = [one for one in traceback.extract_stack() if one.filename != __file__ and "/torch/" not in one.filename]
        if stack[-1].filename.startswith(STEP) and not any(one.filename == COLLATOR for one in stack):
            self.places[f"{name} in {Path(stack[-1].filename).name}:{stack[-1].lineno}"] += 1


@pytest.fixture
def waits(monkeypatch):
    """A trace that sees also what reads a CPU tensor's memory without an operator."""
    seen = Waits()
    for name in ("tolist", "numpy", "cpu", "__array__"):
        original = getattr(torch.Tensor, name)

        def reading(self, *args, _name=name, _original=original, **kwargs):
            seen.note(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, reading)
    return seen


@pytest.fixture(scope="module")
def kit():
    """A run's configuration, components and rows; the loss is each test's."""
    rows = "task.source.rows={train:32,validation:8,test:8}"
    fixed = [
        "model=qwen25_nano",
        "task=arithmetic",
        "optim.steps=1",
        "optim.warmup=0",
        "optim.batch_size=4",
        "save_every=0",
        "engine.accumulation=2",
    ]
    words = [*TINY_RUN, rows, *fixed, "log_every=100", "engine=local", "engine.workers=0", "engine.device=cpu"]
    config = compose_checked(words)
    components = Components.build(config)
    return config, components, components.task.rows("train")


def train(tmp_path, waits, kit, monkeypatch, name):
    config, components, rows = kit
    loss = build("loss", compose([f"loss={name}"]).loss, vocab=components.vocab)
    trainer = build_trainer(config, replace(components, loss=loss), components.family.load(), rows, tmp_path)
    monkeypatch.setattr(trainer, "log", lambda *args: None)  # the means of a training, at its end
    with waits:
        trainer.train()
    assert trainer.state.global_step == 1


# One of each kind: tokens, digits, values, boxes, mass, noise.
QUICK = ("ce", "ntil", "value_emd_mass", "box_iou", "emo", "raft", "regression_head")


@pytest.mark.parametrize("loss", slow_but(QUICK, (name for name in choices("loss") if name != "untrained")))
def test_a_step_reads_no_value(tmp_path, waits, kit, monkeypatch, loss):
    """Two micro-batches a step, so that what a step must know beforehand is computed too."""
    train(tmp_path, waits, kit, monkeypatch, loss)
    assert not waits.places


READINGS = [lambda t: t.sum().item(), lambda t: t.tolist(), lambda t: t[t > 0], lambda t: bool(t.any())]


@pytest.mark.parametrize("reads", READINGS)
def test_the_trace_sees_a_reading(tmp_path, waits, kit, monkeypatch, reads):
    original = NumberTrainer._add
    # As if it stood in the trainer.
    through = eval(compile("lambda reads, value: reads(value)", f"{ROOT}/train/trainer.py", "eval"))

    def add(self, components):
        through(reads, next(iter(components.values())).reshape(1))
        original(self, components)

    monkeypatch.setattr(NumberTrainer, "_add", add)
    train(tmp_path, waits, kit, monkeypatch, "ntil")
    assert sum(waits.places.values()) >= 2
