"""A packed step over some rows is the step over the same rows without packing."""

import pytest
import torch

from ntil.components import Components
from ntil.config.compose import choices, compose
from ntil.config.schema import PackingConfig
from ntil.models.head import SupervisedHead
from ntil.models.tuning import tune
from tests.support.packed import SCENES, assert_same_step, assert_same_targets, both, result, rows_at

FAMILIES = ["llava_nano", "yi_vl_nano", "qwen2_vl_nano"]
TEXT = ["qwen25_nano", "llama3_nano", "baichuan2_nano", "minicpm3_nano"]
LOSSES = [name for name in choices("loss") if name != "untrained"]
MODES = ["pictures", "tokens"]
# Pictures with one, two, three and four questions, mixed; 4 questions a picture.
ROWS = [5, 0, 9, 2, 1, 12, 10, 3, 11]
EXAMPLES = "Numbers are written in digits, and the sum follows. " + "12 + 31 = 43. 20 + 57 = 77. 10 + 20 = 30. " * 2


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


def components_of(model, *more):
    words = [f"model={model}", *(SCENES if model in FAMILIES else ["task=arithmetic"]), *more]
    return Components.build(compose(words))


def text_rows(components):
    rows = components.task.rows("train")
    return [rows[i] for i in range(8)]


def compare(components, mode, rows, budget=4096, prepare=lambda model: model):
    torch.manual_seed(0)
    model = prepare(components.family.load())
    packed, separate = both(components, PackingConfig(mode, budget), rows)
    assert_same_targets(packed, separate)
    assert packed["tokens"] < separate["tokens"]
    head = SupervisedHead(model)
    steps = [result(model, components.loss, batch, head) for batch in (packed, separate)]
    return assert_same_step(*steps)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", FAMILIES)
def test_losses_and_gradients_are_the_same(model, mode):
    components = components_of(model, "loss=ntil")
    compare(components, mode, rows_at(components, ROWS))


@pytest.mark.parametrize("loss", ["ce", "value_emd", "emo"])
def test_of_other_losses_too(loss):
    components = components_of("llava_nano", f"loss={loss}")
    compare(components, "pictures", rows_at(components, ROWS))


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", [*FAMILIES, "qwen25_nano"])
def test_of_all_losses(model, loss):
    components = components_of(model, f"loss={loss}", *([] if model in FAMILIES else few_shot()))
    rows = rows_at(components, ROWS) if model in FAMILIES else text_rows(components)
    compare(components, "tokens", rows, budget=160)


def few_shot():
    return [f'model.template="{EXAMPLES}{{prompt}}\\nAnswer:"']


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("model", TEXT)
def test_text_models_share_the_examples_before_a_question(model, mode):
    components = components_of(model, *few_shot())
    compare(components, mode, text_rows(components))


def test_a_short_beginning_of_texts_is_not_shared():
    components = components_of("qwen25_nano")
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
    assert_same_step(*(result(model, components.loss, batch, head) for batch in (packed, separate)))
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
