"""Optimizers and schedules by their names in transformers: what runs here, what the state takes, which arguments."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from data.common.counts import counted
from ntil.config.errors import ConfigError, nearest
from ntil.config.identity import with_one_form
from ntil.config.optim import DECAY, OptimConfig
from ntil.config.schema import RunConfig

DEFAULT = "adamw_torch_fused"
WITHOUT_BETAS = ("adafactor", "sgd", "adagrad", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_8bit")  # transformers 5.23
DEFAULT_SCHEDULE = "cosine_with_min_lr"
MOMENTS = 8  # bytes of a trained parameter that AdamW's two moments take, which estimates begin with


@dataclass(frozen=True)
class Optimizer:
    """What is known of an optimizer.

    state: bytes a trained parameter. options: that `optim.options` may set. package: that it needs beside torch.
    not_zero: why it can't run under ZeRO, which flattens and cuts weights; None: it treats every element alike.
    """

    state: float
    options: tuple[str, ...] = ()
    package: str | None = None
    not_zero: str | None = None


def _bitsandbytes(state: float, *options: str) -> Optimizer:
    return Optimizer(state, options, "bitsandbytes")


_SHAPES = "it goes by the rows, columns or blocks of a weight, and ZeRO gives it flat shares of all weights"
_ANEW = "DeepSpeed builds it anew with one group of weights, without weight decay's and the parts' own settings"
# Two moments in 8 bits have a float32 scale for each block of 256 elements: 2 * (1 + 4 / 256) bytes; one has half.
_TWO, _ONE = 2.03, 1.02
KNOWN = {
    DEFAULT: Optimizer(8),
    "adamw_torch": Optimizer(8),
    "adafactor": Optimizer(0, not_zero=_SHAPES),  # and a number for each row and column, see `state_bytes`
    "sgd": Optimizer(0, ("momentum", "dampening", "nesterov")),
    "adagrad": Optimizer(4, ("lr_decay", "eps"), not_zero=_ANEW),  # DeepSpeed 0.19.8
    "rmsprop": Optimizer(4, ("momentum", "alpha", "eps", "centered")),
    "adamw_8bit": _bitsandbytes(_TWO),
    "paged_adamw_32bit": _bitsandbytes(8),
    "paged_adamw_8bit": _bitsandbytes(_TWO),
    "ademamix": _bitsandbytes(12, "beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"),
    "lion_32bit": _bitsandbytes(4),
    "lion_8bit": _bitsandbytes(_ONE),
    "paged_lion_32bit": _bitsandbytes(4),
    "paged_lion_8bit": _bitsandbytes(_ONE),
    "rmsprop_bnb": _bitsandbytes(4),
    "rmsprop_bnb_8bit": _bitsandbytes(_ONE),
    "adamw_torch_8bit": Optimizer(_TWO, ("block_size", "bf16_stochastic_round"), "torchao", not_zero=_SHAPES),
    "adamw_torch_4bit": Optimizer(1.03, ("block_size", "bf16_stochastic_round"), "torchao", not_zero=_SHAPES),
    "stable_adamw": Optimizer(8, ("decouple_lr", "max_lr", "kahan_sum"), "optimi", not_zero=_SHAPES),
}
INSTALLED_BY = {"optimi": "torch-optimi"}  # where the package to install has another name

# Options of the schedules that transformers has; what begins with num_ is set from the run.
SCHEDULES: dict[str, tuple[str, ...]] = {
    DEFAULT_SCHEDULE: ("num_cycles",),
    "linear": (),
    "constant": (),
    "constant_with_warmup": (),
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("power", "lr_end"),
    "inverse_sqrt": ("timescale",),
    "warmup_stable_decay": ("warmup_type", "decay_type", "num_cycles"),
    "cosine_warmup_with_min_lr": ("num_cycles", "warmup_lr_rate"),
}
NO_WARMUP = ("constant",)
WITH_FLOOR = (DEFAULT_SCHEDULE, "linear", "warmup_stable_decay", "cosine_warmup_with_min_lr")


def check_optimizer(config: RunConfig, on_this_machine: bool = True) -> None:
    """Check optimizer, schedule and average against what transformers has, what is installed, and the engine.

    Args:
        on_this_machine: also check that the optimizer's package is installed here.

    Raises:
        ConfigError: names the key and what to take instead.
    """
    optim = config.optim
    name = optim.name or DEFAULT
    if name not in KNOWN:
        raise ConfigError(f"optim.name={name}: {_unknown(name)}")
    known = KNOWN[name]
    _check_options("options", name, optim.options, known.options)
    _check_schedule(optim)
    _check_engine(config, name, known)
    if on_this_machine and known.package and not find_spec(known.package):
        package = INSTALLED_BY.get(known.package, known.package)
        raise ConfigError(
            f"optim.name={name} needs the package {package}, which isn't installed here; install it with "
            f"`pip install {package}`, or take optim.name=adamw, adafactor or sgd"
        )


def _unknown(name: str) -> str:
    from transformers.training_args import OptimizerNames

    names = [*KNOWN, "adamw", "lion"]
    if name in [known.value for known in OptimizerNames]:
        return f"transformers has it, but it needs steps or arguments of its own; here are {', '.join(names)}"
    return f"no such optimizer{nearest(name, names)}; here are {', '.join(names)}"


def _check_options(key: str, name: str, options: dict[str, Any] | None, takes: tuple[str, ...]) -> None:
    for option in options or ():
        if option not in takes:
            listed = f"takes {', '.join(takes)}" if takes else "takes none"
            raise ConfigError(f"optim.{key}.{option}: {name} {listed}{nearest(option, takes)}")


def _check_schedule(optim: OptimConfig) -> None:
    name = optim.schedule or DEFAULT_SCHEDULE
    if name not in SCHEDULES:
        names = ["cosine", "wsd", *SCHEDULES]
        if name in ("reduce_lr_on_plateau", "greedy"):
            raise ConfigError(
                f"optim.schedule={name} follows a metric, and schedules here follow steps alone; take one of "
                f"{', '.join(names)}, and optim.patience for the end of the training"
            )
        raise ConfigError(f"optim.schedule={name}: no such schedule{nearest(name, names)}; here are {', '.join(names)}")
    _check_options("schedule_options", name, optim.schedule_options, SCHEDULES[name])
    if name == "linear" and optim.min_lr_ratio == 1:
        raise ConfigError(
            "optim.schedule=linear with optim.min_lr_ratio=1 doesn't fall; take optim.schedule=constant_with_warmup"
        )


def _check_engine(config: RunConfig, name: str, known: Optimizer) -> None:
    stage = config.engine.zero_stage
    if stage is not None and known.not_zero:
        raise ConfigError(
            f"optim.name={name} can't run under ZeRO-{stage}: {known.not_zero}; take engine=local, or "
            "optim.name=adamw, sgd or rmsprop"
        )
    if config.engine.offload and known.package == "bitsandbytes":
        raise ConfigError(
            f"optim.name={name} steps on a GPU, and engine.offload keeps its states in CPU memory; take "
            "engine.offload=false, or optim.name=adamw"
        )
    if config.optim.ema is not None and stage == 3:
        raise ConfigError(
            f"optim.ema={config.optim.ema:g}: under ZeRO-3 no rank has the weights to average; take engine=zero2 or "
            "engine=local, or leave it out"
        )


def optimizer_arguments(optim: OptimConfig) -> dict[str, Any]:
    """Arguments of `TrainingArguments` for optimizer and schedule, without what depends on the number of steps."""
    # A count that is written as 1e4 goes as 10000, which int() reads too.
    options = ",".join(f"{key}={with_one_form(value)}" for key, value in (optim.options or {}).items())
    return {
        "learning_rate": optim.lr,
        "lr_scheduler_type": schedule_name(optim),
        "warmup_steps": optim.warmup,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "max_grad_norm": optim.max_grad_norm,
        "optim": optim.name or DEFAULT,
        "optim_args": options or None,
    }


def typed_options(written: str | None) -> dict[str, Any]:
    """The options in `TrainingArguments.optim_args`, of which transformers (5.23) hands some on as text.

    bool("False") is true, and a block size must be a number: these replace what it has made of them.
    """
    pairs = (pair.split("=", 1) for pair in written.split(",")) if written else ()
    return {key: _value(text) for key, text in pairs}


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def schedule_name(optim: OptimConfig) -> str:
    """Name in transformers; a linear schedule that ends above 0 is one of warm-up, no stage between, linear decay."""
    name = optim.schedule or DEFAULT_SCHEDULE
    return "warmup_stable_decay" if name == "linear" and optim.min_lr_ratio else name


def schedule_arguments(optim: OptimConfig, steps: int) -> dict[str, Any]:
    """Arguments of the schedule of a training of `steps` steps."""
    name, options = optim.schedule or DEFAULT_SCHEDULE, dict(optim.schedule_options or {})
    if name in (DEFAULT_SCHEDULE, "cosine_warmup_with_min_lr"):
        options["min_lr_rate"] = optim.min_lr_ratio
    if name == "linear" and optim.min_lr_ratio:
        options |= {"num_decay_steps": max(0, steps - _steps(optim.warmup, steps)), "decay_type": "linear"}
    if name == "warmup_stable_decay":
        decay = _steps(DECAY if optim.decay is None else optim.decay, steps)
        options["num_decay_steps"] = max(0, min(decay, steps - _steps(optim.warmup, steps)))
    if schedule_name(optim) == "warmup_stable_decay":
        options["min_lr_ratio"] = optim.min_lr_ratio
    return options


def _steps(value: float, steps: int) -> int:
    """Steps of a stage, given as steps or as a share; rounded as transformers rounds the warm-up."""
    return int(value) if value >= 1 else math.ceil(value * steps)


def remarks_on_optimizer(optim: OptimConfig) -> list[str]:
    """What optimizer and schedule leave out of what is set."""
    sentences, usual = [], OptimConfig()
    name = optim.schedule or DEFAULT_SCHEDULE
    if name in NO_WARMUP and optim.warmup:
        sentences.append(
            f"optim.schedule={name} has no warm-up, so optim.warmup={optim.warmup:g} does nothing; "
            "optim.schedule=constant_with_warmup has one"
        )
    # Recipes set 0, which means that there is no floor.
    if name not in WITH_FLOOR and optim.min_lr_ratio not in (0, usual.min_lr_ratio):
        instead = "; optim.schedule_options.lr_end is its floor" if name == "polynomial" else ""
        sentences.append(
            f"optim.schedule={name} has no floor, so optim.min_lr_ratio={optim.min_lr_ratio:g} does nothing{instead}; "
            "cosine, linear and wsd have one"
        )
    if optim.name in WITHOUT_BETAS and optim.betas != usual.betas:
        takes = ", ".join(KNOWN[optim.name].options)
        instead = f"what it takes is set by optim.options ({takes})" if takes else "AdamW and Lion have some"
        sentences.append(f"optim.name={optim.name} has no betas, so optim.betas={optim.betas} does nothing; {instead}")
    return sentences


def warmup_remark(optim: OptimConfig, steps: int | None) -> str | None:
    """A remark on a warm-up that isn't over at the last of so many steps; None where it is, or they aren't known."""
    if steps is None or optim.schedule in NO_WARMUP or optim.warmup < max(1, steps):
        return None
    length = f"optim.steps={steps}" if steps == optim.steps else counted(steps, "step", form=",")
    return (
        f"optim.warmup={optim.warmup:g} is not over after {length}: the learning rate only rises, "
        f"to {steps / optim.warmup:.0%} of optim.lr; set optim.warmup={steps // 10}"
    )


def state_bytes(optim: OptimConfig, trained: int, factored: int) -> int:
    """Bytes of the optimizer's state for `trained` parameters, over all ranks.

    Args:
        factored: rows and columns of the trained matrices and elements of the vectors, which Adafactor has numbers for.
    """
    options = optim.options or {}
    name = optim.name or DEFAULT
    if name == "adafactor":
        return 4 * factored
    buffers = bool(options.get("momentum")) + bool(options.get("centered"))
    return int((KNOWN[name].state + 4 * buffers) * trained) if name in KNOWN else MOMENTS * trained
