"""How many rows generate at once, where the configuration leaves it open."""

from __future__ import annotations

from ntil.config.schema import RunConfig

USUAL = 32


def evaluation_batch_size(config: RunConfig) -> int:
    """Rows that generate at once on a rank: `evaluation.batch_size`, or `USUAL` where that is null."""
    return config.evaluation.batch_size or USUAL
