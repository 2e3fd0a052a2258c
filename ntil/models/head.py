"""Logits only where an answer token is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SupervisedHead:
    """Feed the output embedding only the hidden states at `positions`, so that logits are [N, V].

    It is a forward pre-hook on the head itself, so it depends neither on the architecture nor on wrappers of the model
    (DeepSpeed, peft), and replaces no forward. As a context it takes its hook away at the end.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(f"{type(model).__name__} has no output embedding to predict tokens with")
        self.positions: Tensor | None = None
        self.shape: tuple[int, ...] | None = None
        self._handle = head.register_forward_pre_hook(self._select)

    def __enter__(self) -> SupervisedHead:
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def _select(self, module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.positions is None:
            return None
        hidden = args[0]
        if self.shape is not None and hidden.shape[:-1] != self.shape:
            raise ValueError(
                f"the output embedding gets hidden states of {tuple(hidden.shape[:-1])} positions for labels of "
                f"{self.shape}: virtual tokens or a cut sequence can't be used with logits at supervised positions only"
            )
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, self.positions), *args[1:])

    def logits(self, model: torch.nn.Module, inputs: dict[str, Any], positions: Tensor) -> Tensor:
        """Logits [N, V] at `positions` of the flattened batch, from any wrapper around the hooked model."""
        with self.selecting(positions):
            return model(**inputs, use_cache=False).logits

    @contextmanager
    def selecting(self, positions: Tensor, shape: tuple[int, ...] | None = None) -> Iterator[None]:
        """Within the block every forward gives logits at `positions` only.

        Args:
            shape: (B, T) of the labels; hidden states of another one raise ValueError, where it is given.
        """
        self.positions, self.shape = positions, shape
        try:
            yield
        finally:
            self.positions = self.shape = None
