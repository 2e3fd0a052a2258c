"""The losses of conf/loss, each composed once for all tests."""

from __future__ import annotations

from functools import cache

from ntil.config.compose import choices, compose
from ntil.config.schema import Component


@cache
def loss_configs() -> dict[str, Component]:
    """Every loss config by its name."""
    return {name: compose([f"loss={name}"]).loss for name in choices("loss")}
