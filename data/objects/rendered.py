"""Rendered scenes of coloured shapes with all that fits a name: several, one or none.

The scenes are those of `data.grounding.rendered`. `names`: two kinds of shape are asked for, each perhaps not there;
the boxes have their names. `expression`: one kind, or one colour ("the circles", "the red shapes"), without names, and
in one of five rows nothing fits.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from data.common.cache import cached_dataset, drawn_rows
from data.common.errors import InvalidOption
from data.common.images import png
from data.common.source import STREAMS, RenderedSource
from data.grounding import rendered
from data.grounding.rendered import COLOURS, SHAPES, DrawnShape, box_of
from data.objects.schema import FEATURES, objects_row

Asking = Literal["names", "expression"]
EMPTY = 0.2  # share of the expressions that nothing fits


class RenderedObjects(RenderedSource):
    """Source of rendered scenes with several objects that fit.

    Args:
        rows: split -> how many.
        asking: `names` or `expression`, see the module's docstring.
        size: pixels of a side.
        seed: each split has its own stream of it.
    """

    def __init__(self, rows: dict[str, int], asking: Asking = "names", size: int = 64, seed: int = 0) -> None:
        super().__init__(rows)
        if size < 32:
            raise InvalidOption(f"task.source.size must be at least 32, got {size}")
        self.asking, self.size, self.seed = asking, size, seed

    def rows(self, split: str) -> Dataset:
        count = self.count(split)
        if split not in STREAMS:
            raise InvalidOption(f"rendered scenes have the splits {sorted(STREAMS)}, not {split!r}")
        key = {"split": split, "rows": count, "size": self.size, "asking": self.asking, "seed": self.seed}
        render = partial(_row, split=split, size=self.size, asking=self.asking, seed=self.seed)

        def build() -> Dataset:
            return drawn_rows(render, count, FEATURES, f"rendering {split} scenes")

        code = [Path(__file__), Path(rendered.__file__)]
        return cached_dataset(f"objects-{self.asking}-{split}", key, code, build)


def _row(row: dict[str, int], *, split: str, size: int, asking: Asking, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng([seed, STREAMS[split], row["index"], asking == "names"])
    scene = rendered.scene(rng, "plain")
    asked, question, meant = _names(rng, scene) if asking == "names" else _expression(rng, scene)
    picture = png(rendered.render(scene, rng, size, "plain")), (size, size)
    boxes = [[v * size for v in box_of(shape)] for shape in meant]
    labels = [shape.shape for shape in meant] if asking == "names" else None
    row_id = f"{asking}-{split}-{seed}-{row['index']}"
    return objects_row(row_id, picture, question, boxes, split, labels, asked=asked)


def _names(rng: np.random.Generator, scene: list[DrawnShape]) -> tuple[list[str], str, list[DrawnShape]]:
    """Two kinds, the first of them of a shape of the scene in most rows."""
    there = sorted({shape.shape for shape in scene})
    first = str(rng.choice(there if rng.random() > EMPTY else SHAPES))
    asked = sorted([first, str(rng.choice([name for name in SHAPES if name != first]))])
    return asked, ", ".join(asked), [shape for shape in scene if shape.shape in asked]


def _expression(rng: np.random.Generator, scene: list[DrawnShape]) -> tuple[list[str], str, list[DrawnShape]]:
    kind = "shape" if rng.random() < 0.5 else "colour"
    there = sorted({getattr(shape, kind) for shape in scene})
    others = [name for name in (SHAPES if kind == "shape" else COLOURS) if name not in there]
    name = str(rng.choice(there if rng.random() > EMPTY else others))
    question = f"the {name} shapes" if kind == "colour" else f"the {'crosses' if name == 'cross' else f'{name}s'}"
    return [], question, [shape for shape in scene if getattr(shape, kind) == name]
