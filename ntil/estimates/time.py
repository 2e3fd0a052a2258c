"""Time of a run from its arithmetic: FLOPs over a device's peak and a stated utilisation.

A matrix product with N parameters takes 2 N FLOPs a token forward and 4 N backward, 2 of them for the gradient of the
parameters and 2 for that of the input (Kaplan et al., 2020, arXiv 2001.08361, appendix B). Frozen parameters have none
of the first, and none at all where nothing before them is trained; gradient checkpointing repeats the forward.
Attention's own products are left out: below 5 % at a thousand tokens and a width of 4096.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import yaml

from ntil.config.schema import RunConfig
from ntil.estimates.memory import key_value_bytes
from ntil.estimates.shape import TEXT_TOKENS, ModelShape, shape_of

UTILISATION = 0.3  # of the peak in training, ours: about 300 TFLOP/s on an H100
STREAMING = 0.5  # of the memory's bandwidth in generation, ours
BATCH = 32  # rows that generate at once where `evaluation.batch_size` leaves it open
ASSUMED = "H100"  # where this machine has no GPU


@dataclass(frozen=True)
class Device:
    """Device by name: dense bfloat16 FLOP/s, bytes/s and bytes of its memory."""

    name: str
    flops: float
    bandwidth: float
    memory: float


@cache
def known_devices() -> dict[str, Device]:
    """Devices of devices.yaml by name."""
    table = yaml.safe_load(Path(__file__).with_name("devices.yaml").read_text())
    return {name: Device(name, **values) for name, values in table.items()}


def device_here() -> Device:
    """This machine's first GPU, if it is known; else the one that estimates assume."""
    devices = known_devices()
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name(0)
        return next((d for key, d in devices.items() if key in name), devices[ASSUMED])
    return devices[ASSUMED]


def pictures_of_step(config: RunConfig, ranks: int, rows_per_picture: float, picture_tokens: int) -> float:
    """Pictures in the sequences of a packed step, on average.

    The rows of a picture follow each other, so m rows hold 1 + (m - 1) / rows_per_picture pictures on average over all
    places where a micro-batch may begin. A picture whose sequence would be longer than `packing.tokens` is repeated.

    Args:
        rows_per_picture: of the training split, on average.
        picture_tokens: of one picture.
    """
    fitting = max(1, (config.packing.tokens - picture_tokens) // TEXT_TOKENS)
    batch_size = config.optim.batch_size
    micro_batches = min(batch_size, ranks * config.engine.accumulation)
    return micro_batches + (batch_size - micro_batches) / min(rows_per_picture, fitting)


def step_flops(shape: ModelShape, batch_size: int, checkpointing: bool, pictures: float | None = None) -> float:
    """FLOPs of an optimizer step of `batch_size` rows.

    Args:
        pictures: how many the tower and the language model get; None: one a row.
    """
    pictures = batch_size if pictures is None else pictures
    image_tokens = pictures * shape.picture_tokens
    text_tokens = batch_size * TEXT_TOKENS
    tokens = {
        "vision": pictures * shape.patches,
        "projector": image_tokens,
        "language": image_tokens + text_tokens,
    }
    total, moved_before = 0.0, False
    for part in ("vision", "projector", "language"):
        parameters, trained = shape.counts.get(part, (0, 0))
        if part == "language" and shape.language:  # an embedding is looked up, and the head sees few positions
            parameters -= shape.vocab * shape.language.hidden
        moves = moved_before or trained > 0
        forward = 2 * (2 if checkpointing and moves else 1)
        # Gradients of the inputs are needed up to the first trained parameter, those of parameters for trained ones.
        backward = 2 * parameters * moves + 2 * min(trained, parameters)
        total += tokens[part] * (forward * parameters + backward)
        moved_before = moves
    return total


def training_seconds(
    config: RunConfig, steps: int, ranks: int, device: Device, rows_per_picture: float | None = None
) -> float | None:
    """Seconds of `steps` on `ranks` devices, without data, communication, validation and saving.

    Args:
        rows_per_picture: of the training split, which counts where the run is packed; None: not known, and every row is
            counted with its picture.
    """
    shape = shape_of(config)
    if shape is None:
        return None
    pictures = None
    if config.packing.shares_tokens and rows_per_picture is not None:
        pictures = pictures_of_step(config, ranks, rows_per_picture, shape.picture_tokens)
    flops = step_flops(shape, config.optim.batch_size, config.engine.gradient_checkpointing, pictures)
    return steps * flops / (ranks * device.flops * UTILISATION)


def test_seconds(config: RunConfig, rows: int, answer_tokens: int, ranks: int, device: Device) -> float | None:
    """Seconds to generate `rows` answers: every token reads all weights and the cache of its batch."""
    shape = shape_of(config)
    if shape is None:
        return None
    batch = config.evaluation.batch_size or BATCH
    cache_bytes = batch * (shape.picture_tokens + TEXT_TOKENS) * key_value_bytes(shape)
    rounds = -(-rows // (batch * ranks))
    prompts = 2 * shape.parameters * rows * (shape.picture_tokens + TEXT_TOKENS) / (device.flops * UTILISATION * ranks)
    reads = (shape.weight_bytes * shape.parameters + cache_bytes) / (device.bandwidth * STREAMING)
    return prompts + rounds * answer_tokens * reads
