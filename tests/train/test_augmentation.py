"""Augmented trainings: what is drawn depends on seed, row and pass alone, and nothing but the training sees it."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from benchmarks.packing_checks import SCENES
from data.augment.draws import extent_of
from data.augment.options import AugmentConfig
from data.common.errors import InvalidOption
from data.common.images import png
from ntil.cli import main
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash, identity
from ntil.models.tuning import tune
from ntil.preflight import compose_checked
from ntil.train.augmentation import AugmentedRows, TimesDrawn
from ntil.train.trainer import build_trainer
from tasks.clock import Clock
from tasks.grounding import Grounding
from tests.support.runs import TINY_RUN

ALL = AugmentConfig(flip=0.5, crop=0.4, scale=0.5, color_jitter=0.2)
WORDS = ["augment=[flip,crop,scale,color_jitter]", "augment.skip_directional=true"]
RUN = [*TINY_RUN, *SCENES, "model=llava_nano", "loss=ntil", "engine=local", "engine.workers=0", "optim.batch_size=12"]


def grounding():
    return Grounding(source=None)  # type: ignore[arg-type]


def scenes(*expressions):
    """Two questions on each picture, with a box each."""
    columns = {"width": Value("int32"), "height": Value("int32"), "expression": Value("string")}
    features = Features({"id": Value("string"), "image": Image(), **columns, "box": List(Value("float64"))})
    rows = []
    for number, expression in enumerate(expressions):
        shade = number // 2 * 40
        picture = PILImage.new("RGB", (80, 60), (shade, 90, 90))
        box = [5.0, 6.0, 25.0, 30.0] if number % 2 else [40.0, 30.0, 70.0, 55.0]
        text = {"id": f"r{number}", "width": 80, "height": 60, "expression": expression}
        rows.append({**text, "image": png(picture), "box": box})
    return Dataset.from_list(rows, features=features)


def same(one, other):
    return one["box"] == other["box"] and np.array_equal(np.asarray(one["image"]), np.asarray(other["image"]))


def test_a_row_is_a_function_of_seed_row_and_times():
    rows = scenes("a cup", "a dog", "a cat", "a hat")
    first, again, other = (AugmentedRows(rows, grounding(), ALL, seed) for seed in (3, 3, 4))
    indices = [0, 1, 2, 3, 4, 5, 8]
    one, two = first.__getitems__(indices), [again[index] for index in indices]
    assert all(map(same, one, two))
    assert [row["id"] for row in one] == ["r0~0", "r1~0", "r2~0", "r3~0", "r0~1", "r1~1", "r0~2"]
    assert not same(one[0], one[4])
    assert not same(one[4], one[6])
    assert not same(one[0], other[0])


def test_questions_on_a_picture_see_it_alike_and_all_of_their_boxes():
    augmented = AugmentedRows(scenes("a cup", "a dog"), grounding(), ALL, 0)
    for times in range(20):
        one, two = augmented.__getitems__([2 * times, 2 * times + 1])
        assert one["image"] is two["image"]
        for row in (one, two):
            left, top, right, bottom = extent_of(row) or (0, 0, 0, 0)
            assert -1e-9 <= left < right <= row["width"] + 1e-9
            assert -1e-9 <= top < bottom <= row["height"] + 1e-9
        assert one["image"].size == (one["width"], one["height"])


def test_words_of_direction_are_refused_or_left():
    rows = scenes("a cup", "the left dog", "the second cat", "a hat")
    with pytest.raises(ConfigError, match=r"augment\.flip: row r1 says 'left' in .*augment\.skip_directional=true"):
        AugmentedRows(rows, grounding(), AugmentConfig(flip=1.0), 0)
    with pytest.raises(ConfigError, match=r"augment\.crop: row r1 says 'left'"):
        AugmentedRows(rows, grounding(), AugmentConfig(crop=0.4), 0)
    left = AugmentedRows(rows, grounding(), AugmentConfig(flip=1.0, skip_directional=True), 0)
    assert [row["box"][0] for row in left.__getitems__(range(4))] == [40, 5, 10, 55]  # the first picture as it was
    AugmentedRows(rows, grounding(), AugmentConfig(scale=0.5, color_jitter=0.1), 0)


def test_what_answers_dont_survive_is_refused():
    with pytest.raises(InvalidOption, match=r"augment\.flip would make answers of Clock false; .*augment\.clock_rot"):
        AugmentedRows(scenes("a", "b"), Clock(source=None), AugmentConfig(flip=0.5), 0)  # type: ignore[arg-type]
    with pytest.raises(InvalidOption, match=r"augment\.clock_rotation"):
        compose_checked([*RUN, "augment=clock_rotation"])
    rows = scenes("a", "b").map(lambda row: {**row, "image": None}, features=scenes("a").features)
    with pytest.raises(ConfigError, match="without a picture"):
        AugmentedRows(rows, grounding(), ALL, 0)


def test_the_cache_of_a_frozen_tower_is_refused():
    with pytest.raises(ConfigError, match="vision_cache_gb=0"):
        compose_checked([*RUN, *WORDS, "tuning=freeze_vision"])
    compose_checked([*RUN, *WORDS, "tuning=freeze_vision", "vision_cache_gb=0"])


def test_augmentation_is_a_part_of_the_identity_and_none_is_not():
    plain = compose_checked(RUN, on_this_machine=False)
    assert "augment" not in identity(plain)
    hashes = {config_hash(compose_checked([*RUN, word], False)) for word in ("augment=flip", "augment.flip=0.4")}
    assert len({*hashes, config_hash(plain)}) == 3
    with pytest.raises(ConfigError, match=r"augment\.crop must lie above 0"):
        compose_checked([*RUN, "augment.crop=1.5"], False)


def test_indices_say_how_often_a_row_was_drawn():
    assert list(TimesDrawn([2, 0, 2, 1, 2, 0], "abc")) == [2, 0, 5, 1, 8, 3]  # type: ignore[arg-type]
    assert list(TimesDrawn([[2, 0], [2, 1]], "abc")) == [[2, 0], [5, 1]]  # type: ignore[arg-type]
    # A row that stands twice in the split is drawn for the second time where its repetition comes.
    assert list(TimesDrawn([0, 2, 1], "aba")) == [0, 5, 1]  # type: ignore[arg-type]


def built(place, *words):
    config = compose_checked([*RUN, *WORDS, "optim.steps=8", *words])
    components = Components.build(config)
    torch.manual_seed(0)
    model = tune(components.family.load(), components.family, config.tuning)
    task = components.task
    return build_trainer(config, components, model, task.rows("train"), place, validation=task.rows("validation"))


def losses(trainer):
    return [record["loss"] for record in trainer.state.log_history if "loss" in record]


def test_a_resumed_training_is_bit_for_bit_the_one_without_a_stop(tmp_path):
    words = ["packing=pictures", "engine.accumulation=2", "save_every=6", "engine.workers=1"]
    through = built(tmp_path, *words)
    through.train()
    resumed = built(tmp_path, *words)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))  # in the second pass over 48 rows
    assert losses(resumed) == losses(through)
    weights = through.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())
    assert isinstance(through.eval_dataset, Dataset)  # as it was read


def test_packed_pictures_are_those_of_rows_alone(tmp_path):
    """The same rows in the same order, packed and one by one: the same losses."""
    packed = built(tmp_path / "packed", "packing=pictures", "optim.steps=5")
    alone = built(tmp_path / "alone", "packing=pictures", "optim.steps=5")
    alone.data_collator = Components.build(compose_checked([*RUN, *WORDS])).collator
    plain = built(tmp_path / "plain", "packing=pictures", "optim.steps=1", "augment=none")
    for trainer in (packed, alone, plain):
        trainer.train()
    assert losses(packed) == pytest.approx(losses(alone), rel=2e-5)
    assert losses(plain)[0] != pytest.approx(losses(packed)[0], rel=2e-5)


def test_replay_sees_the_rows_of_the_batch(tmp_path):
    trainer = built(tmp_path, "packing=tokens")
    batch = next(iter(trainer.get_train_dataloader()))
    rows = trainer.train_dataset.by_ids(batch["ids"])
    assert [row["id"] for row in rows] == batch["ids"]
    task = Components.build(compose_checked(RUN)).task
    assert len({json.dumps(row["box"]) for row in rows}) == len({task.answer(row) for row in rows})


def test_a_sheet_shows_each_row_and_what_becomes_of_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["data", "show", *SCENES, *WORDS, "n=2"]
    assert main([*words, "out=a.png"]) == 0
    assert main([*words, "out=plain.png", "augment=none"]) == 0
    wide, plain = PILImage.open("a.png"), PILImage.open("plain.png")
    assert (wide.width, wide.height) == (plain.width, 2 * plain.height)
    assert main([*words, "split=validation"]) == 2
    assert "augment= changes training rows alone" in capsys.readouterr().err
