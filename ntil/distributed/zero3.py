"""Parameters that DeepSpeed's ZeRO-3 partitions over the ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn


def is_partitioned(parameter: Tensor) -> bool:
    """Whether this rank holds only a part of it (a parameter of `deepspeed.zero.Init`, DeepSpeed 0.19.8)."""
    return hasattr(parameter, "ds_id")


def any_partitioned(model: nn.Module) -> bool:
    """Whether some parameter is partitioned, so that all ranks must run a forward together."""
    return any(is_partitioned(parameter) for parameter in model.parameters())


def full_size(parameter: nn.Parameter) -> int:
    """Number of elements of the whole parameter, also where they are packed (bitsandbytes: two of 4 bits in a byte)."""
    quantized = getattr(parameter, "quant_state", None)
    return math.prod(quantized.shape) if quantized is not None else getattr(parameter, "ds_numel", parameter.numel())


def full_shape(parameter: Tensor) -> tuple[int, ...]:
    """Shape of the whole parameter, also where this rank holds only a part of it."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


@contextmanager
def gathered(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Gather the parameters on every rank within the block; all ranks must enter it with the same ones."""
    partitioned = [parameter for parameter in parameters if is_partitioned(parameter)]
    if not partitioned:
        yield
        return
    import deepspeed

    # `deepspeed.zero` is an attribute, not a module that can be imported from.
    with deepspeed.zero.GatheredParameters(partitioned):
        yield


def whole(parameter: Tensor) -> Tensor:
    """The whole parameter, detached, on every rank; all ranks must call. A copy if it is partitioned, else a view."""
    with gathered([parameter]):
        return parameter.detach().clone() if is_partitioned(parameter) else parameter.detach()
