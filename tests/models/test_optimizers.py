"""Optimizers and schedules by name: what is built, what their state takes, what is refused and how."""

from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.optimization import get_scheduler

from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.optim import OptimConfig, check_optim, normalize
from ntil.estimates.disk import disk_need
from ntil.estimates.memory import memory_need
from ntil.estimates.shape import shape_of
from ntil.models import optimizers
from ntil.models.optimizers import (
    KNOWN,
    SCHEDULES,
    optimizer_arguments,
    schedule_arguments,
    schedule_name,
    state_bytes,
    typed_options,
)
from ntil.preflight import compose_checked, remarks
from ntil.train.trainer import NumberTrainer
from tests.support.in_process import trainer_of

HERE = {name: known for name, known in KNOWN.items() if known.package is None}


@pytest.mark.parametrize(
    "name",
    [
        *(pytest.param(name, marks=[] if name == "adafactor" else pytest.mark.slow) for name in HERE),
        "sgd momentum",
    ],
)
def test_a_step_of_an_optimizer_keeps_the_state_that_is_estimated(tmp_path, name):
    name, *momentum = name.split()
    options = ["optim.options={momentum: 0.9}"] if momentum else []
    words = [f"optim.name={name}", "optim.steps=1", "save_every=0", *options]
    trainer = trainer_of(tmp_path, *words)
    trainer.train()
    optimizer = trainer.optimizer.optimizer
    values = [value for state in optimizer.state.values() for value in state.values()]
    kept = sum(value.numel() * value.element_size() for value in values if torch.is_tensor(value) and value.dim())
    config = compose(["task=arithmetic", "model=qwen25_nano", *words])
    shape = shape_of(config)
    assert shape
    assert kept == pytest.approx(state_bytes(config.optim, shape.trained, shape.factored), rel=1e-3)
    assert type(optimizer).__name__.lower() == name.partition("_")[0]


def rates(steps=20, **settings):
    """The learning rate before every step, and after the last: at most 1, with 4 steps of warm-up."""
    optim = OptimConfig(**{"lr": 1.0, "min_lr_ratio": 0.1, "steps": steps, "warmup": 4, **settings})
    normalize(optim)
    check_optim(optim)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_scheduler(schedule_name(optim), optimizer, 4, steps, schedule_arguments(optim, steps))
    seen = []
    for _ in range(steps + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_schedules_are_what_they_are_called():
    cosine = rates()
    assert cosine == rates(schedule="cosine") == rates(schedule="cosine_with_min_lr")
    assert (cosine[4], cosine[12], cosine[20]) == pytest.approx((1, 0.55, 0.1))
    linear = rates(schedule="linear")
    assert (linear[4], linear[12], linear[20]) == pytest.approx((1, 0.55, 0.1))
    assert linear[4:20] == pytest.approx([1 - 0.9 * step / 16 for step in range(16)])
    to_zero = rates(schedule="linear", min_lr_ratio=0.0)
    assert (to_zero[0], to_zero[12], to_zero[20]) == pytest.approx((0, 0.5, 0))
    assert rates(schedule="constant") == [1.0] * 21
    assert rates(schedule="constant_with_warmup")[:6] == pytest.approx([0, 0.25, 0.5, 0.75, 1, 1])
    stable = rates(schedule="wsd", decay=0.25, schedule_options={"decay_type": "linear"})
    assert stable[4:16] == [1.0] * 12  # 4 of warm-up, 5 of decay
    assert stable[15:] == pytest.approx([1, 0.82, 0.64, 0.46, 0.28, 0.1])
    assert rates(schedule="wsd", decay=5) != stable  # a cosine
    assert rates(schedule="wsd", decay=99) == rates(schedule="wsd", decay=16)  # no more than there are


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_is_built(name):
    assert len(rates(schedule=name)) == 21


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim.name=adamm"], "no such optimizer; did you mean 'adamw'"),
        (["optim.name=galore_adamw"], "transformers has it, but it needs steps or arguments of its own; here are"),
        (["optim.name=adamw_8bit"], "needs the package bitsandbytes, which isn't installed here; install it with"),
        (["optim.name=adafactor", "engine=zero2"], "can't run under ZeRO-2: it goes by the rows"),
        (["optim.name=adagrad", "engine=zero1"], "DeepSpeed builds it anew with one group of weights"),
        (["optim.name=adamw_8bit", "engine=zero3_offload"], "steps on a GPU, and engine.offload"),
        (["optim.name=sgd", "optim.options={momentun: 1}"], "sgd takes momentum, .*mean 'momentum'"),
        (["optim.options={momentum: 1}"], "adamw_torch_fused takes none"),
        (["optim.schedule=liner"], "no such schedule; did you mean 'linear'"),
        (["optim.schedule=reduce_lr_on_plateau"], "follows a metric, and schedules here follow steps alone"),
        (["optim.schedule=linear", "optim.min_lr_ratio=1"], "doesn't fall; take optim.schedule=constant_with_warmup"),
        (["optim.decay=0.1"], "the last stage of optim.schedule=wsd, and the schedule is cosine"),
        (["optim.schedule=wsd", "optim.decay=0"], "optim.decay must be above 0"),
        (["optim.schedule=wsd", "optim.decay=0.8", "optim.warmup=0.3"], "are more than all steps"),
        (["optim.schedule_options={power: 2}"], "cosine_with_min_lr takes num_cycles"),
    ],
)
def test_what_cannot_run_is_refused_in_one_sentence(monkeypatch, words, message):
    monkeypatch.setattr(optimizers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message) as error:
        compose_checked(words)
    assert "\n" not in str(error.value)


def test_a_constant_rate_without_warm_up_is_remarked():
    config = compose(["optim.schedule=constant", "optim.warmup=10"])
    assert any("has no warm-up, so optim.warmup=10 does nothing" in sentence for sentence in remarks(config))


def remarked(*words):
    return [sentence for sentence in remarks(compose(list(words))) if "does nothing" in sentence]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_floor_that_a_schedule_has_not_is_remarked(name):
    """Where no remark is made, the floor changes the rates."""
    words = [f"optim.schedule={name}", "optim.warmup=0"]
    silent = not remarked(*words, "optim.min_lr_ratio=0.5")
    assert silent == (rates(schedule=name, min_lr_ratio=0.5) != rates(schedule=name, min_lr_ratio=0.1))
    assert not remarked(*words)
    assert not remarked(*words, "optim.min_lr_ratio=0")


def test_the_remark_on_a_floor_names_what_sets_one():
    (sentence,) = remarked("optim.schedule=polynomial", "optim.min_lr_ratio=0.5")
    assert "polynomial has no floor, so optim.min_lr_ratio=0.5 does nothing" in sentence
    assert "optim.schedule_options.lr_end is its floor; cosine, linear and wsd have one" in sentence


@pytest.mark.parametrize("name", ["adamw", *HERE])
def test_betas_that_an_optimizer_has_not_are_remarked(tmp_path, name):
    """Where no remark is made, transformers hands them on."""
    optim = compose([f"optim.name={name}", "optim.betas=[0.5,0.5]"]).optim
    arguments = TrainingArguments(output_dir=str(tmp_path), **optimizer_arguments(optim))
    handed = Trainer.get_optimizer_cls_and_kwargs(arguments)[1].get("betas")
    assert bool(remarked(f"optim.name={name}", "optim.betas=[0.5,0.5]")) == (handed is None)
    assert not remarked(f"optim.name={name}")


def test_the_remark_on_betas_names_what_the_optimizer_takes():
    (sentence,) = remarked("optim.name=sgd", "optim.betas=[0.5,0.5]")
    assert sentence.endswith("does nothing; what it takes is set by optim.options (momentum, dampening, nesterov)")


def test_memory_and_disk_follow_the_optimizer_and_the_average():
    words = ["model=llama3_2_1b", "task=arithmetic", "engine=zero2", "save_every=100"]
    base = compose(words)
    shape: Any = shape_of(base)
    trained = shape.trained

    def need(*more: str) -> tuple[Any, Any]:
        config = compose([*words, *more])
        return memory_need(config, 2), disk_need(config)

    (adamw, disk), (sgd, sgd_disk), (averaged, averaged_disk) = need(), need("optim.name=sgd"), need("optim.ema=0.99")
    assert adamw.states - sgd.states == 8 * trained // 2  # a share on each of two ranks
    assert averaged.states - adamw.states == 4 * trained == averaged.set_aside
    saved = base.keep_checkpoints + 2  # the best, and the one being written
    assert disk.peak - sgd_disk.peak == saved * 8 * trained
    assert averaged_disk.peak - disk.peak == saved * 4 * trained
    _, best = need("evaluation.test=best")
    assert best.peak - disk.peak == 2 * disk.remaining
    alone, plain = (
        need_of_one.states
        for more in (["optim.name=adafactor"], [])
        if (need_of_one := memory_need(compose([*words, "engine=local", *more]), 1))
    )
    assert 7.9 * trained < plain - alone < 8 * trained


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("sgd", "{momentum: 0.9, nesterov: true}", {"momentum": 0.9, "nesterov": True}),
        ("sgd", "{momentum: 0.9, nesterov: false}", {"momentum": 0.9, "nesterov": False}),
        ("rmsprop", "{alpha: 0.5, centered: false}", {"alpha": 0.5, "centered": False}),
    ],
)
def test_options_reach_the_optimizer_as_they_were_given(tmp_path, name, options, expected):
    trainer = trainer_of(tmp_path, f"optim.name={name}", f"optim.options={options}", "optim.steps=1", "save_every=0")
    _, handed = trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)
    assert {key: handed[key] for key in expected} == expected


def test_options_that_are_handed_on_as_text_get_their_kinds_back(monkeypatch):
    """As transformers does with torchao's block size and, since bool("False") is true, with what is switched off."""
    options = {"block_size": 128, "kahan_sum": False, "max_lr": 0.5, "t_alpha": 1e4, "kind": "a"}
    written = optimizer_arguments(OptimConfig(options=options))["optim_args"]
    assert "t_alpha=10000," in written
    assert typed_options(written) == {**options, "t_alpha": 10000}
    assert typed_options(None) == {}
    as_text = {"block_size": "128", "kahan_sum": True, "lr": 1.0}
    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(lambda args, model=None: (None, as_text)))
    arguments = TrainingArguments(optim_args=written)
    assert NumberTrainer.get_optimizer_cls_and_kwargs(arguments)[1] == {
        "block_size": 128,
        "kahan_sum": False,
        "lr": 1.0,
    }
