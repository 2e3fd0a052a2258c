"""Drawn rows in place of a data set that isn't on this machine: the renderer of another config of the same task."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import yaml
from omegaconf import OmegaConf

from data.common.source import RenderedSource
from ntil.config.build import locate
from ntil.config.compose import choices, config_file
from ntil.config.errors import ConfigError
from ntil.config.schema import Component, RunConfig

FEWEST = 64  # rows of a split that are drawn, of which the longest are taken


def with_drawn_rows(config: RunConfig, rows: dict[str, int], size: int) -> RunConfig:
    """The config with a source that draws its rows; one that draws already stays as it is.

    Args:
        rows: split -> how many, at least. size: pixels of a picture's side.

    Raises:
        ConfigError: no config of conf/task draws rows for this task.
    """
    if _draws(config.task.options.get("source")):
        return config
    for name in choices("task"):
        other = yaml.safe_load(config_file("task", name).read_text())
        if other.get("target") == config.task.target and _draws(other.get("source")):
            # What a recipe would say of drawn pictures is as without one.
            stated: Any = OmegaConf.to_container(OmegaConf.create(other["source"]), resolve=True)
            source = _fitted(stated, rows, size)
            task = Component(config.task.name, config.task.target, {**config.task.options, "source": source})
            return replace(config, task=task)
    raise ConfigError(f"data=drawn: no config of conf/task draws rows for {config.task.target}; its data must be here")


def _draws(source: Any) -> bool:
    if not isinstance(source, dict):
        return False
    kind = locate(source["target"], "source", "task.source")
    return isinstance(kind, type) and issubclass(kind, RenderedSource)


def _fitted(source: dict[str, Any], rows: dict[str, int], size: int) -> dict[str, Any]:
    """The source with these rows, pictures of this size, and the most that it can put into one."""
    changes: dict[str, Any] = {"rows": {split: max(count, FEWEST) for split, count in rows.items()}}
    if "size" in source:
        changes["size"] = size
    if "difficulty" in source:
        changes["difficulty"] = "rich"
    return {**source, **changes}
