"""Identity of a run: the part of its config that changes the result, and its hash in the run folder's name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ntil.config.optim import DECAY
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

# Lists whose order means nothing, and whether theirs is reversed in a hash, as the configs of conf/tuning have it.
UNORDERED = {"freeze": True, "adapt": False, "targets": False, "layers": False, "train": True}
OPEN_OPTIONS = ("options", "schedule_options")  # of optim, untyped as those of components are


def identity(config: RunConfig) -> dict[str, Any]:
    """The part of a config that changes a run's result, without the seed.

    It has no import paths, so that code may move without losing its runs, and no nulls, so that a new option whose
    null means "as before" changes no hash. Settings that mean the same have one identity: 1 and 1.0, a default that is
    written out, another order of parts.
    """
    same = _hashed(config)
    for key in COMPONENTS:
        same[key] = with_one_form(same[key])
    optim = {k: with_one_form(v) if k in OPEN_OPTIONS else v for k, v in same["optim"].items()}
    return {**same, "optim": optim}


def _hashed(config: RunConfig) -> dict[str, Any]:
    """The identity with its numbers as they are written, 1 or 1.0, which hashes have always told apart.

    Configs of both forms have finished runs, so neither can be the one form of a hash; `folder_of` looks for a folder
    of the same identity where there is none of the hash.
    """
    hashed = {k: v for k, v in config.to_dict().items() if k not in UNHASHED_KEYS}
    hashed["engine"] = {k: v for k, v in hashed["engine"].items() if k not in UNHASHED_ENGINE_KEYS}
    # The mode says which rows a step has; how long a sequence may be is only how they are computed.
    hashed["packing"] = {"mode": config.packing.mode} if config.packing.on else None
    if not config.augment.on:  # then it is what all runs were before there was augmentation
        hashed["augment"] = None
    hashed["optim"] = {k: v for k, v in hashed["optim"].items() if k not in UNHASHED_OPTIM_KEYS}
    hashed["tuning"] = {k: _ordered(k, v) for k, v in hashed["tuning"].items()}
    hashed["evaluation"] = {k: v for k, v in hashed["evaluation"].items() if k not in UNHASHED_EVALUATION_KEYS}
    hashed["evaluation"]["batch_size"] = BATCH_SIZE
    # An empty part would change the hash of runs from before it.
    if config.evaluation.generation.usual:
        hashed["evaluation"]["generation"] = None
    _leave_out_defaults(config, hashed)
    return {
        key: _without(part, UNHASHED_OPTIONS if key in COMPONENTS else ())
        for key, part in hashed.items()
        if part is not None
    }


def config_hash(config: RunConfig) -> str:
    """Hash of `identity`, but for the form of numbers: eight hex digits."""
    return hashlib.sha256(json.dumps(_hashed(config), sort_keys=True).encode()).hexdigest()[:8]


def run_path(config: RunConfig) -> Path:
    """Path <runs>/<name>/<task>/<model>/<loss>/seed<k>-<hash>."""
    groups = (config.task.name, config.model.name, config.loss.name)
    return Path(config.runs).expanduser().joinpath(config.name, *groups, f"seed{config.seed}-{config_hash(config)}")


def _leave_out_defaults(config: RunConfig, hashed: dict[str, Any]) -> None:
    """Make what a null stands for null, where it is written out."""
    tuning, optim = config.tuning, config.optim
    if tuning.alpha == 2 * tuning.rank:
        hashed["tuning"]["alpha"] = None
    if optim.decay == DECAY:
        hashed["optim"]["decay"] = None
    if optim.min_delta == 0:
        hashed["optim"]["min_delta"] = None
    if config.evaluation.validation_splits == ["validation"]:
        hashed["evaluation"]["validation_splits"] = None


def _ordered(key: str, value: Any) -> Any:
    return sorted(value, reverse=UNORDERED[key]) if key in UNORDERED and value is not None else value


def with_one_form(part: Any) -> Any:
    """A part of a config with integral floats as integers, however nested."""
    if isinstance(part, list):
        return [with_one_form(value) for value in part]
    if isinstance(part, dict):
        return {k: with_one_form(v) for k, v in part.items()}
    return int(part) if isinstance(part, float) and part.is_integer() else part


def _without(part: Any, keys: Sequence[str]) -> Any:
    """A part of a config without nulls and some keys, however nested."""
    if isinstance(part, list):
        return [_without(value, keys) for value in part]
    if not isinstance(part, dict):
        return part
    return {k: _without(v, keys) for k, v in part.items() if k not in keys and v is not None}
