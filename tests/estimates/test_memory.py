"""Estimates of memory against bytes that are counted in real models."""

import pytest
import torch
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    GemmaConfig,
    GemmaModel,
    LlamaConfig,
    LlamaModel,
    Qwen2Config,
    Qwen2Model,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from ntil.config.compose import compose
from ntil.estimates import memory
from ntil.estimates.memory import key_value_bytes, memory_need
from ntil.estimates.shape import Layers, shape_of, tokens_and_patches
from ntil.evaluation.batch_size import LIMIT, key_value_bytes_per_token, rows_with_room
from ntil.models.inventory import KnownModel

TOKENS = 64


def saved_bytes(model, **inputs) -> int:
    """Bytes of the tensors that autograd keeps for the backward, each storage once, without parameters."""
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    model = model.to(torch.bfloat16).train()
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(**inputs)
    assert output is not None
    return sum(size for place, size in kept.items() if place not in parameters)


@pytest.mark.parametrize(("hidden", "intermediate", "groups"), [(256, 704, 4), (512, 1408, 2)])
@pytest.mark.parametrize(
    ("kind", "config"), [(LlamaModel, LlamaConfig), (Qwen2Model, Qwen2Config), (GemmaModel, GemmaConfig)]
)
def test_a_language_layer_keeps_what_is_estimated(kind, config, hidden, intermediate, groups):
    count, heads = 6, 4
    made = config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=count,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=hidden // heads,
        vocab_size=50,
    )
    bytes_kept = saved_bytes(kind(made), input_ids=torch.zeros(1, TOKENS, dtype=torch.long), use_cache=False)
    estimated = memory._language_layer(Layers(count, hidden, groups * hidden // heads, intermediate))
    assert 0.95 < estimated / (bytes_kept / TOKENS / count) < 1.3


@pytest.mark.parametrize(
    ("kind", "config"), [(CLIPVisionModel, CLIPVisionConfig), (SiglipVisionModel, SiglipVisionConfig)]
)
def test_a_vision_layer_keeps_what_is_estimated(kind, config):
    hidden, intermediate, count = 256, 1024, 4
    made = config(
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=count,
        num_attention_heads=4,
        image_size=112,
        patch_size=14,
    )
    bytes_kept = saved_bytes(kind(made), pixel_values=torch.zeros(1, 3, 112, 112, dtype=torch.bfloat16))
    assert 0.95 < memory._vision_layer(Layers(count, hidden, hidden, intermediate)) / (bytes_kept / 64 / count) < 1.4


@pytest.mark.parametrize("name", ["llava_nano", "qwen2_vl_nano", "paligemma_nano", "yi_vl_nano", "minicpm3_nano"])
def test_the_cache_takes_what_is_estimated(name):
    from ntil.components import Components

    task = "clock" if "_vl" in name or name in ("llava_nano", "paligemma_nano") else "arithmetic"
    config = compose([f"model={name}", f"task={task}"])
    family = Components.build(config).family
    model = family.load().eval()
    with torch.no_grad():
        ids = torch.full((2, 10), 5)
        cache = model.model.language_model(input_ids=ids, use_cache=True).past_key_values if task == "clock" else None
        if cache is None:
            cache = model(input_ids=ids, use_cache=True).past_key_values
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    shape = shape_of(config)
    assert shape is not None
    assert held == 20 * key_value_bytes(shape) == 20 * key_value_bytes_per_token(model)


@pytest.mark.parametrize(
    ("name", "tokens", "patches"),
    [
        ("gemma3_4b", 256, 4096),
        ("qwen3_vl_2b", 300, 1200),
        ("paligemma2_3b", 1024, 1024),
        ("gemma3_nano", 16, 64),
        ("internvl3_1b", 1792, 7168),
        ("smolvlm2_500m", 832, 13312),
        ("llava_ov_7b", 2929, 2929),
    ],
)
def test_a_tower_has_more_patches_than_the_picture_has_tokens(name, tokens, patches):
    known = KnownModel.of(compose([f"model={name}"]).model).opened()
    assert tokens_and_patches(known) == (tokens, patches)


def test_the_figures_of_a_7b_at_full_size():
    """LLaVA-1.5 has 32 layers of 4096 without grouped queries: 524,288 bytes a token in 16 bits."""
    config = compose(["model=llava15_7b", "task=refcoco", "evaluation.batch_size=240"])
    shape = shape_of(config)
    assert shape is not None
    assert key_value_bytes(shape) == 2 * 32 * 4096 * 2
    assert shape.picture_tokens == 576
    alone, eight = (memory_need(config, ranks) for ranks in (1, 8))
    assert alone is not None
    assert eight is not None
    assert alone.states > 100e9 > 40e9 > eight.states
    assert eight.key_values == 240 * (576 + 60 + 128) * 524_288
    assert eight.validation == eight.states + eight.key_values


def test_checkpointing_keeps_less_and_accumulation_too():
    def of(*words):
        need = memory_need(compose(["model=qwen2_vl_2b", "task=refcoco", *words]), 1)
        assert need is not None
        return need.activations

    whole = of("engine.gradient_checkpointing=false", "engine.accumulation=1")
    assert of("engine.gradient_checkpointing=true", "engine.accumulation=1") < whole / 4
    assert of("engine.gradient_checkpointing=false", "engine.accumulation=8") == pytest.approx(whole / 8, rel=0.01)


@pytest.mark.parametrize(("row", "free", "rows"), [(0, 10, LIMIT), (100, 1000, 5), (100, 10, 1), (1, 10**9, LIMIT)])
def test_rows_follow_from_what_is_free(row, free, rows):
    assert rows_with_room(row, free) == rows
