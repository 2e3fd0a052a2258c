"""A packed training is the training on the same rows, in however many pieces, and goes on where it stopped."""

import numpy as np
import pytest
import torch

from benchmarks.packing_checks import SCENES
from ntil.components import Components
from ntil.models.tuning import tune
from ntil.models.vision_cache import VisionCache
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer
from tests.support.chosen import slow_but
from tests.support.runs import TINY_RUN

RUN = [*TINY_RUN, *SCENES, "model=llava_nano", "loss=ntil", "engine=local", "engine.workers=0", "optim.batch_size=12"]
FIGURES = ("loss", "grad_norm", "loss/ce", "loss/aux", "loss/exp", "loss/rel", "loss/mag")


def built(place, *words, packed=True, store=None):
    """A trainer, and whether its micro-batches are packed; the rows are those of packing in any case."""
    config = compose_checked([*RUN, "optim.steps=4", *words])
    components = Components.build(config)
    torch.manual_seed(0)
    model = tune(components.family.load(), components.family, config.tuning)
    kept = VisionCache(components.family, model, store, 10**9) if store else None
    trainer = build_trainer(config, components, model, components.task.rows("train"), place)
    if not packed:
        trainer.data_collator = components.collator
    return trainer, kept


def history(trainer):
    return [record for record in trainer.state.log_history if "loss" in record]


def assert_same_history(one, other):
    assert [record["step"] for record in one] == [record["step"] for record in other] != []
    for mine, theirs in zip(one, other, strict=True):
        for name in FIGURES:
            if name in theirs:
                assert mine[name] == pytest.approx(theirs[name], rel=2e-5), name


def train(place, *words, **how):
    trainer, _ = built(place, *words, **how)
    trainer.train()
    return trainer


@pytest.mark.parametrize("mode", ["pictures", "tokens"])
@pytest.mark.parametrize("accumulation", slow_but([3], [1, 3]))
def test_losses_are_those_of_the_same_rows_alone(tmp_path, mode, accumulation):
    words = [f"packing={mode}", f"engine.accumulation={accumulation}"]
    packed = train(tmp_path / "packed", *words)
    alone = train(tmp_path / "alone", *words, packed=False)
    assert_same_history(history(packed), history(alone))
    tokens = [[r["tokens_per_s"] / r["samples_per_s"] for r in history(t)] for t in (packed, alone)]
    assert max(tokens[0]) < min(tokens[1])  # tokens a row


def test_noise_and_denominators_dont_depend_on_the_cut(tmp_path):
    first = train(tmp_path / "a", "packing=tokens")
    cut = train(tmp_path / "b", "packing=tokens", "engine.accumulation=4")
    assert_same_history(history(first), history(cut))


def test_a_worker_changes_nothing(tmp_path):
    first = train(tmp_path / "a", "packing=tokens")
    beside = train(tmp_path / "b", "packing=tokens", "engine.workers=1")
    assert [record["loss"] for record in history(first)] == [record["loss"] for record in history(beside)]


@pytest.mark.parametrize("mode", slow_but(["tokens"], ["pictures", "tokens"]))
def test_a_resumed_training_is_bit_for_bit_the_one_without_a_stop(tmp_path, mode):
    words = [f"packing={mode}", "engine.accumulation=2", "save_every=2", "keep_checkpoints=4"]
    through = train(tmp_path, *words)
    resumed, _ = built(tmp_path, *words)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert [record["loss"] for record in history(resumed)] == [record["loss"] for record in history(through)]
    weights = through.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())


def test_with_the_vision_cache(tmp_path):
    words = ["packing=pictures", "tuning=freeze_vision"]
    alone = train(tmp_path / "alone", *words, packed=False)
    filling, _ = built(tmp_path / "filling", *words, store=tmp_path / "store")
    filling.train()
    reading, kept = built(tmp_path / "reading", *words, store=tmp_path / "store")
    reading.train()
    assert kept.misses == 0
    assert kept.hits == 12  # pictures, each once in a pass over 48 rows
    for trainer in (filling, reading):
        assert_same_history(history(trainer), history(alone))


def test_a_step_has_the_questions_of_few_pictures(tmp_path):
    trainer, _ = built(tmp_path, "packing=tokens", "engine.accumulation=2")
    batches = list(trainer.get_train_dataloader())
    assert [sum(b["samples"] for b in batches[i : i + 2]) for i in range(0, len(batches), 2)] == [12] * 4
    ids = [name for batch in batches for name in batch["ids"]]
    assert sorted(ids) == sorted(trainer.train_dataset.rows["id"])
    numbers = np.array([int(name.rpartition("-")[2]) // 4 for name in ids]).reshape(12, 4)
    assert (numbers == numbers[:, :1]).all()
