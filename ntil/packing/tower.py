"""A picture's features computed once for all rows of a micro-batch that show it, its tokens staying in every row.

That is exact for every family, those whose pictures see the question too: tower and projector see pixels only. What the
rows' gradients add up to goes back through the tower once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from ntil.collator import Layout, SharedPictureCollator, features_of, right_padded
from ntil.models.base import Encoded, Family, unwrapped

FIELDS = ("pooler_output", "deepstack_features")  # what models read of their picture features


@dataclass(frozen=True)
class TowerPlan:
    """Which rows show which picture.

    Attributes:
        tokens: how many tokens each picture has in a row, in the order of the pictures that the tower gets.
        pictures: of each row with a picture, its index among them.
    """

    tokens: list[int]
    pictures: list[int]

    def repeated(self, features: Any) -> Any:
        """Features of the pictures as those of the rows, in the model's form.

        Args:
            features: of all pictures one below the other: [tokens, width], [entries, tokens, width], or a list of such.
                Lists of lists, as of several layers, are repeated each.

        Raises:
            ValueError: there are not as many as the pictures have tokens.
        """
        if not isinstance(features, Tensor) and not isinstance(features[0], Tensor):
            return [self.repeated(layer) for layer in features]
        width = features.shape[-1] if isinstance(features, Tensor) else features[0].shape[-1]
        parts = [features] if isinstance(features, Tensor) else features
        flat = torch.cat([part.reshape(-1, width) for part in parts])
        if len(flat) != sum(self.tokens):
            raise ValueError(f"{len(flat)} features of pictures that have {sum(self.tokens)} tokens")
        of_pictures = flat.split(self.tokens)
        of_rows = [of_pictures[index] for index in self.pictures]
        if isinstance(features, Tensor):
            return torch.cat(of_rows).reshape(-1, *features.shape[1:])
        return of_rows


class TowerCollator(SharedPictureCollator):
    """`Collator` whose batch has each picture's pixels once, and in `tower` a `TowerPlan` that says whose they are."""

    def layout(self, encoded: Sequence[Encoded]) -> Layout:
        layout = right_padded(self.family, encoded)
        shown = [e for e in encoded if e.features]
        # Rows with one picture hold the same tensors, see `SharedPictureCollator`.
        keys = [id(e.features["pixel_values"]) for e in shown]
        first = dict(zip(reversed(keys), reversed(shown), strict=True))
        unique = sorted(first, key=keys.index)
        if len(unique) == len(shown):
            return layout
        image_id = self.family.image_id
        assert image_id is not None
        plan = TowerPlan([first[key].prompt_ids.count(image_id) for key in unique], [unique.index(k) for k in keys])
        inputs: dict[str, Any] = {**layout.inputs, **features_of([first[key] for key in unique]), "tower": plan}
        if type(self.family).position_ids is not Family.position_ids:
            # The model would take them from the grids of the pictures, which are fewer than the rows'.
            inputs["position_ids"] = self._positions(encoded, layout.inputs["input_ids"].shape[1])
        return Layout(inputs, layout.prompt_ends, layout.tokens)

    def _positions(self, encoded: Sequence[Encoded], width: int) -> Tensor:
        """[axes, B, T], 0 where nothing is."""
        positions = [self.family.position_ids(e) for e in encoded]
        filled = positions[0].new_zeros(len(positions[0]), len(encoded), width)
        for row, places in enumerate(positions):
            filled[:, row, : places.shape[1]] = places
        return filled


class SharedTower:
    """Replace `get_image_features` of a model, or of what a `VisionCache` made of it, by one that follows a plan."""

    def __init__(self, model: Any) -> None:
        self._plan: TowerPlan | None = None
        inner = unwrapped(model).base_model
        original = inner.get_image_features

        @wraps(original)
        def get_image_features(*args: Any, **kwargs: Any) -> Any:
            output = original(*args, **kwargs)
            if self._plan is not None:
                for name in FIELDS:
                    if name in output:
                        output[name] = self._plan.repeated(output[name])
            return output

        inner.get_image_features = get_image_features

    @contextmanager
    def following(self, plan: TowerPlan | None) -> Iterator[None]:
        """Repeat the features of a forward's pictures by `plan`; None: every row has its own."""
        self._plan = plan
        try:
            yield
        finally:
            self._plan = None
