"""A picture that goes through the tower once gives every row what it would have had of its own."""

import pytest
import torch

from benchmarks.packing_checks import PICTURED, ROWS, SCENES, rows_at, step
from ntil.components import Components
from ntil.config.compose import compose
from ntil.models.head import SupervisedHead
from ntil.models.vision_cache import VisionCache
from ntil.packing.tower import SharedTower, TowerCollator, TowerPlan
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer
from tests.packing.test_training import RUN, assert_same_history, history
from tests.support.packed import assert_same_step, assert_same_targets


@pytest.mark.parametrize("model", [*PICTURED, "paligemma_nano", "paligemma2_nano", "gemma3_nano"])
def test_a_step_of_any_family(model):
    components = Components.build(compose([f"model={model}", *SCENES, "packing=tower", "loss=ntil"]))
    rows = rows_at(components, ROWS)
    together, separate = TowerCollator(components.collator)(rows), components.collator(rows)
    assert_same_targets(together, separate)
    assert together["pixel_values"].numel() < separate["pixel_values"].numel()
    assert together["tower"].pictures == [0, 1, 2, 1, 1, 3, 2, 1, 2]
    torch.manual_seed(0)
    loaded = components.family.load()
    head = SupervisedHead(loaded)
    alone = step(loaded, components.loss, separate, head)
    assert_same_step(step(loaded, components.loss, together, head, SharedTower(loaded)), alone)


def test_rows_of_different_pictures_are_as_before():
    components = Components.build(compose(["model=paligemma_nano", *SCENES]))
    batch = TowerCollator(components.collator)(rows_at(components, [0, 4, 8]))
    assert "tower" not in batch
    assert len(batch["pixel_values"]) == 3


def test_features_that_dont_fit_the_tokens_are_an_error():
    with pytest.raises(ValueError, match="6 features of pictures that have 8 tokens"):
        TowerPlan([4, 4], [0, 0, 1]).repeated(torch.zeros(2, 3, 5))


@pytest.mark.parametrize("cached", [False, True])
def test_a_training_is_that_on_the_same_rows_alone(tmp_path, cached):
    def trained(name, shared):
        words = ["packing=tower", "model=paligemma_nano", "engine.accumulation=2", "optim.steps=3"]
        config = compose_checked([*RUN, *words, *(["tuning=projector"] if cached else [])])
        components = Components.build(config)
        torch.manual_seed(0)
        model = components.family.load()
        if cached:
            model.requires_grad_(False)
            model.model.multi_modal_projector.requires_grad_(True)
            cache = VisionCache(components.family, model, tmp_path / "features", 10**9)
        trainer = build_trainer(config, components, model, components.task.rows("train"), tmp_path / name)
        if not shared:
            trainer.data_collator = components.collator
        trainer.train()
        assert not cached or cache.hits
        return history(trainer)

    assert_same_history(trained("shared", True), trained("alone", False))
