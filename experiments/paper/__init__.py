"""The paper's published tables, as data, and our runs beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Metric:
    """A published column: `scale` times our metric of that key has its unit."""

    key: str
    name: str
    scale: float
    greater_is_better: bool


@dataclass(frozen=True)
class PaperRow:
    """One line of a published table; `models` maps a scale to our config's name, `figures` metric -> loss -> value."""

    name: str
    models: dict[str, str]
    figures: dict[str, dict[str, float]]


@dataclass(frozen=True)
class PaperTable:
    """One published table; `unknown` says what the paper leaves open, `metrics` is by our metric's key."""

    title: str
    source: str
    unknown: str
    metrics: dict[str, Metric]
    rows: tuple[PaperRow, ...]

    @property
    def models(self) -> set[str]:
        """Names of our configs that have a line."""
        return {name for row in self.rows for name in row.models.values()}

    @property
    def losses(self) -> list[str]:
        names = [loss for row in self.rows for figures in row.figures.values() for loss in figures]
        return list(dict.fromkeys(names))


def available() -> list[str]:
    """Names of the experiments with a published table."""
    return sorted(path.stem for path in HERE.glob("*.yaml"))


def load(name: str) -> PaperTable | None:
    """The table of an experiment of that name, None where the paper has none."""
    file = HERE / f"{name}.yaml"
    return _read(yaml.safe_load(file.read_text())) if file.exists() else None


def _read(raw: dict[str, Any]) -> PaperTable:
    metrics = {key: Metric(key, **value) for key, value in raw["metrics"].items()}
    rows = [
        PaperRow(
            row["model"],
            {scale: row[scale] for scale in ("full", "nano")},
            {key: row[key] for key in metrics if key in row},
        )
        for row in raw["rows"]
    ]
    return PaperTable(raw["title"], raw["source"], " ".join(raw["unknown"].split()), metrics, tuple(rows))
