"""What doesn't fit the GPUs is refused before anything starts, with settings that are estimated to fit."""

import re
from dataclasses import replace

import pytest

from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.estimates import fit
from ntil.estimates.fit import check_memory, fits, idle_gpus, remedy, short_of_memory
from ntil.models.optimizers import check_optimizer
from ntil.models.quantization import check_quantization

GB = 10**9
QWEN = ["model=qwen2_vl_7b", "task=refcoco"]


def test_one_gpu_is_too_small_for_a_7b_and_eight_are_named():
    config = compose([*QWEN, "engine.processes=1"])
    with pytest.raises(
        ConfigError, match=r"a rank needs about 1\d\d GB .*has 80; set engine\.processes=8 \(about"
    ) as e:
        check_memory(config, [80 * GB] * 8)
    assert "accept_memory=true" in str(e.value)
    check_memory(replace(config, accept_memory=True), [80 * GB] * 8)
    check_memory(replace(config, engine=replace(config.engine, processes=8)), [80 * GB] * 8)
    check_memory(config, [])


@pytest.mark.parametrize("memory", [80, 48, 24, 12])
@pytest.mark.parametrize("gpus", [1, 2, 8])
@pytest.mark.parametrize("words", [QWEN, ["model=paligemma_3b", "task=refcoco"], ["model=llama3_8b", "task=gsm8k"]])
def test_what_is_advised_is_estimated_to_fit(words, gpus, memory):
    """The advice is applied as overrides, as a user would."""
    config = compose([*words, f"engine.processes={gpus}"])
    if fits(config, gpus, memory * GB):
        return
    advice = remedy(config, gpus, gpus, memory * GB)
    if advice is None:
        return
    settings = re.fullmatch(r"set (.*) \(about .* GB\)", advice)
    assert settings is not None, advice
    overrides = [word for word in settings[1].split() if not word.startswith("engine=")]
    engines = [word for word in settings[1].split() if word.startswith("engine=")]
    again = compose(
        [*words, *engines[-1:], f"engine.processes={gpus}", "engine.gradient_checkpointing=true", *overrides]
    )
    assert fits(again, gpus, memory * GB)


@pytest.mark.parametrize("memory", [80, 24, 12, 8])
@pytest.mark.parametrize(
    "words",
    [
        [*QWEN, "engine=local", "optim.name=adafactor"],
        [*QWEN, "engine=zero2", "tuning=qlora"],
        [*QWEN, "engine=zero2", "optim.ema=0.99"],
    ],
)
def test_what_is_advised_is_not_refused(words, memory):
    config = compose([*words, "engine.processes=1"])
    advice = remedy(config, 1, 1, memory * GB)
    if advice is None:
        assert memory < 80  # the largest GPU has room for each of them with some change, or as it is
        return
    settings = re.fullmatch(r"set (.*) \(about .* GB\)", advice)
    assert settings is not None, advice
    named = [word.partition("=")[0] for word in settings[1].split()]
    assert len(named) == len(set(named))
    again = compose([*words, "engine.processes=1", *settings[1].split()])
    check_optimizer(again, on_this_machine=False)
    check_quantization(again, on_this_machine=False)


def test_a_small_model_gets_no_advice_and_a_hopeless_one_says_so():
    check_memory(compose(["model=llava_nano", "engine.processes=1"]), [8 * GB])
    with pytest.raises(ConfigError, match="take a smaller model or more GPUs"):
        check_memory(compose([*QWEN, "engine.processes=1", "tuning=lora"]), [1 * GB])


def test_idle_gpus_are_named():
    config = compose(["engine.processes=1"])
    assert idle_gpus(config, 8) == "engine.processes=1 leaves 7 of 8 GPUs idle; engine.processes=8 uses all"
    assert idle_gpus(config, 1) is None
    assert idle_gpus(compose(["engine.device=cpu"]), 8) is None


def test_the_memory_of_a_machine_without_gpus_is_a_remark(monkeypatch):
    monkeypatch.setattr(fit.torch.cuda, "is_available", lambda: False)
    assert "GB are free here" in str(short_of_memory(compose([*QWEN, "engine.processes=8"])))
    assert short_of_memory(compose([])) is None
