"""`ntil models`: sizes against the published ones, memory against DeepSpeed's own formula, cache look-up offline."""

import json

import pytest
import yaml

from ntil.commands.models import main
from ntil.config.compose import choices, compose
from ntil.config.errors import ConfigError
from ntil.config.schema import Component
from ntil.models.inventory import PUBLISHED, cached, describe, estimate, needed_memory
from ntil.numbers.tokenizers import keeps_digits_apart
from tests.support.families import model_config

# Total parameters as the hub shows them for the releases' safetensors.
SIZES = {
    "llava15_7b": 7_063_427_072,
    "qwen2_vl_2b": 2_208_985_600,
    "qwen2_vl_7b": 8_291_375_616,
    "internvl3_5_1b": 1_060_897_792,
    "qwen25_7b": 7_615_616_512,
    "qwen25_1_5b": 1_543_714_304,
    "llama3_8b": 8_030_261_248,
    "yi_6b": 6_061_035_520,
    "baichuan2_7b": 7_505_973_248,
}


# Millions of parameters by part: vision, projector, language. Qwen3-VL's projector has the deepstack mergers.
PARTS = {
    "qwen2_5_vl_3b": (632.0, 36.7, 3085.9),
    "qwen2_5_vl_7b": (632.0, 44.6, 7615.6),
    "qwen3_vl_2b": (306.2, 100.7, 1720.6),
    "qwen3_vl_4b": (306.2, 109.1, 4022.5),
    "qwen3_vl_8b": (415.9, 160.5, 8190.7),
    "paligemma2_3b": (413.3, 2.7, 2617.1),
    "gemma3_4b": (416.9, 2.95, 3880.3),
    "internvl3_1b": (304.0, 4.5, 629.7),
    "internvl3_2b": (304.0, 8.7, 1776.3),
    "internvl3_8b": (304.0, 27.5, 7612.8),
    "internvl3_5_1b": (304.0, 5.3, 751.6),
    "internvl3_5_2b": (304.0, 12.6, 2031.7),
    "internvl3_5_8b": (304.0, 33.6, 8190.7),
    "smolvlm2_256m": (86.4, 7.1, 163.0),
    "smolvlm2_500m": (86.4, 11.8, 409.3),
    "smolvlm2_2_2b": (413.0, 21.2, 1812.6),
    "llava_ov_0_5b": (397.8, 1.8, 494.1),
    "llava_ov_7b": (397.8, 17.0, 7616.1),
}


# Billions of parameters.
TOTALS = {
    "qwen2_5_vl_3b": 3.755,
    "qwen2_5_vl_7b": 8.292,
    "qwen3_vl_2b": 2.128,
    "qwen3_vl_4b": 4.438,
    "qwen3_vl_8b": 8.767,
    "paligemma2_3b": 3.033,
    "qwen3_0_6b": 0.596,
    "qwen3_1_7b": 1.721,
    "qwen3_4b": 4.022,
    "qwen3_8b": 8.191,
    "smollm2_135m": 0.135,
    "smollm2_360m": 0.362,
    "smollm2_1_7b": 1.711,
    "llama3_2_1b": 1.236,
    "llama3_2_3b": 3.213,
    "gemma3_270m": 0.268,
    "gemma3_1b": 1.000,
    "gemma3_4b": 4.300,
    "internvl3_1b": 0.938,
    "internvl3_2b": 2.089,
    "internvl3_8b": 7.944,
    "internvl3_5_1b": 1.061,
    "internvl3_5_2b": 2.348,
    "internvl3_5_8b": 8.528,
    "smolvlm2_256m": 0.257,
    "smolvlm2_500m": 0.508,
    "smolvlm2_2_2b": 2.247,
    "llava_ov_0_5b": 0.894,
    "llava_ov_7b": 8.031,
}


def model(name: str) -> Component:
    return compose([f"model={name}"]).model


def test_every_checkpoint_is_described():
    full = {name for name in choices("model") if model_config(name)["checkpoint"]}
    assert len(full) >= 11
    assert full - set(yaml.safe_load(PUBLISHED.read_text())) == set()


def test_published_facts_are_of_the_checkpoint_that_the_config_names():
    for name, facts in yaml.safe_load(PUBLISHED.read_text()).items():
        assert facts["checkpoint"] == model_config(name)["checkpoint"], name


def test_a_checkpoint_of_another_size_is_not_taken_for_it():
    other = compose(["model=qwen25_1_5b", "model.checkpoint=Qwen/Qwen2.5-32B"])
    described = describe(other.model)
    assert described["source"] is None
    assert "parameters" not in described
    assert needed_memory(other) is None


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name):
    assert describe(model(name))["parameters"] == SIZES[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", TOTALS)
def test_parts_have_their_sizes(name):
    found = describe(model(name))
    assert found["parameters"] / 1e9 == pytest.approx(TOTALS[name], abs=0.0006)
    of_parts = [found["parts"][part] / 1e6 for part in ("vision", "projector", "language") if part in found["parts"]]
    assert of_parts == pytest.approx(PARTS.get(name, [found["parameters"] / 1e6]), abs=0.06)


def test_a_model_from_scratch():
    found = describe(model("llava_nano"), gpus=2, rank=4)
    assert found["parameters"] == sum(found["parts"].values())
    assert found["cached"] == "from scratch"
    assert found["digits"] is True
    assert found["source"] == "config"
    # Two layers of rank 4 on q, k, v, o (128 to 128), gate, up (128 to 320), down (320 to 128); the projector.
    assert found["lora_trainable"] == 2 * 4 * (4 * 256 + 3 * 448) + found["parts"]["projector"]


def test_memory_is_partitioned_as_the_stage_says():
    size, largest = 10**9, 10**8
    # 2 bytes of weights and 18 of gradients, float32 weights and moments, partitioned where the stage says so.
    assert estimate(0, size, 0, largest, 8) == 20 * size
    assert estimate(1, size, 0, largest, 8) == pytest.approx(2 * size + 6 * size + 12 * size / 8)
    assert estimate(2, size, 0, largest, 8) == 2 * size + 18 * size / 8
    assert estimate(3, size, 0, largest, 8) == 4 * largest + 18 * size / 8
    assert estimate(2, size, 7 * size, largest, 8) - estimate(2, size, 0, largest, 8) == 14 * size
    assert estimate(3, size, 8 * size, largest, 8) - estimate(3, size, 0, largest, 8) == 2 * size
    assert len({estimate(stage, size, 0, largest, 1) for stage in range(3)}) == 1


@pytest.mark.slow
def test_the_digits_published_are_those_of_the_real_tokenizers(shared):
    from transformers import PreTrainedTokenizerFast

    at = {
        "llava15_7b": "llava15",
        "qwen2_vl_2b": "qwen2_vl",
        "qwen2_5_vl_3b": "qwen2_5",
        "qwen3_vl_2b": "qwen3",
        "llama3_8b": "llama3",
        "yi_6b": "yi",
        "paligemma2_3b": "paligemma",
        "qwen3_0_6b": "qwen3",
        "smollm2_135m": "smollm2",
        "llama3_2_1b": "llama3",
        "gemma3_270m": "gemma3",
    }
    at |= {"paligemma_3b": "paligemma", "qwen25_7b": "qwen2_5", "minicpm3_4b": "minicpm3", "baichuan2_7b": "baichuan2"}
    facts = yaml.safe_load(PUBLISHED.read_text())
    for name, folder in at.items():
        file = shared / "assets" / "tokenizers" / folder / "tokenizer.json"
        assert keeps_digits_apart(PreTrainedTokenizerFast(tokenizer_file=str(file))) == facts[name]["digits"], name


def test_what_is_cached_is_looked_up_offline(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached(None) == "from scratch"
    assert cached(str(tmp_path)) == "folder"
    assert cached("a/b") == "no"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "123"
    snapshot.mkdir(parents=True)
    (tmp_path / "models--a--b" / "refs").mkdir()
    (tmp_path / "models--a--b" / "refs" / "main").write_text("123")
    (snapshot / "config.json").write_text("{}")
    assert cached("a/b") == "partly"
    shards = {"weight_map": {"x": "model-1.safetensors", "y": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(shards))
    (snapshot / "model-1.safetensors").touch()
    assert cached("a/b") == "partly"
    (snapshot / "model-2.safetensors").touch()
    assert cached("a/b") == "yes"


def test_the_command_prints_a_table_or_json(capsys):
    assert main(["qwen25_1_5b", "llava_nano", "gpus=4"]) == 0
    shown = capsys.readouterr().out
    assert "1.54 B" in shown
    assert "from scratch" in shown
    assert "on 4 GPUs" in shown
    assert main(["llama3_8b", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["digits"] is False
    assert found["checkpoint"] == "meta-llama/Meta-Llama-3-8B"
    for words in (["llama4"], ["gpus=none"], ["size=3"]):
        with pytest.raises(ConfigError):
            main(words)


@pytest.mark.slow
def test_every_way_to_train_has_its_memory(capsys):
    assert main(["llama3_2_1b", "--modes", "gpus=8"]) == 0
    rows = [line.split("│")[2:6] for line in capsys.readouterr().out.splitlines() if "llama3_2_1b" in line]
    stages = {mode.strip(): sizes.split() for mode, _, sizes, _ in rows}
    assert {"full", "full, sgd", "full, ema", "dora", "rslora", "qlora"} <= stages.keys()
    assert float(stages["full, sgd"][0]) == pytest.approx(12 / 20 * float(stages["full"][0]), rel=0.03)
    assert stages["full, adafactor"][2:] == ["-", "/", "-", "/", "-"]  # it needs matrices
    assert stages["full, ema"][-1] == stages["qlora"][-1] == "-"
    assert float(stages["qlora"][0]) < 0.6 * float(stages["lora"][0])
    with pytest.raises(ConfigError, match="--modes takes names of models"):
        main(["--modes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jsn"], "no option '--jsn'; did you mean '--json'"),
        (["llava_nano", "--json", "--modes"], "can't be had together"),
    ],
)
def test_options_that_are_none(words, message):
    with pytest.raises(ConfigError, match=message):
        main(words)
