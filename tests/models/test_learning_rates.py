"""Learning rates of parts: what is refused, and that a full-size checkpoint is not trained as if it were random."""

import pytest
import torch

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.models.learning_rates import FULL_SIZE, LearningRates
from ntil.models.tuning import Parts, tune
from ntil.preflight import check, compose_checked

RATES = ["optim.lr=1e-3", "optim.lr_of.projector=1e-4", "optim.lr_of.vision=3e-5"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.lr_of.projektor=1"], r"Llava has no part 'projektor'; did you mean 'projector'\?"),
        (["model=qwen25_nano", "task=arithmetic", "optim.lr_of.vision=1"], "CausalLM has no part 'vision'"),
        (["tuning=freeze_vision", "optim.lr_of.vision=1e-4"], "vision isn't trained .*optim.lr_of.vision=null"),
        (["tuning=lora", "optim.lr_of.vision=1e-4"], "vision isn't trained"),
        (["tuning=projector", "optim.lr_of.language=1e-4"], "language isn't trained"),
        (["optim.lr_of.projector=-1"], "optim.lr_of.projector must be above 0"),
    ],
)
def test_what_has_no_learning_rate_of_its_own(words, message):
    with pytest.raises(ConfigError, match=message):
        compose_checked(words)
    compose_checked(["tuning=lora_all", "optim.lr_of.vision=1e-4"])  # adapters move


@pytest.mark.parametrize("tuning", ["tuning=full", "tuning=lora", "tuning=projector", "tuning=freeze_vision"])
def test_every_trained_parameter_is_in_the_group_of_its_part(tuning):
    rates = {"vision": 3e-5, "projector": 1e-4} if tuning == "tuning=full" else {"projector": 1e-4}
    config = compose([tuning, "optim.lr=1e-3", *(f"optim.lr_of.{part}={lr}" for part, lr in rates.items())])
    family = Components.build(config).family
    model = tune(family.load(), family, config.tuning)
    decayed = [name for name, p in model.named_parameters() if p.dim() > 1]
    groups = LearningRates(family, config.optim).groups(model, decayed)
    found = {id(p): group for group in groups for p in group["params"]}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(trained)
    for name, parameter in trained.items():
        group = found[id(parameter)]
        assert group["lr"] == rates.get(Parts(family).of(name), 1e-3), name
        assert group["weight_decay"] == (0.01 if parameter.dim() > 1 else 0), name
    assert all(group["params"] for group in groups)


def test_rates_that_are_the_common_one_make_the_common_groups():
    config = compose(["optim.lr_of.projector=1e-3"])
    family = Components.build(config).family
    model = family.load()
    decayed = [name for name, p in model.named_parameters() if p.dim() > 1]
    groups = LearningRates(family, config.optim).groups(model, decayed)
    names = {id(p): name for name, p in model.named_parameters()}
    assert [[names[id(p)] for p in group["params"]] for group in groups] == [
        [name for name, p in model.named_parameters() if (name in decayed) == flag] for flag in (True, False)
    ]


def test_the_schedule_of_a_part_is_its_own():
    config = compose(RATES)
    rates = LearningRates(Components.build(config).family, config.optim)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1e-3, 1e-4, 3e-5)]
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    assert rates.now(optimizer.param_groups) == {"projector": 1e-4, "vision": 3e-5}
    optimizer.step()
    schedule.step()
    assert rates.now(optimizer.param_groups) == pytest.approx({"projector": 5e-5, "vision": 1.5e-5})


def test_a_hub_checkpoint_is_not_trained_as_if_it_were_random():
    for words in (["optim.lr=1e-3"], ["optim.lr=1e-4"], ["optim=adamw"], ["optim.lr_of.language=1e-4"]):
        with pytest.raises(ConfigError, match=r"overwrite what Qwen/Qwen2-VL-2B-Instruct has learnt.*accept_lr=true"):
            compose_checked(["model=qwen2_vl_2b", *words])
        compose_checked(["model=qwen2_vl_2b", *words, "optim.accept_lr=true"])
    compose_checked(["model=qwen2_vl_2b"])
    compose_checked(["model=qwen2_vl_2b", "tuning=lora"])
    compose_checked(["model=qwen2_vl_2b", "optim=adamw", "tuning=projector"])
    compose_checked(["model=qwen2_vl_2b", "optim.lr=1e-3", "optim.lr_of.language=1e-5"])
    with pytest.raises(ConfigError, match="overwrite what somebody/llava has learnt"):
        compose_checked(["model=llava_nano", "model.checkpoint=somebody/llava"])
    # A finished run may be looked at, whatever it was trained with.
    check(compose(["model=qwen2_vl_2b", "optim.lr=1e-3"]), on_this_machine=False)


def test_a_folder_counts_by_its_weights(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model-00001-of-00002.safetensors"
    words = ["model=llava_nano", f"model.checkpoint={tmp_path}"]
    for size in (0, FULL_SIZE):  # a nano start stays free
        with weights.open("wb") as file:
            file.truncate(size)  # a sparse file, which takes no room
        compose_checked(words)
    (tmp_path / "vit").mkdir()
    (tmp_path / "vit" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match=f"overwrite what {tmp_path} has learnt"):
        compose_checked(words)


def test_rates_held_as_float32_tensors_are_logged_too():
    """As torchao's optimizers hold them, with lr and initial_lr as tensors."""
    config = compose(["optim.lr=1e-3", "optim.lr_of.projector=2e-5"])
    rates = LearningRates(Components.build(config).family, config.optim)
    tensors = [{"lr": torch.tensor(0.5 * lr), "initial_lr": torch.tensor(lr)} for lr in (1e-3, 2e-5)]
    assert rates.now(tensors) == {"projector": pytest.approx(1e-5)}
    assert rates.now([{"lr": 5e-4, "initial_lr": 1e-3}, {"lr": 1e-5, "initial_lr": 2e-5}]) == {"projector": 1e-5}
