"""Random weights in a published layout: sharded, of the published sizes, readable by the family that takes them."""

import json
from typing import Any

import pytest
import yaml
from safetensors import safe_open

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.schema import Component
from ntil.models import inventory
from ntil.rehearsal import weights
from ntil.rehearsal.weights import nano_twin, write_random

# The published entries, with sizes for a test. Widths divide by heads, and vocabularies hold the nano tokenizer's.
SMALL: dict[str, dict[str, Any]] = {
    "text_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_key_value_heads": 1, "vocab_size": 3000},
    "vision_config": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
}
CHANGES: dict[str, dict[str, Any]] = {
    "qwen2_vl_2b": {
        "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}},
        "vision_config": {"embed_dim": 32, "depth": 2, "num_heads": 2, "hidden_size": 32, "mlp_ratio": 2},
    },
    "qwen2_5_vl_3b": {
        "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]}},
        "vision_config": {"depth": 2, "num_heads": 2, "out_hidden_size": 32, "fullatt_block_indexes": [1]},
    },
    "qwen3_vl_2b": {
        "text_config": {
            "head_dim": 16,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]},
        },
        "vision_config": {"depth": 2, "num_heads": 2, "out_hidden_size": 32, "deepstack_visual_indexes": [0, 1]},
    },
    "paligemma_3b": {
        "text_config": {"head_dim": 16},
        "vision_config": {"image_size": 56},
        "projection_dim": 32,
        "hidden_size": 32,
    },
    "paligemma2_3b": {
        "text_config": {"head_dim": 16},
        "vision_config": {"image_size": 56},
        "projection_dim": 32,
        "hidden_size": 32,
    },
    "gemma3_4b": {
        "text_config": {"head_dim": 16, "layer_types": ["sliding_attention", "full_attention"]},
        "vision_config": {"image_size": 56},
        "mm_tokens_per_image": 4,
    },
    "internvl3_1b": {"vision_config": {"image_size": 56}},
    "smolvlm2_256m": {"vision_config": {"image_size": 64}, "scale_factor": 2},
    "llava_ov_0_5b": {"vision_config": {"image_size": 56}, "image_grid_pinpoints": [[56, 56], [56, 112], [112, 56]]},
    "llava15_7b": {"vision_config": {"image_size": 56}},
    "yi_vl_6b": {"vision_config": {"image_size": 56}},
}
SIZES = {name: {"size": {"height": 56, "width": 56}} for name in ("paligemma_3b", "paligemma2_3b", "gemma3_4b")}
SIZES |= {name: {"size": {"height": 56, "width": 56}} for name in ("internvl3_1b", "llava_ov_0_5b")}
SIZES["smolvlm2_256m"] = {"size": {"longest_edge": 128}, "max_image_size": {"longest_edge": 64}}
SQUARE = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}}
TEXT = ("qwen25_7b", "llama3_8b", "yi_6b", "baichuan2_7b")


def small_facts(name):
    facts = yaml.safe_load(inventory.PUBLISHED.read_text())[name]
    if name in TEXT:
        sizes = dict(SMALL["text_config"])
        if "num_key_value_heads" not in facts["config"]:
            del sizes["num_key_value_heads"]
        return facts | {"config": {**facts["config"], **sizes}}
    config = facts["config"]
    for part, sizes in {**SMALL, **CHANGES[name]}.items():
        if isinstance(sizes, dict):
            config[part] = {**config[part], **SMALL[part], **CHANGES[name].get(part, {})}
        else:
            config[part] = sizes
    if not name.startswith("qwen"):
        facts["processor"] = SIZES.get(name, SQUARE)
    return facts


@pytest.fixture
def published(tmp_path, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path / "cache"))

    def of(name):
        file = tmp_path / "published.yaml"
        file.write_text(yaml.safe_dump({name: small_facts(name)}))
        monkeypatch.setattr(inventory, "PUBLISHED", file)
        monkeypatch.setattr(inventory, "cached", lambda checkpoint: "no" if checkpoint else "from scratch")
        return compose([f"model={name}"])

    return of


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHANGES, *TEXT])
def test_the_family_reads_what_was_written(published, tmp_path, monkeypatch, name):
    monkeypatch.setattr(weights, "SHARD", "100KB")
    config, folder = published(name), tmp_path / "checkpoint"
    (remark,) = write_random(config.model, folder)
    assert "the tokenizer of" in remark
    index = next(folder.glob("*.index.json"), None)
    if name != "yi_vl_6b":  # written in the release's own layout, in files of 5 GB
        assert index is not None
        names = json.loads(index.read_text())["weight_map"]
        assert len(set(names.values())) > 1
    task = "arithmetic" if name in TEXT else "clock"
    words = [f"model={name}", f"model.checkpoint={folder}", f"task={task}", "task.source.rows={train:2}"]
    components = Components.build(compose([*words, "curriculum=none"]))
    model: Any = components.family.load()
    assert model.get_input_embeddings().num_embeddings == 3000
    assert str(model.dtype) == "torch.bfloat16"
    batch = components.collator([components.task.rows("train")[0]])
    inputs = {k: v for k, v in batch.items() if hasattr(v, "shape") and k not in ("positions", "targets")}
    assert model(**inputs).logits.isfinite().all()


@pytest.mark.slow
def test_weights_have_the_releases_names(published, tmp_path):
    config, folder = published("qwen2_vl_2b"), tmp_path / "checkpoint"
    write_random(config.model, folder)
    with safe_open(next(folder.glob("*.safetensors")), "pt") as file:
        names = set(file.keys())
    assert "visual.patch_embed.proj.weight" in names
    assert "model.layers.0.mlp.up_proj.weight" in names


@pytest.mark.slow
def test_a_real_tokenizer_is_taken_where_it_is_given(published, tmp_path, shared):
    from benchmarks.vision_checkpoints import write

    release = write("qwen2_vl_2b", shared, tmp_path / "release")
    config, folder = published("qwen2_vl_2b"), tmp_path / "checkpoint"
    file = inventory.PUBLISHED
    facts = yaml.safe_load(file.read_text())
    facts["qwen2_vl_2b"]["config"]["text_config"]["vocab_size"] = 151936
    file.write_text(yaml.safe_dump(facts))
    assert write_random(config.model, folder, str(release)) == []
    family = Components.build(compose(["model=qwen2_vl_2b", f"model.checkpoint={folder}"])).family
    assert len(family.tokenizer) == 151657
    assert family.config.image_token_id == 151655
    assert family.config.text_config.eos_token_id == family.tokenizer.eos_token_id == 151645


def test_unknown_sizes_are_refused(published, tmp_path):
    config = published("qwen2_vl_2b")
    unknown = Component("mine", config.model.target, {**config.model.options, "checkpoint": "me/mine"})
    with pytest.raises(ConfigError, match=r"me/mine isn't on this machine, .* doesn't state its sizes"):
        write_random(unknown, tmp_path / "checkpoint")


@pytest.mark.slow
def test_the_twin_has_the_architecture():
    facts = yaml.safe_load(inventory.PUBLISHED.read_text())
    twins = {
        "qwen25_7b": "qwen25_nano",
        "yi_6b": "llama3_nano",
        "qwen3_4b": "qwen3_nano",
        "gemma3_1b": "gemma3_text_nano",
    }
    assert {name: nano_twin(compose([f"model={name}"]).model, facts[name]).name for name in twins} == twins


@pytest.mark.parametrize(("name", "problem"), [("none", "there is no such folder"), ("empty", "no tokenizer can be")])
def test_a_folder_without_a_tokenizer_is_named_as_what_it_was_given_for(published, tmp_path, name, problem):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"^tokenizer=.*{name}: {problem}"):
        write_random(published("qwen2_vl_2b").model, tmp_path / "checkpoint", str(tmp_path / name))
