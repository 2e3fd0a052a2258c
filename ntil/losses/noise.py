"""Gumbel noise with a generator of its own, as an operator that `torch.compile` takes whole.

The released NTIL code draws from torch's global generator, so switching the loss changes dropout and data order. Here
the n-th draw of a loss is a function of (seed, n) alone.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("ntil::gumbel_like", mutates_args=("draws",))
def gumbel_like(like: Tensor, draws: Tensor, seed: int) -> Tensor:
    """Standard Gumbel noise, float32, of `like`'s shape; `draws`, an int64 scalar on the CPU, counts the calls."""
    # The CPU generator takes 32 bits; the streams of two seeds are a million draws apart.
    generator = torch.Generator(like.device).manual_seed((seed * 1_000_003 + int(draws)) % 2**32)
    draws += 1
    uniform = torch.rand(like.shape, generator=generator, device=like.device, dtype=torch.float32)
    return -torch.log(-torch.log(uniform.clamp(1e-10, 1 - 1e-7)))


@gumbel_like.register_fake
def _(like: Tensor, draws: Tensor, seed: int) -> Tensor:
    return torch.empty_like(like, dtype=torch.float32)
