"""The logits of the digits, whose gradient is added to that of cross-entropy in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class DigitLogits(torch.autograd.Function):
    """The logits unchanged, and the logits of the digits, [N, base], which are 0 at positions without a digit.

    The backward adds the digits' gradient to that of cross-entropy in place. A separate indexing would allocate (and
    add) one more gradient of [N, V], a fifth of the whole step at a vocabulary of 150,000. Positions without a digit
    are zeroed, since a value there (-inf too) must not reach a gradient as 0 * inf.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, ids: Tensor, is_digit: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(ids, is_digit)
        return logits.view_as(logits), torch.where(is_digit[:, None], logits.index_select(-1, ids), 0.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, digits: Tensor) -> tuple[Tensor, None, None]:
        ids, is_digit = ctx.saved_tensors
        added = torch.where(is_digit[:, None], digits, 0.0)
        # In place: `gradient` is fresh from cross-entropy's softmax. Not where the gradient is itself differentiated.
        if torch.is_grad_enabled() or not gradient.is_contiguous():
            return gradient.index_add(-1, ids, added), None, None
        return gradient.index_add_(-1, ids, added), None, None
