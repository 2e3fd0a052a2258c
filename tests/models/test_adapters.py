"""DoRA, rsLoRA, adapters on some blocks, a base in 4 bits: what they train, what merging gives, what is refused."""

import types
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from ntil.components import Components
from ntil.config.compose import choices, compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.distributed.zero3 import full_size
from ntil.models import base, quantization, saving
from ntil.models.quantization import quantization_of, quantized_size
from ntil.models.saving import check_saved, load_merged, load_saved, merged, save, save_base
from ntil.models.tuning import Parts, tune
from ntil.preflight import compose_checked

TEXT = ["task=arithmetic", "model=qwen25_nano", "engine=local"]


def tuned(*words):
    config = compose_checked([*TEXT, *words])
    components = Components.build(config)
    torch.manual_seed(0)
    plain = components.family.load()
    return components.family, config, plain, lambda: tune(plain, components.family, config.tuning)


def trained_a_step(model):
    """The model with adapters that do something: after a step each of them differs from its beginning."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return model.eval()


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Model with `tie_word_embeddings")
@pytest.mark.parametrize(
    "words",
    [
        ["tuning=lora"],
        ["tuning=dora"],
        ["tuning=rslora"],
        ["tuning=dora", "tuning.rslora=true", "tuning.layers=[1]", "tuning.targets=[q_proj,down_proj]"],
        ["tuning=lora", "tuning.targets=[lm_head,q_proj]"],
    ],
)
def test_merged_adapters_give_the_logits_of_the_adapters(tmp_path, words):
    family, _config, plain, tune_it = tuned(*words)
    save_base(plain, family, tmp_path)
    model = trained_a_step(tune_it())
    ids = torch.arange(3, 23).reshape(2, 10) % 50
    with torch.no_grad():
        logits = model(input_ids=ids).logits
        save(model, family, tmp_path)
        loaded = load_saved(family, tmp_path)
        assert torch.equal(loaded(input_ids=ids).logits, logits)
        family.save(merged(loaded), tmp_path / "merged")
        again = family.load(tmp_path / "merged")
        assert not any("lora" in name for name, _ in again.named_parameters())
        torch.testing.assert_close(again(input_ids=ids).logits, logits, rtol=1e-4, atol=1e-4)
        assert (family.load(tmp_path / "base")(input_ids=ids).logits - logits).abs().max() > 0.01


TIED = "model.language.tie_word_embeddings=true"


def adapted_head(tmp_path, *words):
    """Saved adapters on a head that is the input embedding's weight, their family, and the logits of some tokens."""
    family, _config, plain, tune_it = tuned("tuning=lora", "tuning.targets=[lm_head,q_proj]", TIED, *words)
    assert plain.get_input_embeddings().weight is plain.get_output_embeddings().weight
    save_base(plain, family, tmp_path)
    model = trained_a_step(tune_it())
    save(model, family, tmp_path)
    with torch.no_grad():
        return family, model(input_ids=IDS).logits


IDS = torch.arange(3, 23).reshape(2, 10) % 50


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Model with `tie_word_embeddings")
@pytest.mark.parametrize("words", [(), ("tuning.dora=true",)])
def test_merged_adapters_of_a_tied_head_leave_the_input_embedding(tmp_path, words):
    family, logits = adapted_head(tmp_path, *words)
    one = load_merged(family, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(one(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-4)
        family.save(one, tmp_path / "merged")
        again = family.load(tmp_path / "merged")
        torch.testing.assert_close(again(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-4)
    before = family.load(tmp_path / "base").get_input_embeddings().weight
    assert torch.equal(again.get_input_embeddings().weight, before)
    assert not again.config.tie_word_embeddings


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Model with `tie_word_embeddings")
def test_adapters_of_a_tied_head_are_merged_into_an_unpacked_base_too(tmp_path, monkeypatch):
    """A stand-in for a base in 4 bits: what is unpacked is the base as it was saved."""
    family, logits = adapted_head(tmp_path)
    base_model = family.load(tmp_path / "base")
    base_model.dequantize = lambda dtype: base_model
    monkeypatch.setattr(saving, "find_spec", lambda name: object())
    monkeypatch.setattr(family, "quantization", object())
    monkeypatch.setattr(family, "load", lambda *_: base_model)
    with torch.no_grad():
        torch.testing.assert_close(load_merged(family, tmp_path)(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`", "ignore:Model with `tie_word_embeddings")
def test_merged_adapters_of_a_tied_embedding_leave_the_head():
    """`tuning.targets` takes linear layers alone; an adapter that peft put on the embedding merges as well."""
    _family, _config, plain, _ = tuned("tuning=lora", TIED)
    model = trained_a_step(get_peft_model(plain, LoraConfig(target_modules=["embed_tokens"])))
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
        torch.testing.assert_close(merged(model)(input_ids=IDS).logits, logits, rtol=1e-4, atol=1e-4)


def test_a_head_without_adapters_stays_tied(tmp_path):
    family, _config, plain, tune_it = tuned("tuning=lora", TIED)
    save_base(plain, family, tmp_path)
    save(trained_a_step(tune_it()), family, tmp_path)
    one = load_merged(family, tmp_path)
    assert one.config.tie_word_embeddings
    assert one.get_input_embeddings().weight is one.get_output_embeddings().weight


def test_what_dora_and_rslora_change():
    models = {name: tuned(f"tuning={name}", "tuning.rank=4")[3]() for name in ("lora", "dora", "rslora")}
    sizes = {name: sum(p.numel() for p in m.parameters() if p.requires_grad) for name, m in models.items()}
    layers = [m for m in models["lora"].modules() if hasattr(m, "lora_A")]
    assert sizes["rslora"] == sizes["lora"]
    assert sizes["dora"] == sizes["lora"] + sum(layer.out_features for layer in layers)  # a norm for each row
    scales = {
        name: {layer.scaling["default"] for layer in m.modules() if hasattr(layer, "lora_A")}
        for name, m in models.items()
    }
    assert scales == {"lora": {2.0}, "dora": {2.0}, "rslora": {4.0}}  # 8 / 4 and 8 / sqrt(4)


def test_adapters_on_some_blocks():
    family, _, _, tune_it = tuned("tuning=lora", "tuning.layers=[1]")
    names = {name for name, p in tune_it().named_parameters() if p.requires_grad}
    assert names
    assert all(".layers.1." in name for name in names)
    with pytest.raises(ConfigError, match=r"tuning.layers=\[0, 7\]: language has no block 7; its blocks are 0\.\.3"):
        tuned("tuning=lora", "tuning.layers=[0,7]")[3]()
    assert Parts(family).names == ["language"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tuning.dora=true"], "tuning.dora=True is for adapters, and tuning.mode is full; add tuning=lora"),
        (["tuning=lora", "tuning.layers=[]"], "leaves no layer to adapt"),
        (["tuning=lora", "tuning.layers=[-1]"], "tuning.layers must be at least 0"),
        (["tuning=lora", "tuning.quantize=int4"], "tuning.quantize must be nf4 or fp4, or null, got 'int4'"),
        (["tuning=qlora", "tuning.dora=true"], "merged, such adapters give other logits"),
        (["tuning=qlora"], "is made from scratch, with no weights to quantize"),
        (["model=qwen2_vl_2b", "tuning=qlora", "engine=zero3"], "ZeRO-3 can't partition weights in 4 bits"),
        (["model=qwen2_vl_2b", "tuning=qlora", "engine.compile=true"], "torch.compile isn't supported"),
        (["model=qwen2_vl_2b", "tuning=qlora"], "needs the package bitsandbytes, which isn't installed here"),
    ],
)
def test_what_adapters_are_refused(monkeypatch, words, message):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        compose_checked(words)


def test_a_base_in_4_bits_needs_a_gpu(monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: object())
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"tuning.quantize=nf4 needs a GPU, and there is none here"):
        compose_checked(["model=qwen2_vl_2b", "tuning=qlora"])
    compose_checked(["model=qwen2_vl_2b", "tuning=qlora"], on_this_machine=False)


def test_switches_that_are_off_change_no_hash():
    plain = config_hash(compose(["tuning=lora"]))
    assert config_hash(compose(["tuning=lora", "tuning.dora=false", "tuning.rslora=false"])) == plain
    others = {config_hash(compose([word])) for word in ("tuning=dora", "tuning=rslora", "tuning=qlora")}
    assert len({*others, plain, config_hash(compose(["tuning=lora", "tuning.layers=[1]"]))}) == 5


FAST = ("llava_nano", "qwen2_vl_nano", "qwen25_nano", "yi_vl_nano")
NANO = [
    pytest.param(name, marks=[] if name in FAST else pytest.mark.slow)
    for name in choices("model")
    if name.endswith("_nano")
]


@pytest.mark.parametrize("name", NANO)
def test_4_bits_are_for_the_linear_layers_of_the_language_model(name):
    """transformers' own rule for `BitsAndBytesConfig`, applied to our names, picks what the estimate counts."""
    config = compose([f"model={name}", "tuning=qlora"])
    family = Components.build(config).family if "text" in name else _family(config)
    asked = quantization_of(config.tuning, family)
    model = family.load()
    skipped = asked.llm_int8_skip_modules
    linear = {n: m for n, m in model.named_modules() if type(m) is nn.Linear}
    converted = {n for n in linear if should_convert_module(n, skipped)}
    parts = Parts(family)
    assert converted
    assert {parts.of(n) for n in converted} == {"language"}
    assert {n for n in linear if parts.of(n) == "language"} - converted <= {"lm_head"}
    assert sum(linear[n].weight.numel() for n in converted) == quantized_size(model, family)
    assert (asked.bnb_4bit_quant_type, asked.bnb_4bit_use_double_quant) == ("nf4", True)
    assert asked.bnb_4bit_compute_dtype == family.dtype


def _family(config):
    from ntil.config.build import build

    return build("model", config.model)


def test_the_base_is_read_with_it_and_counted_whole(monkeypatch, tmp_path):
    """A stand-in for bitsandbytes: the arguments of `from_pretrained`, and two weights of 4 bits in a byte."""
    config = compose([*TEXT, "tuning=qlora", "model.dtype=bfloat16"])
    family: Any = Components.build(config).family
    asked: dict[str, Any] = {}
    monkeypatch.setattr(base, "ready", lambda model: model)
    monkeypatch.setattr(
        "ntil.models.causal_lm.read_weights", lambda kind, source, **how: asked.update(how, source=source)
    )
    family.from_checkpoint(tmp_path)
    assert asked["quantization_config"] is family.quantization
    assert asked["quantization_config"].load_in_4bit
    assert asked["dtype"] == torch.bfloat16
    packed: Any = nn.Parameter(torch.zeros(32, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = types.SimpleNamespace(shape=(8, 8))
    assert full_size(packed) == 64
    plain = Components.build(compose([*TEXT, "tuning=lora"])).family
    assert "quantization_config" not in plain.reading_options()


def test_the_base_of_adapters_may_lie_in_another_folder(tmp_path):
    family, _config, plain, tune_it = tuned("tuning=lora")
    save_base(plain, family, tmp_path / "model.unfinished")
    model = trained_a_step(tune_it()).eval()
    save(model, family, tmp_path / "replay")
    torch.manual_seed(1)  # a base that is drawn anew is another one
    loaded = load_saved(family, tmp_path / "replay", base_in=tmp_path / "model.unfinished").eval()
    ids = torch.arange(3, 23).reshape(2, 10) % 50
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)
        drawn = load_saved(family, tmp_path / "replay").eval()
        assert not torch.equal(drawn(input_ids=ids).logits, model(input_ids=ids).logits)


def test_an_adapter_is_read_from_its_safetensors_alone(tmp_path, monkeypatch):
    """peft takes adapter_model.bin, a pickle, where there is no adapter_model.safetensors."""
    family, _config, plain, tune_it = tuned("tuning=lora")
    save_base(plain, family, tmp_path)
    save(tune_it(), family, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    torch.save(load_file(weights), tmp_path / "adapter_model.bin")
    weights.rename(tmp_path / "other.safetensors")
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: pytest.fail("unpickled"))
    with pytest.raises(ConfigError, match=r"holds no adapter_model\.safetensors.*its pickles are not read"):
        load_saved(family, tmp_path)


@pytest.mark.parametrize(("text", "message"), [("[]", "holds list where an object belongs"), ("{", "no JSON")])
def test_a_damaged_adapter_config_is_one_sentence(tmp_path, text, message):
    (tmp_path / "adapter_model.safetensors").touch()
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(ConfigError, match=rf"adapter_config\.json: {message}"):
        check_saved(tmp_path)
