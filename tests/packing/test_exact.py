"""A packed step over some rows is the step over the same rows without packing."""

import pytest
import torch

from benchmarks.packing_checks import PICTURED, ROWS, SCENES, TEXT, TOKENS, both, rows_at, step, words_of
from ntil.components import Components
from ntil.config.compose import choices, compose
from ntil.config.schema import PackingConfig
from ntil.models.head import SupervisedHead
from ntil.models.tuning import tune
from tests.support.packed import assert_same_step, assert_same_targets

LOSSES = [name for name in choices("loss") if name != "untrained"]
MODES = ["pictures", "tokens"]


def components_of(model, *more):
    return Components.build(compose([*words_of(model), *more]))


def text_rows(components):
    return rows_at(components, range(8))


def compare(components, mode, rows, budget=4096, prepare=lambda model: model):
    torch.manual_seed(0)
    model = prepare(components.family.load())
    packed, separate = both(components, PackingConfig(mode, budget), rows)
    assert_same_targets(packed, separate)
    assert packed["tokens"] < separate["tokens"]
    head = SupervisedHead(model)
    one, other = (step(model, components.loss, batch, head) for batch in (packed, separate))
    return assert_same_step(one, other)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", PICTURED)
def test_losses_and_gradients_are_the_same(model, mode):
    components = components_of(model, "loss=ntil")
    compare(components, mode, rows_at(components, ROWS))


@pytest.mark.parametrize("loss", ["ce", "value_emd", "emo"])
def test_of_other_losses_too(loss):
    components = components_of("llava_nano", f"loss={loss}")
    compare(components, "pictures", rows_at(components, ROWS))


# All losses with one model, some with all: `python -m benchmarks.packing_checks` has the rest.
SEVERAL = ["ntil", "emo", "value_emd_rescaled", "box_iou"]
WITH_LOSSES = [
    *(("llava_nano", loss) for loss in LOSSES),
    *((model, loss) for model in PICTURED if model != "llava_nano" for loss in SEVERAL),
    *(("qwen25_nano", loss) for loss in SEVERAL if loss != "box_iou"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "loss"), WITH_LOSSES)
def test_of_all_losses(model, loss):
    components = components_of(model, f"loss={loss}")
    rows = rows_at(components, ROWS) if model in PICTURED else text_rows(components)
    compare(components, "tokens", rows, budget=TOKENS[model])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", TEXT)
def test_text_models_share_the_examples_before_a_question(model, mode):
    components = components_of(model)
    compare(components, mode, text_rows(components))


def test_of_another_architecture():
    components = components_of("qwen25_nano", "model.language.model_type=qwen3", "+model.language.head_dim=32")
    compare(components, "pictures", text_rows(components))


def test_a_short_beginning_of_texts_is_not_shared():
    components = components_of("qwen25_nano", 'model.template="Question: {prompt}\nAnswer:"')
    packed, separate = both(components, PackingConfig("pictures"), text_rows(components))
    assert torch.equal(packed["input_ids"], separate["input_ids"])
    assert "segments" not in packed


@pytest.mark.parametrize("budget", [1, 60, 100, 4096])
def test_of_any_budget(budget):
    components = components_of("qwen2_vl_nano")
    rows = rows_at(components, ROWS)
    packed, separate = both(components, PackingConfig("tokens", budget), rows)
    model = components.family.load()
    head = SupervisedHead(model)
    one, other = (step(model, components.loss, batch, head) for batch in (packed, separate))
    assert_same_step(one, other)
    assert "segments" not in packed or packed["input_ids"].shape[1] % 16 == 0
    if budget == 4096:
        assert len(packed["input_ids"]) == 1


def test_with_gradient_checkpointing():
    def prepare(model):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        return model.train()

    components = components_of("llava_nano")
    compare(components, "pictures", rows_at(components, ROWS), prepare=prepare)


def test_with_eager_attention():
    components = components_of("llava_nano", "model.attn_implementation=eager")
    compare(components, "tokens", rows_at(components, ROWS))


@pytest.mark.parametrize("tuning", ["lora", "lora_all"])
def test_with_adapters(tuning):
    config = compose(["model=llava_nano", *SCENES, f"tuning={tuning}"])
    components = Components.build(config)

    def prepare(model):
        adapted = tune(model, components.family, config.tuning)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:  # 0 at first, so that the others would have no gradient
                parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
        return adapted

    compare(components, "pictures", rows_at(components, ROWS), prepare=prepare)
