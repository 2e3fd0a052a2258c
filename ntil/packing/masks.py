"""Attention masks of packed sequences.

`scaled_dot_product_attention` makes a float mask of a bool one in every layer and keeps it for the backward, [T, T]
each: at 8,192 tokens in float32 268 MB a layer (torch 2.13). So the float mask is made here, once a micro-batch, and
all layers keep the same one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def visible(segments: Tensor) -> Tensor:
    """Which tokens see which, bool [B, 1, T, T], from segments [B, 2, T] (see `Sequences`); True: row sees column.

    Tokens where nothing is see each other, so that no row is empty.
    """
    segment, shared = segments[:, 0], segments[:, 1]
    same = (segment[:, :, None] == segment[:, None, :]) | (shared[:, :, None] == segment[:, None, :])
    return same.tril()[:, None]


def attention_mask(segments: Tensor, attention: str, dtype: torch.dtype) -> Any:
    """The mask that a model with this kind of attention takes.

    Args:
        segments: [B, 2, T].
        attention: `sdpa` or `eager`: added to the scores, [B, 1, T, T]. `flex_attention`: a `BlockMask`.
        dtype: of the queries.
    """
    if attention == "flex_attention":
        return block_mask(segments)
    return added_mask(visible(segments), dtype)


def added_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention's scores: 0 where a token is seen, else the lowest number of the dtype."""
    nothing = torch.zeros((), dtype=dtype, device=seen.device)
    return torch.where(seen, nothing, nothing + torch.finfo(dtype).min)


def block_mask(segments: Tensor) -> Any:
    """FlexAttention's mask, which skips blocks of 128 x 128 tokens that nobody sees."""
    from torch.nn.attention.flex_attention import create_block_mask

    segment, shared = segments[:, 0].contiguous(), segments[:, 1].contiguous()

    def sees(batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same = (segment[batch, query] == segment[batch, key]) | (shared[batch, query] == segment[batch, key])
        return same & (query >= key)

    count, _, length = segments.shape
    return create_block_mask(sees, count, None, length, length, device=str(segments.device))
