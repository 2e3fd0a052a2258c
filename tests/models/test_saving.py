"""What a run saves is what it loads, under names that a resumed Trainer finds again."""

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import GenerationConfig

from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer
from tests.support.families import VISION_NANO


@pytest.fixture(scope="module", params=VISION_NANO)
def parts(request):
    words = [f"model={request.param}", "task=clock", "loss=ntil", "tracker=none", "task.source.rows={train:4}"]
    components = Components.build(compose_checked(words))
    torch.manual_seed(0)
    return components, components.family.load().eval(), components.task.rows("train")


def logits(components, model, rows):
    batch = components.collator([rows[i] for i in range(3)])
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in ("positions", "targets")}
    with torch.no_grad():
        return model(**inputs).logits


def test_nano_means_under_two_million(parts):
    assert sum(p.numel() for p in parts[1].parameters()) < 2_000_000


def test_every_parameter_has_a_part(parts):
    components, model, _ = parts
    several = [(prefix,) if isinstance(prefix, str) else prefix for prefix in components.family.parts.values()]
    prefixes = tuple(prefix for of_part in several for prefix in of_part)
    assert set(components.family.parts) == {"vision", "projector", "language"}
    names = [name for name, _ in model.named_parameters()]
    assert [n for n in names if not n.startswith(prefixes)] in ([], ["lm_head.weight"])
    for prefix in prefixes:
        assert any(n.startswith(prefix) for n in names)


def test_a_saved_model_says_what_ends_its_answers(parts, tmp_path):
    """Here every generation is told; `generate` of others reads it from the folder."""
    components, model, _ = parts
    components.family.save(model, tmp_path / "model")
    published = GenerationConfig.from_pretrained(tmp_path / "model")
    assert published.eos_token_id == components.family.end_id
    assert published.pad_token_id == components.family.tokenizer.pad_token_id


def test_a_saved_model_gives_the_same_logits(parts, tmp_path):
    components, model, rows = parts
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    components.family.save(model, tmp_path / "model")
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    torch.testing.assert_close(
        logits(components, components.family.load(tmp_path / "model"), rows),
        logits(components, model, rows),
        atol=0,
        rtol=0,
    )


@pytest.mark.parametrize("name", VISION_NANO)
def test_a_saved_model_can_be_the_start_of_another_run(name, tmp_path):
    words = ["task=clock", "loss=ntil", "tracker=none", "task.source.rows={train:4}", f"model={name}"]
    components = Components.build(compose_checked(words))
    torch.manual_seed(0)
    model, rows = components.family.load().eval(), components.task.rows("train")
    components.family.save(model, tmp_path / "model")
    again = Components.build(compose_checked([*words, f"model.checkpoint={tmp_path}/model"]))
    one, two = (s.collator.encode(rows[0], "12:45") for s in (components, again))
    assert (one.prompt_ids, one.answer_ids) == (two.prompt_ids, two.answer_ids)
    assert again.vocab.digit_ids == components.vocab.digit_ids
    torch.testing.assert_close(
        logits(again, again.family.load(), rows), logits(components, model, rows), atol=0, rtol=0
    )


@pytest.mark.parametrize(
    ("name", "key", "own"),
    [
        ("llava_nano", "image_size=96", 48),
        ("llava_nano", "vision.hidden_size=192", 96),
        ("yi_vl_nano", "patch_size=6", 12),
        ("paligemma_nano", "language.num_hidden_layers=3", 2),
        ("qwen2_vl_nano", "patch_size=12", 6),
        ("qwen25_nano", "language.hidden_size=64", 128),
        ("llama3_nano", "language.num_key_value_heads=4", 2),
        ("baichuan2_nano", "language.num_hidden_layers=3", 4),
        ("minicpm3_nano", "language.kv_lora_rank=16", 32),
    ],
)
def test_a_size_that_the_start_of_a_run_does_not_have_is_refused(name, key, own, tmp_path):
    words = ["task=clock" if name in VISION_NANO else "task=arithmetic", "loss=ntil", "tracker=none", f"model={name}"]
    family = Components.build(compose_checked(words)).family
    family.save(family.load(), tmp_path)
    words.append(f"model.checkpoint={tmp_path}")
    Components.build(compose_checked(words))
    with pytest.raises(ConfigError, match=rf"model.{key} is for a model from scratch, and .* has {own}; leave one"):
        Components.build(compose_checked([*words, f"model.{key}"]))


def test_parameters_in_one_large_tensor_are_saved_too(parts, tmp_path):
    """DeepSpeed's ZeRO lays all parameters out in one."""
    components, model, rows = parts
    model = copy.deepcopy(model)
    parameters = list(model.parameters())
    flat, start = torch.cat([p.detach().reshape(-1) for p in parameters]), 0
    for p in parameters:
        p.data = flat[start : start + p.numel()].view_as(p)
        start += p.numel()
    components.family.save(model, tmp_path / "model")
    again = components.family.load(tmp_path / "model")
    torch.testing.assert_close(logits(components, again, rows), logits(components, model, rows), atol=0, rtol=0)


def test_a_trainers_checkpoint_has_the_models_own_names(parts, tmp_path):
    components, model, _ = parts
    components.family.save(model, tmp_path / "model")
    for at, again in (("scratch", model), ("loaded", components.family.load(tmp_path / "model"))):
        again.save_pretrained(tmp_path / at)  # as Trainer does
        saved = load_file(Path(tmp_path, at, "model.safetensors"))
        result = again.load_state_dict(saved, strict=False)  # as Trainer does
        assert result.unexpected_keys == []
        assert result.missing_keys in ([], ["lm_head.weight"])
        assert result.missing_keys == [] or again.config.tie_word_embeddings


@pytest.mark.slow
def test_a_resumed_trainer_goes_on_with_its_weights(tmp_path):
    """Without DeepSpeed's own checkpoints: two steps, a new process' trainer, two more, are four steps."""
    more = ["optim.steps=4", "optim.batch_size=4", "optim.warmup=1", "evaluation.every_steps=0", "save_every=2"]
    words = ["model=llava_nano", "task=clock", "loss=ce", "engine=local", "tracker=none", "task.source.rows={train:16}"]
    config = compose_checked([*words, *more, "curriculum=none"])
    components = Components.build(config)
    rows = components.task.rows("train")

    def trainer():
        torch.manual_seed(0 if not (tmp_path / "checkpoint-2").exists() else 1)
        return build_trainer(config, components, components.family.load(), rows, tmp_path)

    whole = trainer()
    whole.train()
    again = trainer()
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, weight in whole.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], weight, atol=1e-6, rtol=0, msg=name)
