"""The typed configuration of a run, its hash, and how named parts are built from it.

`model`, `task` and `loss` are open groups: a `target` ("module:Class") and that class's own keyword arguments, checked
against its signature before anything is built. All else is typed here.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf

TRACKERS = ("wandb", "tensorboard")
WANDB_MODES = ("auto", "online", "offline", "disabled")


class ConfigError(ValueError):
    """The configuration can't be run as it stands; the message is one sentence with the remedy."""


@dataclass
class EngineConfig:
    """How a run is computed; what it computes is `optim`'s.

    zero: DeepSpeed's ZeRO stage 0..3, or null for torch alone.
    offload: keep optimizer states and parameters in CPU memory; ZeRO-3 only.
    gpus: ranks on this host (processes on the CPU, where there is no GPU).
    hostfile: DeepSpeed's list of hosts (`name slots=N` a line), which then says how many ranks there are.
    device: `auto` (a GPU where there is one), `cpu` or `cuda`.
    dtype: of a step's maths; weights in 16 bits (`model.dtype`) bring theirs. What is trained is kept in float32.
    accumulation: micro-batches a rank cuts its share of a step into.
    compile: `torch.compile` on the repeated blocks.
    threads: of torch, per rank. workers: processes that prepare batches, per rank; 0: the training process itself.
    """

    zero: int | None = None
    offload: bool = False
    gpus: int = 1
    hostfile: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    accumulation: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    threads: int | None = None
    workers: int = 1


@dataclass
class OptimConfig:
    """AdamW, linear warm-up, cosine decay to `min_lr_ratio * lr`.

    batch_size: rows of one optimizer step, over all ranks and micro-batches. clip: largest gradient norm, 0 for none.
    """

    steps: int = 2600
    batch_size: int = 64
    lr: float = 1e-3
    min_lr_ratio: float = 0.05
    warmup: int = 100
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    clip: float = 1.0


@dataclass
class TuningConfig:
    """Which parameters move. `freeze`: parts (`vision`, `projector`, `language`) that stay as they were loaded.

    mode `full`: all others move. mode `lora`: adapters of `rank` and `alpha` (null: 2 * rank) in the parts `adapt`, on
    the linear layers `targets` (null: the family's own); the parts `train` (null: the family's own) move whole.
    """

    mode: str = "full"
    freeze: list[str] = field(default_factory=list)
    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    adapt: list[str] = field(default_factory=lambda: ["language"])
    targets: list[str] | None = None
    train: list[str] | None = None


@dataclass
class Stage:
    """Until this share of all steps (0..1), only rows whose curriculum column is at most `max`."""

    until: float = MISSING
    max: int = MISSING


@dataclass
class CurriculumConfig:
    """Which rows may be drawn when; the same for every loss. No stages: all rows at all times."""

    column: str = "level"
    stages: list[Stage] = field(default_factory=list)


@dataclass
class EvaluationConfig:
    """`split` is scored at the end; every `every` steps (0: never) the loss on `validation_rows` validation rows."""

    split: str = "test"
    batch_size: int = 240
    every: int = 200
    validation_rows: int = 240


@dataclass
class TrackerConfig:
    """kinds: `wandb`, `tensorboard`. mode, of wandb: `auto` is online where an API key is found, else offline."""

    kinds: list[str] = field(default_factory=list)
    mode: str = "auto"
    project: str = "ntil"


@dataclass
class RunConfig:
    """One run. `runs` is the folder of all runs, `name` the experiment's name in it.

    scale, grid: which part of an experiment's grid is swept; no part of a run itself.

    max_length: longest prompt with its answer, in tokens, picture included; a longer one is an error, never cut.
    vision_cache_gb: how much disk the kept features of frozen vision towers may take in all; 0 keeps none.
    retry: run a job again that failed before. accept_changes: resume although the data changed since the checkpoint.
    """

    name: str = "default"
    runs: str = "runs"
    scale: str | None = None
    grid: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    model: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)
    engine: EngineConfig = field(default_factory=EngineConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    log_every: int = 20
    save_every: int = 400
    keep_checkpoints: int = 1
    max_length: int = 4096
    vision_cache_gb: float = 20.0
    retry: bool = False
    accept_changes: bool = False


# Keys that say where and how to watch or what to refuse, not what is computed: they don't change a run's identity.
NOT_IDENTITY = (
    "name",
    "runs",
    "seed",
    "tracker",
    "save_every",
    "keep_checkpoints",
    "log_every",
    "max_length",
    "vision_cache_gb",
    "retry",
    "accept_changes",
    "scale",
    "grid",
)
# Nor do those that say over what the same step is spread, so that a run can go on elsewhere.
NOT_IDENTITY_OF_ENGINE = ("gpus", "hostfile", "accumulation", "gradient_checkpointing", "threads", "workers")


def plain(config: Any) -> dict[str, Any]:
    """OmegaConf to plain containers, resolved: the one border, so that no OmegaConf node reaches JSON or wandb."""
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def typed(config: dict[str, Any]) -> RunConfig:
    """A checked `RunConfig` from plain containers.

    Raises:
        ConfigError: values that can't be run, named with the remedy.
    """
    run = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), config))
    assert isinstance(run, RunConfig)
    _check(run)
    return run


def config_hash(config: dict[str, Any]) -> str:
    """Eight hex digits over `identity`."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]


def identity(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that changes a run's result, without the seed."""
    found = {k: v for k, v in config.items() if k not in NOT_IDENTITY}
    if "engine" in found:
        found["engine"] = {k: v for k, v in found["engine"].items() if k not in NOT_IDENTITY_OF_ENGINE}
    return found


def run_folder(config: dict[str, Any]) -> Path:
    """<runs>/<name>/<task>/<model>/<loss>/seed<k>-<hash>."""
    group = [config[key].get("name", key) for key in ("task", "model", "loss")]
    return Path(config["runs"], config["name"], *group, f"seed{config['seed']}-{config_hash(config)}")


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the known names when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(names)}"


def locate(target: str) -> Any:
    """The object at "module:name".

    Raises:
        ConfigError: no such module or name.
    """
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"target {target!r}: {error}; write it as 'package.module:Class'") from error
    if not name or not hasattr(module, name):
        raise ConfigError(f"target {target!r}: {module_name} has no {name!r}{nearest(name, vars(module))}")
    return getattr(module, name)


def build(group: str, spec: dict[str, Any], **given: Any) -> Any:
    """Build what a group's config describes: its `target` called with its other keys (but `name`) and `given`.

    `given` values are passed only where the signature asks for them.

    Raises:
        ConfigError: a key that the target doesn't take (with the nearest one), or one that is missing.
    """
    check_keys(group, spec, given)
    target = locate(spec["target"])
    takes = inspect.signature(target).parameters
    arguments = {k: v for k, v in spec.items() if k not in ("name", "target")}
    passed = {k: v for k, v in given.items() if k in takes}
    for key in passed.keys() & arguments.keys():
        raise ConfigError(f"{group}.{key} follows from the model and can't be set; try model.{key}=...")
    return target(**passed, **arguments)


def check_keys(group: str, spec: dict[str, Any], given: Iterable[str] = ()) -> None:
    """What `build` would refuse, found without building."""
    if "target" not in spec:
        raise ConfigError(f"{group} has no 'target': choose a config of the group, as in {group}=...")
    takes = inspect.signature(locate(spec["target"])).parameters
    free = any(p.kind is p.VAR_KEYWORD for p in takes.values())
    keys = [k for k in spec if k not in ("name", "target")]
    for key in keys:
        if key not in takes and not free:
            raise ConfigError(f"{group}.{key}: {spec['target']} has no such argument{nearest(key, takes)}")
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [k for k, p in takes.items() if p.default is p.empty and p.kind not in variadic]
    missing = [k for k in needed if k not in keys and k not in given]
    if missing:
        raise ConfigError(f"{group}: {spec['target']} needs {', '.join(missing)}; set {group}.{missing[0]}=...")


def _check(run: RunConfig) -> None:
    _check_optim(run.optim)
    _check_engine(run.engine)
    _check_tuning(run.tuning)
    for name in ("validation_rows", "batch_size"):
        _at_least(1, f"evaluation.{name}", getattr(run.evaluation, name))
    _at_least(0, "evaluation.every", run.evaluation.every, "0: never")
    for name in ("log_every", "keep_checkpoints", "max_length"):
        _at_least(1, name, getattr(run, name))
    _at_least(0, "save_every", run.save_every, "0: never")
    _at_least(0, "vision_cache_gb", run.vision_cache_gb, "0: keep nothing")
    for kind in run.tracker.kinds:
        if kind not in TRACKERS:
            raise ConfigError(f"tracker.kinds: no tracker {kind!r}{nearest(kind, TRACKERS)}")
    if run.tracker.mode not in WANDB_MODES:
        raise ConfigError(f"tracker.mode must be one of {', '.join(WANDB_MODES)}, got {run.tracker.mode!r}")
    until = [stage.until for stage in run.curriculum.stages]
    if until != sorted(until) or any(not 0 < u <= 1 for u in until):
        raise ConfigError(f"curriculum.stages: 'until' must rise within (0, 1], got {until}")


def _at_least(least: float, key: str, value: float, meaning: str = "") -> None:
    if not value >= least:
        raise ConfigError(f"{key} must be at least {least}{f' ({meaning})' if meaning else ''}, got {value}")


def _check_optim(optim: OptimConfig) -> None:
    for name in ("steps", "batch_size"):
        _at_least(1, f"optim.{name}", getattr(optim, name))
    for name in ("warmup", "weight_decay"):
        _at_least(0, f"optim.{name}", getattr(optim, name))
    _at_least(0, "optim.clip", optim.clip, "0: no clipping")
    if optim.lr <= 0:
        raise ConfigError(f"optim.lr must be above 0, got {optim.lr}")
    if not 0 <= optim.min_lr_ratio <= 1:
        raise ConfigError(f"optim.min_lr_ratio must lie in [0, 1], got {optim.min_lr_ratio}")
    if len(optim.betas) != 2 or any(not 0 <= beta < 1 for beta in optim.betas):
        raise ConfigError(f"optim.betas must be two numbers in [0, 1), as in [0.9,0.999], got {optim.betas}")


def _check_tuning(tuning: TuningConfig) -> None:
    if tuning.mode not in ("full", "lora"):
        raise ConfigError(f"tuning.mode must be full or lora, got {tuning.mode!r}")
    if tuning.rank < 1 or (tuning.alpha is not None and tuning.alpha <= 0):
        raise ConfigError(f"tuning.rank and tuning.alpha must be above 0, got {tuning.rank} and {tuning.alpha}")
    if not 0 <= tuning.dropout < 1:
        raise ConfigError(f"tuning.dropout must lie in [0, 1), got {tuning.dropout}")
    usual = TuningConfig()
    for name in ("rank", "alpha", "dropout", "adapt", "targets", "train"):
        value = getattr(tuning, name)
        if tuning.mode == "full" and value != getattr(usual, name):
            raise ConfigError(f"tuning.{name}={value} is for adapters, and tuning.mode is full; add tuning=lora")


def _check_engine(engine: EngineConfig) -> None:
    if engine.zero not in (None, 0, 1, 2, 3):
        raise ConfigError(f"engine.zero must be null, 0, 1, 2 or 3, got {engine.zero}")
    for name, known in (("dtype", ("float32", "bfloat16", "float16")), ("device", ("auto", "cpu", "cuda"))):
        if getattr(engine, name) not in known:
            raise ConfigError(f"engine.{name} must be {', '.join(known)}, got {getattr(engine, name)!r}")
    for name in ("gpus", "accumulation"):
        _at_least(1, f"engine.{name}", getattr(engine, name))
    _at_least(0, "engine.workers", engine.workers, "0: the training process itself")
    _at_least(1, "engine.threads", 1 if engine.threads is None else engine.threads)
    if engine.dtype == "float16" and engine.device == "cpu":
        raise ConfigError("engine.dtype=float16 can't run on engine.device=cpu; take bfloat16 or float32")
    if engine.offload and engine.zero != 3:
        raise ConfigError(f"engine.offload needs ZeRO-3, and engine.zero is {engine.zero}; take engine=zero3_offload")
    if engine.compile and engine.zero == 3:
        raise ConfigError("engine.compile can't see ZeRO-3's partitioned weights; take engine.zero=2 or no compile")
    if engine.hostfile and engine.gpus != 1:
        raise ConfigError("engine.hostfile says how many ranks each host has; leave engine.gpus out")
