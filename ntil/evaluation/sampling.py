"""Samples that depend on the seed, the row and which of its samples it is, and on no other row.

A token is drawn by one uniform number: it is the first at which the summed probability exceeds that number. A sample's
numbers come from Philox, a counter-based generator, with a key of (seed, row id, sample). So a sample is the same in
any batch and on any rank as far as the logits are: those of a row differ in their last bits with the padding beside it,
which changes a token only where the number falls between the two sums.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from ntil.config.answering import GenerationConfig


def uniform_numbers(seed: int, row_id: Any, sample: int, count: int) -> Tensor:
    """The first `count` uniform numbers in [0, 1) of a row's sample, [count] float64."""
    key = hashlib.sha256(f"{seed}\0{sample}\0{row_id}".encode()).digest()
    generator = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
    return torch.from_numpy(generator.random(count))


def warpers(generation: GenerationConfig) -> list[LogitsProcessor]:
    """Temperature, top-k and top-p, in the order in which transformers applies them."""
    g = generation
    chain: list[LogitsProcessor] = []
    if g.temperature not in (None, 1.0):
        chain.append(TemperatureLogitsWarper(float(g.temperature)))
    if g.top_k is not None:
        chain.append(TopKLogitsWarper(g.top_k))
    if g.top_p is not None:
        chain.append(TopPLogitsWarper(g.top_p))
    return chain


class RowSampler(LogitsProcessor):
    """Leave of every row's scores the drawn token alone, so that greedy generation takes it.

    Args:
        row_ids: of the batch. sample: which of a row's samples.
        prompt_length: tokens before the first that is drawn, padding included. max_new_tokens: how many are drawn.
    """

    def __init__(
        self, generation: GenerationConfig, row_ids: Sequence[Any], sample: int, prompt_length: int, max_new_tokens: int
    ) -> None:
        self._warpers, self._start = warpers(generation), prompt_length
        seed = generation.seed or 0
        self._uniform = torch.stack([uniform_numbers(seed, name, sample, max_new_tokens) for name in row_ids])

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        token = drawn(scores, self._uniform[:, input_ids.shape[1] - self._start].to(scores.device))
        return torch.full_like(scores, -torch.inf).scatter_(-1, token[:, None], 0.0)


def drawn(scores: Tensor, uniform: Tensor) -> Tensor:
    """The token of each row [B] that a uniform number [B] picks from the softmax of its scores [B, V]."""
    sums = torch.softmax(scores.double(), -1).cumsum(-1)
    picked = torch.searchsorted(sums, uniform[:, None] * sums[:, -1:], right=True)
    return picked[:, 0].clamp(max=scores.shape[-1] - 1)
