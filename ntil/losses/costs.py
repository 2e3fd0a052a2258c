"""Token costs: what a digit's distribution costs at one position, given the true digit."""

from __future__ import annotations

import torch
from torch import Tensor


def expected_distance(digit_logits: Tensor, digit: Tensor) -> Tensor:
    """Earth Mover's Distance to the true digit, sum_k p_k |k - y| (arXiv 2505.13077; exact for a one-hot target).

    Args:
        digit_logits: [N, base] float32 logits of the digits in order of value.
        digit: [N] true digits; rows with -1 give a meaningless finite value.

    Returns:
        [N] cost in digits, 0 when all probability is on the true digit.
    """
    values = torch.arange(digit_logits.shape[-1], device=digit_logits.device, dtype=digit_logits.dtype)
    distance = (values - digit[:, None].to(digit_logits.dtype)).abs()
    return (torch.softmax(digit_logits, dim=-1) * distance).sum(-1)
