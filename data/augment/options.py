"""Options of augmentation, which are a part of a run's configuration."""

from __future__ import annotations

from dataclasses import dataclass

STEEPEST = 15.0  # degrees: half of what lies between two hours, so that a turned dial has one reading


@dataclass
class AugmentConfig:
    """Random changes of training pictures, which boxes, polygons and points follow; all null: none.

    flip: share of the pictures that are mirrored, left to right.
    crop: least share of each side that a crop keeps; no labelled box, polygon or point is ever cut.
    scale: smallest factor by which a picture is reduced.
    color_jitter: most by which brightness, contrast and saturation change, each as a factor of 1 - x to 1 + x.
    clock_rotation: most by which a clock is turned, in degrees, either way.
    skip_directional: leave pictures unmirrored and uncropped whose rows say where things are; false: refuse such rows.
    """

    flip: float | None = None
    crop: float | None = None
    scale: float | None = None
    color_jitter: float | None = None
    clock_rotation: float | None = None
    skip_directional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """What pictures go through, in this order."""
        order = ("crop", "flip", "clock_rotation", "scale", "color_jitter")
        return tuple(name for name in order if getattr(self, name) is not None)

    @property
    def on(self) -> bool:
        return bool(self.names)

    def problem(self) -> str | None:
        """Key and range of a value that can't be used; None where all can."""
        ranges = {"flip": (0, 1), "crop": (0, 1), "scale": (0, 1), "color_jitter": (0, 1)}
        for name, (low, high) in (ranges | {"clock_rotation": (0, STEEPEST)}).items():
            value = getattr(self, name)
            if value is not None and not low < value <= high:
                return f"augment.{name} must lie above {low} and at most at {high:g} (null: off), got {value}"
        return None
