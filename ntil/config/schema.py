"""The typed configuration of a run.

`model`, `task` and `loss` are open groups: a `target` ("module:Class") and that class's own keyword arguments, see
`ntil.config.build`. All else is typed and checked here.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from data.augment.options import AugmentConfig
from data.common.files import check_size_on_disk
from ntil.config.answering import (
    GenerationConfig,
    ServerConfig,
    check_backend,
    check_generation,
    normalized_decoding,
    normalized_generation,
)
from ntil.config.errors import ConfigError, nearest, value_error
from ntil.config.optim import OptimConfig, check_optim, normalize
from ntil.config.ranges import at_least
from ntil.config.tuning import TuningConfig, check_settings, normalize_tuning
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

    validation_rows: of each task and split. validation_splits: those that are validated on, the first of which chooses
        the best checkpoint; null: `validation`.
    batch_size: rows that generate at once on a rank; null: see ntil/evaluation/batch_size.py.
    share_prompts: rows with one picture, or a long text in common, share its computation; null: where that is exact.
    test: which weights are saved and scored at the end: `best`, by the task's metric on the validation rows, or `last`
        (null: the same).
    generation, decoding: of the test, see ntil/config/answering.py; validation is greedy. decoding: a name or several,
        reported beside the answer as it is generated; null: none.
    backend: `transformers`, the model in this process, or `openai`, a server (`ntil eval` alone); null: transformers.
    """

    split: str = "test"
    batch_size: int | None = 240
    every_steps: int = 200
    validation_rows: int = 240
    validation_splits: list[str] | None = None
    share_prompts: bool | None = None
    test: str | None = None
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    decoding: Any = None
    backend: str | None = None
    server: ServerConfig = field(default_factory=ServerConfig)

    @property
    def validated(self) -> list[str]:
        """Splits that are validated on; empty without validation."""
        return (self.validation_splits or ["validation"]) if self.every_steps else []


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
    augment: AugmentConfig = field(default_factory=AugmentConfig)
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


@cache
def _settings_schema() -> DictConfig:
    """Built once, as that takes as long as reading a config; a merge copies it."""
    schema: DictConfig = OmegaConf.structured(RunSettings)
    return schema


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
            settings = OmegaConf.to_object(OmegaConf.merge(_settings_schema(), typed))
        except OmegaConfBaseException as error:
            raise ConfigError(value_error(str(error)) or " ".join(str(error).split())) from error
        assert isinstance(settings, RunSettings)
        normalize(settings.optim)
        normalize_tuning(settings.tuning)
        normalize_evaluation(settings.evaluation)
        _check(settings)
        values: dict[str, Any] = {f.name: getattr(settings, f.name) for f in fields(settings)}
        return cls(**values, **groups)

    @property
    def members(self) -> dict[str, RunConfig]:
        """The config of each task of a mixture, by its name there; empty where the task is none.

        Raises:
            ConfigError: a task of the mixture has no target.
        """
        tasks = self.task.options.get("tasks")
        if not isinstance(tasks, dict):
            return {}
        return {
            name: replace(self, task=Component.from_dict(f"task.tasks.{name}", {**(one or {}), "name": name}))
            for name, one in tasks.items()
        }

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


def normalize_evaluation(evaluation: EvaluationConfig) -> None:
    """Give what means the same one form, in place, so that it has one hash."""
    evaluation.test = None if evaluation.test == "last" else evaluation.test
    evaluation.generation = normalized_generation(evaluation.generation)
    evaluation.decoding = normalized_decoding(evaluation.decoding)
    evaluation.backend = None if evaluation.backend == "transformers" else evaluation.backend


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
    check_optim(run.optim)
    _check_engine(run.engine)
    check_settings(run.tuning)
    for name in ("validation_rows", "batch_size"):
        at_least(1, f"evaluation.{name}", getattr(run.evaluation, name))
    at_least(0, "evaluation.every_steps", run.evaluation.every_steps, "0: never")
    _check_validation_splits(run.evaluation.validation_splits)
    _check_best(run)
    asked = run.evaluation
    check_generation(asked.generation, asked.decoding, asked.share_prompts)
    check_backend(asked.backend, asked.server, asked.generation, asked.decoding)
    for name in ("log_every", "keep_checkpoints", "max_length"):
        at_least(1, name, getattr(run, name))
    at_least(0, "save_every", run.save_every, "0: never")
    at_least(0, "save_minutes", run.save_minutes, "0: never")
    at_least(0, "vision_cache_gb", run.vision_cache_gb, "0: keep nothing")
    for kind in run.tracker.kinds:
        if kind not in TRACKERS:
            raise ConfigError(f"tracker.kinds: no tracker {kind!r}{nearest(kind, TRACKERS)}")
    if run.tracker.mode not in WANDB_MODES:
        raise ConfigError(f"tracker.mode must be one of {', '.join(WANDB_MODES)}, got {run.tracker.mode!r}")
    if run.packing.mode not in PACKING_MODES:
        raise ConfigError(f"packing.mode must be one of {', '.join(PACKING_MODES)}, got {run.packing.mode!r}")
    at_least(1, "packing.tokens", run.packing.tokens)
    if problem := run.augment.problem():
        raise ConfigError(problem)
    until = [stage.until for stage in run.curriculum.stages]
    if until != sorted(until) or any(not 0 < u <= 1 for u in until):
        raise ConfigError(f"curriculum.stages: 'until' must rise within (0, 1], got {until}")


def _check_validation_splits(splits: list[str] | None) -> None:
    if splits is not None and (not splits or len({*splits}) < len(splits) or any(not name for name in splits)):
        raise ConfigError(
            f"evaluation.validation_splits must name splits, each once, got {splits}; null: the validation split alone"
        )


def _check_best(run: RunSettings) -> None:
    """Check that a run whose end or result depends on validations has some."""
    if run.evaluation.test not in (None, "best"):
        raise ConfigError(f"evaluation.test must be last or best, got {run.evaluation.test!r}")
    by_validations = {
        "optim.patience": run.optim.patience,
        "optim.target": run.optim.target,
        "evaluation.test": run.evaluation.test,
    }
    for key, value in by_validations.items():
        if value is not None and not run.evaluation.every_steps:
            raise ConfigError(
                f"{key}={value} goes by validations, and evaluation.every_steps=0 has none; set it, as in "
                "evaluation.every_steps=200"
            )


def _check_engine(engine: EngineConfig) -> None:
    if engine.zero_stage not in (None, 0, 1, 2, 3):
        raise ConfigError(f"engine.zero_stage must be null, 0, 1, 2 or 3, got {engine.zero_stage}")
    for name, allowed in (("dtype", ("float32", "bfloat16", "float16")), ("device", ("auto", "cpu", "cuda"))):
        if getattr(engine, name) not in allowed:
            raise ConfigError(f"engine.{name} must be {', '.join(allowed)}, got {getattr(engine, name)!r}")
    for name in ("processes", "accumulation"):
        at_least(1, f"engine.{name}", getattr(engine, name))
    at_least(0, "engine.workers", engine.workers, "0: the training process itself")
    at_least(1, "engine.threads", engine.threads)
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
