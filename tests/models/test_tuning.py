"""Tuning modes: exactly what should move moves, under torch alone and ZeRO-2; adapters are saved and loaded."""

import io
import json
import os
import subprocess
import sys

import pytest
import torch
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel

from benchmarks.family_checks import moved, supervised_logits_error
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.models.head import SupervisedHead
from ntil.models.llava import Llava
from ntil.models.saving import load_saved, save, save_base
from ntil.models.tuning import Parts, adapted_layers, check_tuning, is_frozen, parameter_table, tune
from ntil.preflight import compose_checked
from tests.support.chosen import slow_but

TASK = ["task=clock", "task.source.rows={train:12,validation:2,test:2}", "loss=ntil"]
# CLIP's pooled output is no input of LLaVA.
UNUSED = {"post_layernorm"}
# What moves beside the parts named: nothing else may.
MODES = {
    "tuning=full": {"vision", "projector", "language"},
    "tuning=freeze_vision": {"projector", "language"},
    "tuning=projector": {"projector"},
    "tuning.freeze=[projector]": {"vision", "language"},
    "tuning=lora": {"projector", "language adapters"},
    "tuning=lora tuning.freeze=[projector]": {"language adapters"},
    "tuning=lora tuning.targets=[q_proj,v_proj] tuning.train=[vision]": {"vision", "language adapters"},
    "tuning=lora_all tuning.rank=2": {"projector", "language adapters", "vision adapters"},
}


def expected(model: nn.Module, kinds: set[str]) -> set[str]:
    """Names of the parameters of these parts, spelled out by what each of them is called."""
    prefix = {"vision": "vision_tower", "projector": "multi_modal_projector", "language": "language_model"}
    found = set()
    for kind in kinds:
        part, _, adapters = kind.partition(" ")
        for name, _ in model.named_parameters():
            if f"model.{prefix[part]}." in name and "original_module" not in name:
                found |= {name} if bool(adapters) == (".lora_" in name) else set()
    return found


def tuned(words: list[str]) -> tuple[Components, PreTrainedModel]:
    config = compose_checked([*TASK, "engine=local", *words])
    components = Components.build(config)
    torch.manual_seed(0)
    return components, tune(components.family.load(), components.family, config.tuning)


def inputs_of(components: Components) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Model inputs of three rows, the positions of their answers, and the targets there."""
    batch = components.collator([components.task.rows("train")[i] for i in range(3)])
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    return inputs, inputs.pop("positions"), inputs.pop("targets")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("NTIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


QUICK = ["tuning=full", "tuning=projector", "tuning=lora", "tuning=lora_all tuning.rank=2"]


@pytest.mark.parametrize("mode", slow_but(QUICK, MODES))
def test_what_should_move_moves_and_nothing_else(mode):
    words = mode.split()
    _, model = tuned(words)
    found = moved([*TASK, "engine=local", *words])
    wanted = expected(model, MODES[mode])
    assert set(found["free"]) == wanted
    unused = {name for name in wanted if any(word in name for word in UNUSED) and "lora" not in name}
    assert set(found["moved"]) == wanted - unused


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["tuning=full", "tuning=freeze_vision", "tuning=lora"])
def test_the_same_parameters_move_under_zero_2(mode):
    words = mode.split()
    _, model = tuned(words)
    found = under_zero_2([*TASK, *words])
    wanted = expected(model, MODES[mode])
    assert set(found["free"]) == wanted
    assert {n for n in set(found["moved"]) ^ wanted if not any(word in n for word in UNUSED)} == set()


def under_zero_2(words: list[str]) -> dict[str, list[str]]:
    """`benchmarks.family_checks.moved` in a child, since DeepSpeed leaves a process group behind."""
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    command = [sys.executable, "-m", "benchmarks.family_checks", "engine=zero2", *words]
    child = subprocess.run(command, env={**os.environ, **ranks}, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout.splitlines()[-1])


def test_the_table_shows_parameters_per_part():
    components, model = tuned(["tuning=lora", "tuning.rank=4"])
    counts = Parts(components.family).counts(model)
    plain = Parts(components.family).counts(components.family.load())
    assert counts["vision"] == (plain["vision"][0], 0)
    assert counts["projector"] == (plain["projector"][0], plain["projector"][0])
    adapters = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    # Two layers of rank 4 on q, k, v, o (128 to 128) and gate, up (128 to 320), down (320 to 128).
    assert adapters == 2 * 4 * (4 * 256 + 3 * 448)
    assert counts["language"] == (plain["language"][0] + adapters, adapters)
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(parameter_table(model, components.family))
    assert f"{adapters:,}" in console.export_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["tuning.freeze=[visoin]"],
            r"no part 'visoin'.*mean 'vision'\? \(parts: vision, projector, language\)",
        ),
        (["tuning.freeze=[vision,projector,language]"], "leaves nothing to train"),
        (["tuning=lora", "tuning.freeze=[language]"], "without a part to adapt"),
        (
            ["tuning=lora", "tuning.adapt=[projector]"],
            r"adapters in 'projector' \(only in language, vision\)",
        ),
        (["tuning=lora", "tuning.train=[language]"], "take tuning=full"),
        (["tuning=lora_all", "tuning.train=[vision]"], "tuning.adapt and tuning.train both name 'vision'"),
        (["tuning.mode=qlora"], "tuning.mode must be full or lora"),
        (["tuning.rank=64"], "tuning.rank=64 is for adapters, and tuning.mode is full; add tuning=lora"),
        (["tuning.adapt=[vision]"], r"tuning.adapt=\['vision'\] is for adapters"),
        (["tuning=freeze_vision", "tuning.train=[projector]"], "tuning.train=.* is for adapters"),
        (["tuning.rank=0"], "must be above 0"),
        (["tuning.dropout=1"], r"must lie in \[0, 1\)"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_is_loaded(words, message):
    with pytest.raises(ConfigError, match=message):
        compose_checked([*TASK, *words])


def test_targets_that_are_not_there_name_those_that_are():
    components = Components.build(compose_checked(TASK))
    tuning = compose_checked([*TASK, "tuning=lora", "tuning.targets=[query]"]).tuning
    with pytest.raises(ConfigError, match=r"none in language; its linear layers: .*gate_proj.*q_proj"):
        adapted_layers(components.family.load(), components.family, tuning)


def test_a_frozen_tower_is_known_from_the_config():
    def kept(*words: str) -> bool:
        tuning = compose_checked([*TASK, *words]).tuning
        check_tuning(tuning, Llava)
        return is_frozen(tuning, Llava, "vision")

    assert not kept("tuning=full")
    assert kept("tuning=freeze_vision")
    assert kept("tuning=lora")
    assert not kept("tuning=lora_all")
    assert not kept("tuning=lora", "tuning.train=[vision]")
    assert kept("tuning=lora_all", "tuning.freeze=[vision]")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("where", ["lm_head", "elsewhere"])
def test_supervised_logits_under_adapters_are_the_full_ones(tied, where):
    components = Components.build(compose_checked(TASK))
    components.family.config.tie_word_embeddings = components.family.config.text_config.tie_word_embeddings = tied
    torch.manual_seed(0)
    plain = components.family.load()
    assert (plain.lm_head.weight is plain.get_input_embeddings().weight) == tied
    targets = "[q_proj,lm_head]" if where == "lm_head" else "[q_proj]"
    tuning = compose_checked([*TASK, "tuning=lora", f"tuning.targets={targets}"]).tuning
    model = tune(plain, components.family, tuning)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    rows = [components.task.rows("train")[i] for i in range(3)]
    assert supervised_logits_error(components, model.eval(), rows) < 1e-5
    # The adapter itself takes part: without it the logits are others.
    inputs, positions, _ = inputs_of(components)
    head = SupervisedHead(model)
    with torch.no_grad():
        with_adapter = head.logits(model, inputs, positions)
        with model.disable_adapter():
            without = head.logits(model, inputs, positions)
    assert with_adapter.shape == without.shape == (len(positions), len(components.family.tokenizer))
    assert (with_adapter - without).abs().max() > 1e-3


def gradient_of(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad.clone()


def test_gradients_under_checkpointing_are_the_same():
    components, model = tuned(["tuning=lora", "tuning.train=[]"])
    inputs, positions, targets = inputs_of(components)
    head, gradients = SupervisedHead(model), []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train().zero_grad()
        nn.functional.cross_entropy(head.logits(model, inputs, positions), targets).backward()
        gradients.append({n: gradient_of(p) for n, p in model.named_parameters() if p.requires_grad})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    assert any(g.abs().max() > 0 for g in checkpointed.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_a_saved_adapter_on_its_base_is_the_model(tmp_path):
    config = compose_checked([*TASK, "tuning=lora"])
    components = Components.build(config)
    base = components.family.load()
    save_base(base, components.family, tmp_path)
    model = tune(base, components.family, config.tuning)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.05)
    save(model, components.family, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors", "base"}
    inputs, _, _ = inputs_of(components)
    with torch.no_grad():
        wanted = model.eval()(**inputs).logits
        torch.manual_seed(1)  # another random base would be found out
        found = load_saved(components.family, tmp_path).eval()(**inputs).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


WHOLE_PARTS = [["vision"], ["projector"], ["vision", "projector"]]


@pytest.mark.parametrize("names", WHOLE_PARTS, ids=",".join)
@pytest.mark.parametrize("model_name", ["qwen2_vl_nano", "qwen2_5_vl_nano", "qwen3_vl_nano", "llava_ov_nano"])
def test_parts_that_are_trained_whole_are_these_alone_and_load_again(tmp_path, model_name, names):
    """Qwen's projectors lie inside their vision towers."""
    words = [f"model={model_name}", "tuning=lora", f"tuning.train=[{','.join(names)}]", "loss=ce"]
    components = Components.build(compose_checked([*TASK, "engine=local", *words]))
    torch.manual_seed(0)
    base = components.family.load()
    save_base(base, components.family, tmp_path)
    plain = Parts(components.family).counts(base)
    model = tune(base, components.family, compose_checked([*TASK, *words]).tuning)
    counts = Parts(components.family).counts(model)
    for part in ("vision", "projector"):
        assert counts[part] == (plain[part][0], plain[part][0] if part in names else 0)

    inputs, positions, targets = inputs_of(components)
    nn.functional.cross_entropy(SupervisedHead(model).logits(model, inputs, positions), targets).backward()
    unused = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not [name for name in unused if not any(word in name for word in UNUSED)]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.05 * parameter.grad.sign()
    save(model, components.family, tmp_path)
    with torch.no_grad():
        trained = model.eval()(**inputs).logits
        loaded = load_saved(components.family, tmp_path).eval()(**inputs).logits
    torch.testing.assert_close(loaded, trained, atol=1e-5, rtol=1e-5)
