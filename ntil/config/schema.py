"""The typed configuration of a run.

`model`, `task` and `loss` are open groups: a `target` ("module:Class") and that class's own keyword arguments, see
`ntil.config.build`. All else is typed and checked here.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.common.files import check_size_on_disk
from ntil.config.errors import ConfigError, nearest, value_error
from ntil.config.upgrade import FORMAT, upgraded

TRACKERS = ("wandb", "tensorboard")
PACKING_MODES = ("none", "tower", "pictures", "tokens")
WANDB_MODES = ("auto", "online", "offline", "disabled")
GROUPS = ("model", "task", "loss")
NOT_OF_A_RUN = ("scale", "grid", "drawn")
YAML_BYTES, YAML_NODES = 1 << 20, 100_000  # more than any config of a run has


@dataclass(frozen=True)
class Component:
    """A named part of a run: the class at `target` ("module:Class") and its keyword arguments."""

    name: str
    target: str
    options: dict[str, Any]

    @classmethod
    def from_dict(cls, group: str, config: dict[str, Any]) -> Component:
        """Read a component from plain containers; its default name is that of the target.

        Raises:
            ConfigError: no `target`, or a name that can't be a folder's.
        """
        if not isinstance(config.get("target"), str):
            raise ConfigError(f"{group} has no 'target': choose a config of the group, as in {group}=...")
        options = {k: v for k, v in config.items() if k not in ("name", "target")}
        name = str(config.get("name") or config["target"].rpartition(":")[2])
        _check_folder_name(f"{group}.name", name)
        return cls(name, config["target"], options)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "target": self.target, **self.options}


@dataclass
class EngineConfig:
    """Devices, precision and distribution of a run.

    zero_stage: DeepSpeed's ZeRO stage 0..3, or null for torch alone.
    offload: keep optimizer states and parameters in CPU memory; ZeRO-3 only.
    processes: ranks on this host, one per GPU where there are GPUs; null: as many as this host has GPUs, at least one.
    hostfile: DeepSpeed's list of hosts (`name slots=N` a line), which then says how many ranks there are.
    device: `auto` (a GPU where there is one), `cpu` or `cuda`.
    dtype: of the computation; 16-bit weights (`model.dtype`) replace float32. Trained parameters are kept in float32.
    accumulation: micro-batches a rank cuts its share of a step into.
    compile: `torch.compile` on the repeated blocks.
    threads: of torch, per rank. workers: processes that prepare batches, per rank; 0: the training process itself.
    """

    zero_stage: int | None = None
    offload: bool = False
    processes: int | None = 1
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
    """AdamW, linear warm-up, cosine decay to `min_lr_ratio` of each learning rate.

    steps, epochs: length of the training, in optimizer steps or in passes over the training rows; one of them is null.
    max_epochs: `steps` end after that many passes; null: they don't.
    batch_size: rows of one optimizer step, over all ranks and micro-batches. max_grad_norm: gradients are clipped to
        this norm, 0 for none.
    lr, lr_of: of all parts, and of the parts named, as in `{projector: 2e-5}`; null where no part has its own.
    accept_lr: train the language part of a full-size checkpoint in full at a learning rate for models from scratch.
    warmup: steps; below 1 a share of them.
    """

    steps: int | None = 2600
    epochs: float | None = None
    max_epochs: float | None = None
    batch_size: int = 64
    lr: float = 1e-3
    lr_of: dict[str, float | None] | None = field(default_factory=dict)
    accept_lr: bool = False
    min_lr_ratio: float = 0.05
    warmup: float = 100
    weight_decay: float = 0.01
    betas: list[float] = field(default_factory=lambda: [0.9, 0.999])
    max_grad_norm: float = 1.0

    def steps_for(self, rows: int | None) -> int | None:
        """Optimizer steps of a training on so many rows; None where they depend on the rows and those aren't known."""
        passes = self.max_epochs if self.epochs is None else self.epochs
        if passes is None:
            return self.steps
        if rows is None:
            return None
        steps = max(1, math.ceil(passes * rows / self.batch_size))
        return steps if self.steps is None else min(self.steps, steps)


@dataclass
class TuningConfig:
    """Trainable parameters. `freeze`: parts (`vision`, `projector`, `language`) that stay as they were loaded.

    mode `full`: all others are trained. mode `lora`: adapters of `rank` and `alpha` (null: 2 * rank) in the parts
    `adapt`, on the linear layers `targets` (null: the family's own); the parts `train` (null: the family's own) are
    trained whole.
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
    """Stage of a curriculum: up to the share `until` (0..1) of all steps, only rows whose column is at most `max`."""

    until: float = MISSING
    max: int = MISSING


@dataclass
class CurriculumConfig:
    """Schedule of the rows that may be drawn, the same for every loss. No stages: all rows at all times."""

    column: str = "level"
    stages: list[Stage] = field(default_factory=list)


@dataclass
class PackingConfig:
    """Examples that begin alike, as questions on one picture do, in one sequence with one copy of that beginning.

    mode: `none`; `tower`: a picture of a micro-batch goes through the vision tower once, its tokens stay in every row;
        `pictures`: a sequence for each picture; `tokens`: several pictures a sequence too, and micro-batches of about
        equally many tokens.
    tokens: longest sequence that is packed; a single example may be longer.
    """

    mode: str = "none"
    tokens: int = 4096

    @property
    def on(self) -> bool:
        """Whether the rows of a picture follow each other."""
        return self.mode != "none"

    @property
    def shares_tokens(self) -> bool:
        """Whether sequences hold several rows."""
        return self.mode in ("pictures", "tokens")


@dataclass
class EvaluationConfig:
    """Scoring of `split` at the end, and of `validation_rows` validation rows every `every_steps` steps (0: never).

    batch_size: rows that generate at once on a rank; null: see ntil/evaluation/batch_size.py.
    share_prompts: rows with one picture, or a long text in common, share its computation; null: where that is exact.
    """

    split: str = "test"
    batch_size: int | None = 240
    every_steps: int = 200
    validation_rows: int = 240
    share_prompts: bool | None = None


@dataclass
class TrackerConfig:
    """Trackers. kinds: `wandb`, `tensorboard`. mode, of wandb: `auto` is online with an API key, else offline."""

    kinds: list[str] = field(default_factory=list)
    mode: str = "auto"
    project: str = "ntil"


@dataclass(kw_only=True)
class RunSettings:
    """Settings of a run without model, task and loss. `runs`: folder of all runs, `name`: the experiment's name in it.

    max_length: longest prompt with its answer, in tokens, picture included; a longer one is an error, never cut.
    vision_cache_gb: limit of the disk cache for features of frozen vision towers, of all runs together; 0: no cache.
    save_every, save_minutes: steps and minutes between two checkpoints, 0: never. keep_checkpoints: how many of the
        newest are kept; the best one is, too. keep_checkpoints_when_done: also when the run is done.
    retry: run a job again that failed before. accept_changes: resume although the data changed since the checkpoint.
    accept_memory: start although the estimate of the memory exceeds the GPUs'.
    """

    name: str = "default"
    runs: str = "runs"
    seed: int = 0
    engine: EngineConfig = field(default_factory=EngineConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)
    packing: PackingConfig = field(default_factory=PackingConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    log_every: int = 20
    save_every: int = 400
    save_minutes: float = 0.0
    keep_checkpoints: int = 1
    keep_checkpoints_when_done: bool = False
    max_length: int = 4096
    vision_cache_gb: float = 20.0
    retry: bool = False
    accept_changes: bool = False
    accept_memory: bool = False


@dataclass(kw_only=True)
class RunSchema(RunSettings):
    """Schema of Hydra's config, with what is no part of a run itself (`NOT_OF_A_RUN`).

    scale, grid: which part of an experiment's grid is swept. drawn: what a recipe tells the tasks that draw their
    pictures (`size`: pixels of a side).
    """

    scale: str | None = None
    grid: dict[str, Any] = field(default_factory=dict)
    drawn: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    loss: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class RunConfig(RunSettings):
    """Checked configuration of one run. Only config.yaml and the trackers hold it as a plain dict."""

    model: Component
    task: Component
    loss: Component

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> RunConfig:
        """Read a configuration from plain containers, as `to_dict` gives them.

        Raises:
            ConfigError: values that can't be run, named with the remedy.
        """
        groups: dict[str, Any] = {group: Component.from_dict(group, config.get(group) or {}) for group in GROUPS}
        typed = {k: v for k, v in config.items() if k not in (*GROUPS, *NOT_OF_A_RUN, "format")}
        try:
            settings = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunSettings), typed))
        except OmegaConfBaseException as error:
            raise ConfigError(value_error(str(error)) or " ".join(str(error).split())) from error
        assert isinstance(settings, RunSettings)
        _normalize(settings.optim)
        _check(settings)
        values: dict[str, Any] = {f.name: getattr(settings, f.name) for f in fields(settings)}
        return cls(**values, **groups)

    @classmethod
    def read(cls, file: Path) -> RunConfig:
        """Read a run folder's config.yaml, of this format or an older one.

        Raises:
            ConfigError: no such file, no YAML of a run, or values that can't be run.
        """
        if not file.exists():
            raise ConfigError(f"{file.parent} is no run folder: it has no config.yaml")
        try:
            check_size_on_disk(file, YAML_BYTES)
            config = yaml.safe_load(file.read_text())
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise ConfigError(f"{file}: no YAML ({' '.join(str(error).split())}); the file is damaged") from error
        if not isinstance(config, dict) or not _fits(config):
            raise ConfigError(f"{file}: holds no configuration of a run; the file is damaged")
        try:
            return cls.from_dict(upgraded(config))
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """Plain containers for YAML and JSON."""
        settings = {f.name: getattr(self, f.name) for f in fields(RunSettings)}
        plain = {k: asdict(v) if hasattr(v, "__dataclass_fields__") else v for k, v in settings.items()}
        first = {k: plain.pop(k) for k in ("name", "runs", "seed")}
        return {"format": FORMAT, **first, **{g: getattr(self, g).to_dict() for g in GROUPS}, **plain}


def _normalize(optim: OptimConfig) -> None:
    """Give what means the same one form, in place, so that it has one hash."""
    if optim.warmup >= 1 and optim.warmup == round(optim.warmup):
        optim.warmup = round(optim.warmup)
    optim.lr_of = {part: lr for part, lr in (optim.lr_of or {}).items() if lr is not None} or None


def _fits(config: dict[str, Any]) -> bool:
    """Whether the config has at most `YAML_NODES` nodes: YAML aliases can make billions of them from a few lines."""
    pending: list[Any] = [config]
    for _ in range(YAML_NODES):
        if not pending:
            return True
        node = pending.pop()
        pending.extend(node.values() if isinstance(node, dict) else node if isinstance(node, list) else ())
    return False


def to_plain_dict(config: Any) -> dict[str, Any]:
    """Resolve OmegaConf to plain containers; done only here, so that no OmegaConf node reaches JSON or wandb."""
    container = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(container, dict)
    return {str(k): v for k, v in container.items()}


def _check_folder_name(key: str, name: str) -> None:
    """Check a name that becomes a folder or file: it must not lead out of the folder that it is written to."""
    if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
        raise ConfigError(f"{key}={name!r} is no folder's name: take one without slashes and without a leading dot")


def _check_finite(value: Any, key: str) -> None:
    """Check that no number of the settings, at whatever depth, is NaN or infinite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key}={value}: must be a finite number")
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        _check_finite(one, f"{key}.{name}" if key else str(name))


def _check(run: RunSettings) -> None:
    _check_finite(asdict(run), "")
    for part in run.name.split("/"):
        _check_folder_name("name", part)
    if not 0 <= run.seed < 2**32:
        raise ConfigError(f"seed must lie in 0..{2**32 - 1}, got {run.seed}")
    _check_optim(run.optim)
    _check_engine(run.engine)
    _check_tuning(run.tuning)
    for name in ("validation_rows", "batch_size"):
        _at_least(1, f"evaluation.{name}", getattr(run.evaluation, name))
    _at_least(0, "evaluation.every_steps", run.evaluation.every_steps, "0: never")
    for name in ("log_every", "keep_checkpoints", "max_length"):
        _at_least(1, name, getattr(run, name))
    _at_least(0, "save_every", run.save_every, "0: never")
    _at_least(0, "save_minutes", run.save_minutes, "0: never")
    _at_least(0, "vision_cache_gb", run.vision_cache_gb, "0: keep nothing")
    for kind in run.tracker.kinds:
        if kind not in TRACKERS:
            raise ConfigError(f"tracker.kinds: no tracker {kind!r}{nearest(kind, TRACKERS)}")
    if run.tracker.mode not in WANDB_MODES:
        raise ConfigError(f"tracker.mode must be one of {', '.join(WANDB_MODES)}, got {run.tracker.mode!r}")
    if run.packing.mode not in PACKING_MODES:
        raise ConfigError(f"packing.mode must be one of {', '.join(PACKING_MODES)}, got {run.packing.mode!r}")
    _at_least(1, "packing.tokens", run.packing.tokens)
    until = [stage.until for stage in run.curriculum.stages]
    if until != sorted(until) or any(not 0 < u <= 1 for u in until):
        raise ConfigError(f"curriculum.stages: 'until' must rise within (0, 1], got {until}")


def _at_least(least: float, key: str, value: float | None, meaning: str = "") -> None:
    """Check a value's range; null, where a key takes it, is in every range."""
    if value is not None and not value >= least:
        raise ConfigError(f"{key} must be at least {least}{f' ({meaning})' if meaning else ''}, got {value}")


def _check_optim(optim: OptimConfig) -> None:
    for name in ("steps", "batch_size"):
        _at_least(1, f"optim.{name}", getattr(optim, name))
    _check_length(optim)
    for name in ("warmup", "weight_decay"):
        _at_least(0, f"optim.{name}", getattr(optim, name))
    _at_least(0, "optim.max_grad_norm", optim.max_grad_norm, "0: no clipping")
    if optim.warmup > 1 and optim.warmup != round(optim.warmup):
        raise ConfigError(f"optim.warmup={optim.warmup}: must be whole steps, or below 1 a share of them")
    for key, lr in (("lr", optim.lr), *((f"lr_of.{part}", lr) for part, lr in (optim.lr_of or {}).items())):
        if lr is not None and lr <= 0:
            raise ConfigError(f"optim.{key} must be above 0, got {lr}")
    if not 0 <= optim.min_lr_ratio <= 1:
        raise ConfigError(f"optim.min_lr_ratio must lie in [0, 1], got {optim.min_lr_ratio}")
    if len(optim.betas) != 2 or any(not 0 <= beta < 1 for beta in optim.betas):
        raise ConfigError(f"optim.betas must be two numbers in [0, 1), as in [0.9,0.999], got {optim.betas}")


def _check_length(optim: OptimConfig) -> None:
    for name in ("epochs", "max_epochs"):
        value = getattr(optim, name)
        if value is not None and value <= 0:
            raise ConfigError(f"optim.{name} must be above 0, got {value}")
    if optim.steps is None and optim.epochs is None:
        raise ConfigError("optim.steps and optim.epochs are both null; set one of them")
    if optim.epochs is None:
        return
    for name, remedy in (("steps", "optim.steps=null"), ("max_epochs", "optim.max_epochs=null")):
        if getattr(optim, name) is not None:
            raise ConfigError(
                f"optim.epochs={optim.epochs:g} and optim.{name}={getattr(optim, name):g} both say how long the "
                f"training is; take one of them away, as with {remedy}"
            )


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
    if engine.zero_stage not in (None, 0, 1, 2, 3):
        raise ConfigError(f"engine.zero_stage must be null, 0, 1, 2 or 3, got {engine.zero_stage}")
    for name, allowed in (("dtype", ("float32", "bfloat16", "float16")), ("device", ("auto", "cpu", "cuda"))):
        if getattr(engine, name) not in allowed:
            raise ConfigError(f"engine.{name} must be {', '.join(allowed)}, got {getattr(engine, name)!r}")
    for name in ("processes", "accumulation"):
        _at_least(1, f"engine.{name}", getattr(engine, name))
    _at_least(0, "engine.workers", engine.workers, "0: the training process itself")
    _at_least(1, "engine.threads", engine.threads)
    if engine.dtype == "float16" and engine.device == "cpu":
        raise ConfigError("engine.dtype=float16 can't run on engine.device=cpu; take bfloat16 or float32")
    if engine.offload and engine.zero_stage != 3:
        raise ConfigError(
            f"engine.offload needs ZeRO-3, and engine.zero_stage is {engine.zero_stage}; take engine=zero3_offload"
        )
    if engine.compile and engine.zero_stage == 3:
        raise ConfigError(
            "engine.compile can't see ZeRO-3's partitioned weights; take engine.zero_stage=2 or no compile"
        )
    if engine.hostfile and engine.processes not in (1, None):
        raise ConfigError("engine.hostfile says how many ranks each host has; leave engine.processes out")
