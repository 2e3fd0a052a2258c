"""Ranges of values of a configuration."""

from __future__ import annotations

from ntil.config.errors import ConfigError


def at_least(least: float, key: str, value: float | None, meaning: str = "") -> None:
    """Check a value's range; null, where a key takes it, is in every range."""
    if value is not None and not value >= least:
        raise ConfigError(f"{key} must be at least {least}{f' ({meaning})' if meaning else ''}, got {value}")
