"""Some rows that stand for a whole split, cheap to read: files are often sorted, so the first ones don't."""

from __future__ import annotations

from datasets import Dataset, Image, LargeList, List

from tasks.base import Row

SPREAD = 64


def spread(rows: Dataset, most: int = SPREAD) -> list[Row]:
    """At most so many rows, evenly spread from the first on; pictures as stored (path and bytes), not decoded."""
    stored, count = undecoded(rows), min(most, len(rows))
    return [stored[place * len(rows) // count] for place in range(count)]


def undecoded(rows: Dataset) -> Dataset:
    for name in pictures(rows):
        feature = rows.features[name]
        as_stored = Image(decode=False)
        rows = rows.cast_column(name, as_stored if isinstance(feature, Image) else type(feature)(as_stored))
    return rows


def pictures(rows: Dataset) -> list[str]:
    """Names of the columns that hold a picture, or a list of them."""
    inner = {n: f.feature if isinstance(f, List | LargeList) else f for n, f in rows.features.items()}
    return [name for name, feature in inner.items() if isinstance(feature, Image)]
