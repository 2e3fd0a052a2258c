"""What packed and separate batches of the same rows must have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.packing_checks import StepResult, differences

TOLERANCE = 1e-5


def assert_same_targets(packed: dict[str, Any], separate: dict[str, Any]) -> None:
    for name in ("samples", "digits", "numbers", "boxes", "ids", "unmeasured"):
        assert packed[name] == separate[name]
    assert torch.equal(packed["targets"], separate["targets"])
    for name, value in vars(separate["spans"]).items():
        other = getattr(packed["spans"], name)
        assert torch.equal(other, value) if isinstance(value, Tensor) else other == value


def assert_same_step(packed: StepResult, separate: StepResult) -> None:
    assert max(differences(packed, separate).values()) < TOLERANCE, differences(packed, separate)
