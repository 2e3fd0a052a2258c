"""Identity of a run: the part of its config that changes the result, and its hash in the run folder's name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntil.config.schema import RunConfig

# Keys for storage, logging and checks. They don't change what is computed, so they are no part of the identity.
UNHASHED_KEYS = (
    "format",
    "name",
    "runs",
    "seed",
    "tracker",
    "save_every",
    "save_minutes",
    "keep_checkpoints",
    "keep_checkpoints_when_done",
    "log_every",
    "max_length",
    "vision_cache_gb",
    "retry",
    "accept_changes",
    "accept_memory",
)
# Nor do those that distribute the same step, so that a run can resume on another machine.
UNHASHED_ENGINE_KEYS = ("processes", "hostfile", "accumulation", "gradient_checkpointing", "threads", "workers")
UNHASHED_OPTIM_KEYS = ("accept_lr",)
# The answers are the same, or (of a server) checked to be.
UNHASHED_EVALUATION_KEYS = ("share_prompts", "server")
BATCH_SIZE = 240  # what every identity has for evaluation.batch_size, which was a part of it

# Options of components that say where code is or what may be read, not what is computed.
COMPONENTS = ("model", "task", "loss")
UNHASHED_OPTIONS = ("target", "allow_pickle")


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of a config that changes a run's result, without the seed.

    It has no import paths, so that code may move without losing its runs, and no nulls, so that a new option whose
    null means "as before" changes no hash.
    """
    hashed = {k: v for k, v in config.to_dict().items() if k not in UNHASHED_KEYS}
    hashed["engine"] = {k: v for k, v in hashed["engine"].items() if k not in UNHASHED_ENGINE_KEYS}
    # The mode says which rows a step has; how long a sequence may be is only how they are computed.
    hashed["packing"] = {"mode": config.packing.mode} if config.packing.on else None
    if not config.augment.on:  # then it is what all runs were before there was augmentation
        hashed["augment"] = None
    hashed["optim"] = {k: v for k, v in hashed["optim"].items() if k not in UNHASHED_OPTIM_KEYS}
    hashed["evaluation"] = {k: v for k, v in hashed["evaluation"].items() if k not in UNHASHED_EVALUATION_KEYS}
    hashed["evaluation"]["batch_size"] = BATCH_SIZE
    # An empty part would change the hash of runs from before it.
    if config.evaluation.generation.usual:
        hashed["evaluation"]["generation"] = None
    return {
        key: _without(part, UNHASHED_OPTIONS if key in COMPONENTS else ())
        for key, part in hashed.items()
        if part is not None
    }


def config_hash(config: RunConfig) -> str:
    """Hash of `identity`: eight hex digits."""
    return hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]


def run_path(config: RunConfig) -> Path:
    """Path <runs>/<name>/<task>/<model>/<loss>/seed<k>-<hash>."""
    groups = (config.task.name, config.model.name, config.loss.name)
    return Path(config.runs).expanduser().joinpath(config.name, *groups, f"seed{config.seed}-{config_hash(config)}")


def _without(part: Any, keys: Sequence[str]) -> Any:
    """A part of a config without nulls and some keys, however nested."""
    if isinstance(part, list):
        return [_without(value, keys) for value in part]
    if not isinstance(part, dict):
        return part
    return {k: _without(v, keys) for k, v in part.items() if k not in keys and v is not None}
