"""Means of terms, and what they are divided by."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_per_sample(value: Tensor, present: Tensor, sample: Tensor, samples: int) -> Tensor:
    """Mean of `value` where `present`, within each sample; a sample without any counts as 0 (as released)."""
    total = torch.zeros(max(samples, 1), dtype=value.dtype, device=value.device)
    total = total.index_add(0, sample, torch.where(present, value, 0))
    count = torch.zeros_like(total).index_add(0, sample, present.to(value.dtype))
    return total / count.clamp(min=1)


def at_least_one(known_count: Tensor | float | None, present: Tensor | int) -> Tensor | float:
    """The known count, else that of what is present; 1 for 0, so that means can be divided by it.

    Args:
        present: a mask, or the count of what is present.
    """
    count = known_count
    if count is None:
        count = present.sum() if isinstance(present, Tensor) else present
    return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)
