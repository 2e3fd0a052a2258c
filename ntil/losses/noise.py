"""Gumbel noise from a separate generator, as an operator that `torch.compile` treats as opaque.

The released NTIL code draws from torch's global generator, so switching the loss changes dropout and data order. Here
the n-th draw of a loss is a function of (seed, n) alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("ntil::gumbel_like", mutates_args=())
def gumbel_like(like: Tensor, seed: int, draw: int, first: int, rows: int) -> Tensor:
    """Standard Gumbel noise, float32, of `like`'s shape [N, K].

    Args:
        seed, draw: identify the noise.
        first, rows: the place of `like`'s first row among the rows of the whole draw, and how many those are (0: as
            many as `like` has). The noise of the whole draw is made and cut, so that it is the same however its rows
            are spread over ranks and micro-batches.
    """
    # The CPU generator takes 32 bits; the streams of two seeds are a million draws apart.
    generator = torch.Generator(like.device).manual_seed((seed * 1_000_003 + draw) % 2**32)
    shape = (max(rows, first + like.shape[0]), *like.shape[1:])
    uniform = torch.rand(shape, generator=generator, device=like.device, dtype=torch.float32)
    uniform = uniform[first : first + like.shape[0]].clone()
    return -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))


@gumbel_like.register_fake
def _(like: Tensor, _seed: int, _draw: int, _first: int, _rows: int) -> Tensor:
    return torch.empty_like(like, dtype=torch.float32)
