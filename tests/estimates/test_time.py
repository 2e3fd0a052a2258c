"""Estimates of time and disk against counted operations and written bytes."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.schema import CurriculumConfig
from ntil.estimates import time as estimated_time
from ntil.estimates.disk import CHECKPOINT_BYTES, disk_need
from ntil.estimates.shape import shape_of
from ntil.estimates.time import device_here, known_devices, pictures_of_step, step_flops, training_seconds
from ntil.models.tuning import tune
from ntil.train.sampler import PictureSampler


@pytest.mark.parametrize("tuning", ["full", "freeze_vision", "lora"])
def test_a_step_takes_the_operations_that_are_estimated(tuning):
    """Of a text model, whose tokens are known: attention's own products and the head come on top."""
    config = compose(["model=llama3_nano", "task=arithmetic", f"tuning={tuning if tuning == 'lora' else 'full'}"])
    family = Components.build(config).family
    model = tune(family.load(), family, config.tuning).train()
    shape = shape_of(config)
    assert shape is not None
    ids = torch.full((4, 60), 5)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=ids).logits.sum().backward()
    head = 2 * 60 * 4 * model.get_output_embeddings().weight.numel() * 3
    counted = counter.get_total_flops() - head
    assert 0.8 < step_flops(shape, 4, checkpointing=False) / counted < 1.25


def test_frozen_parts_cost_less_and_checkpointing_costs_a_forward():
    def flops(*words, checkpointing=False):
        shape = shape_of(compose(["model=llava15_7b", "task=refcoco", *words]))
        assert shape is not None
        return step_flops(shape, 64, checkpointing)

    whole = flops()
    assert flops("tuning=freeze_vision") < whole
    assert flops("tuning=lora") < 0.75 * whole
    assert flops(checkpointing=True) == pytest.approx(4 / 3 * whole, rel=0.01)


def test_a_7b_takes_half_an_hour_on_eight_h100():
    """full_scale: about 0.9 s a step of 64 rows with Qwen2-VL-7B and checkpointing, by hand."""
    config = compose(["model=qwen2_vl_7b", "task=refcoco"])
    seconds = training_seconds(config, 2000, 8, known_devices()["H100"])
    assert seconds is not None
    assert 0.6 < seconds / 2000 < 1.2
    tested = estimated_time.test_seconds(config, 10_752, 48, 8, known_devices()["H100"])
    assert tested is not None
    assert 30 < tested < 600


@pytest.mark.parametrize("pieces", [1, 4])
def test_pictures_of_a_step_are_those_that_the_sampler_gives(pieces):
    """Pictures of 1, 2, ... 13 rows, 7 on average, in micro-batches of equally many rows."""
    counts = [1 + picture % 13 for picture in range(390)]
    pictures = np.repeat(np.arange(len(counts)), counts)
    words = ["packing=pictures", "optim.batch_size=32", f"engine.accumulation={pieces}"]
    config = compose(["model=llava15_7b", "task=refcoco", *words])
    sampler = PictureSampler(len(pictures), 600, 32, 0, CurriculumConfig(), pictures=pictures)
    drawn = pictures[list(sampler)].reshape(600 * pieces, -1)
    counted = sum(len(set(rows)) for rows in drawn.tolist()) / 600
    assert pictures_of_step(config, 1, 7.0, 576) == pytest.approx(counted, rel=0.03)
    # A sequence of 4,096 tokens has no more than 58 questions of 60 tokens, one of 900 only 5.
    assert pictures_of_step(config, 1, 1e9, 576) == pytest.approx(pieces + (32 - pieces) / 58)
    short = compose(["model=llava15_7b", "task=refcoco", *words, "packing.tokens=900"])
    assert pictures_of_step(short, 1, 7.0, 576) == pieces + (32 - pieces) / 5


def test_a_packed_step_is_estimated_by_its_tokens():
    def seconds(rows_per_picture, *words):
        config = compose(["model=llava15_7b", "task=refcoco", "optim.batch_size=64", *words])
        value = training_seconds(config, 1, 8, known_devices()["H100"], rows_per_picture)
        assert value is not None
        return value

    unpacked = seconds(7.0)
    assert unpacked == seconds(None)
    assert seconds(None, "packing=pictures") == unpacked
    assert seconds(1.0, "packing=pictures") == pytest.approx(unpacked)
    # 8 micro-batches of 8 rows have 8 + 56 / 7 = 16 pictures: 16 x 576 + 64 x 60 tokens, of 64 x 636; the tower, about
    # a twentieth of the model, has a quarter of its pictures.
    assert seconds(7.0, "packing=pictures", "engine.accumulation=1") / unpacked == pytest.approx(
        13_056 / 40_704, rel=0.05
    )


def test_a_device_has_figures_of_its_order():
    assert device_here().name in known_devices()
    for device in known_devices().values():
        assert 1e14 < device.flops < 1e16
        assert 5e11 < device.bandwidth < 1e13
        assert 2e10 < device.memory < 3e11


def test_disk_of_a_run():
    full = disk_need(compose(["model=qwen2_vl_7b", "task=refcoco"]))
    lora = disk_need(compose(["model=qwen2_vl_7b", "task=refcoco", "tuning=lora"]))
    by_clock = disk_need(compose(["model=qwen2_vl_7b", "task=refcoco", "save_every=0"]))
    none = disk_need(compose(["model=qwen2_vl_7b", "task=refcoco", "save_every=0", "save_minutes=0"]))
    assert full is not None
    assert lora is not None
    assert by_clock is not None
    assert none is not None
    assert full.remaining == pytest.approx(16.6e9, rel=0.01)
    assert full.peak == pytest.approx(
        full.remaining + 3 * (CHECKPOINT_BYTES + 2 + 8) * 8.29e9, rel=0.01
    )  # ZeRO-2, and moments
    assert lora.peak < full.peak / 20
    assert by_clock == full
    assert none.peak == none.remaining
