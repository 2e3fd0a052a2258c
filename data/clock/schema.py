"""The columns that every source of clocks gives: id, image, hour (1..12), minute, level.

Level is 0 for minutes that are multiples of 30, then 1 of 15, 2 of 5, 3 for all others; a curriculum may schedule it.
"""

from __future__ import annotations

from datasets import Features, Image, Value

FEATURES = Features(
    {"id": Value("string"), "image": Image(), "hour": Value("int32"), "minute": Value("int32"), "level": Value("int32")}
)


def level_of(minute: int) -> int:
    """Level of a minute, 0..3, see the module's docstring."""
    return next(level for level, step in enumerate((30, 15, 5, 1)) if minute % step == 0)
