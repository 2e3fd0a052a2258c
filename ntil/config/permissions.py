"""What a run's folder, which may be a stranger's, doesn't decide for who reads it: which servers this machine asks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ntil.config.answering import ServerConfig
from ntil.config.schema import RunConfig


def without_permissions(config: RunConfig) -> RunConfig:
    """The config without a server that answers, to which a key of the environment would go, and without web addresses.

    An evaluation sets them anew: `evaluation.backend=...`, `task.source.allow_urls=true`.
    """
    task = replace(config.task, options=_without_urls(config.task.options))
    evaluation = replace(config.evaluation, backend=None, server=ServerConfig())
    return replace(config, task=task, evaluation=evaluation)


def _without_urls(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_urls(value) for value in part]
    if not isinstance(part, dict):
        return part
    return {key: False if key == "allow_urls" and value else _without_urls(value) for key, value in part.items()}
