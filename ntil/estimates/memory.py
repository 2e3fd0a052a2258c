"""Memory that a rank needs: what stays for the whole training, what a micro-batch adds, what generation adds.

Weights, gradients and optimizer states are DeepSpeed's own estimate (`ntil.models.inventory`). Activations are counted
per token and layer from what autograd saves in bfloat16 under scaled dot product attention; `tests/estimates` counts
the bytes of saved tensors in real blocks against it. The allocator's fragments, CUDA's context (about 0.5 GB) and
communication buffers are in `SPARE`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ntil.config.schema import OptimConfig, RunConfig
from ntil.estimates.shape import TEXT_TOKENS, Layers, ModelShape, shape_of
from ntil.models.inventory import estimate
from ntil.models.optimizers import MOMENTS, state_bytes
from ntil.models.quantization import BYTES

SPARE = 0.1  # of a GPU's memory, ours
AVERAGE = 4  # bytes of a trained weight's average, which is float32


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes a rank needs. states: weights, gradients, optimizer. weights: the model alone, as it generates.

    key_values: the cache of one generation batch. set_aside: weights in whose place their average is validated.
    """

    states: int
    activations: int
    weights: int
    key_values: int
    set_aside: int = 0

    @property
    def training(self) -> int:
        return self.states + self.activations

    @property
    def validation(self) -> int:
        return self.states + self.key_values + self.set_aside

    @property
    def test(self) -> int:
        return self.weights + self.key_values

    @property
    def peak(self) -> int:
        return max(self.training, self.validation, self.test)


def memory_need(config: RunConfig, ranks: int, answer_tokens: int | None = None) -> MemoryNeed | None:
    """The memory of each of `ranks` ranks on one host; None for a model whose sizes aren't known here.

    Args:
        answer_tokens: the longest that is generated; null: `task.max_new_tokens`, or 128 where a task has no such key.
    """
    if answer_tokens is None:
        answer_tokens = config.task.options.get("max_new_tokens") or 128
    shape = shape_of(config)
    if shape is None:
        return None
    engine = config.engine
    rows = max(1, config.optim.batch_size // (ranks * engine.accumulation))
    generated = config.evaluation.batch_size or 1  # where it is open, it is chosen from what is left
    tokens = shape.picture_tokens + TEXT_TOKENS
    return MemoryNeed(
        states=state_memory(shape, config.optim, engine.zero_stage or 0, ranks, engine.offload),
        activations=activation_bytes(shape, rows, engine.gradient_checkpointing),
        weights=int(shape.weight_bytes * shape.parameters - (shape.weight_bytes - BYTES) * shape.quantized),
        key_values=generated * (tokens + answer_tokens) * key_value_bytes(shape),
        set_aside=0 if config.optim.ema is None else AVERAGE * shape.trained,
    )


def state_memory(shape: ModelShape, optim: OptimConfig, stage: int, ranks: int, offload: bool = False) -> int:
    """Bytes a rank needs for weights, gradients, the optimizer's state and the average of the weights.

    DeepSpeed's estimate with the state of this optimizer in place of AdamW's moments, which is cut over the ranks from
    stage 1 on, and with weights in 4 bits. Each rank has all of the average.
    """
    frozen = shape.parameters - shape.trained
    adamw = estimate(stage, shape.trained, frozen, shape.largest, ranks, offload)
    state = state_bytes(optim, shape.trained, shape.factored) - MOMENTS * shape.trained
    average = 0 if optim.ema is None else AVERAGE * shape.trained
    saved = (2 - BYTES) * shape.quantized
    return int(adamw + (0 if offload else state // (ranks if stage else 1)) + average - saved)


def key_value_bytes(shape: ModelShape) -> int:
    """Bytes of the key-value cache per token: keys and values of every layer, in the dtype of the weights."""
    return 2 * shape.language.count * shape.language.key_value * shape.weight_bytes if shape.language else 0


def activation_bytes(shape: ModelShape, rows: int, checkpointing: bool) -> int:
    """Bytes that a micro-batch of `rows` keeps for its backward, with the logits of its supervised positions.

    With gradient checkpointing every layer keeps its input, and one layer at a time all of it.
    """
    tokens = rows * (shape.picture_tokens + TEXT_TOKENS)
    language = shape.language and _kept(shape.language, tokens, _language_layer(shape.language), checkpointing)
    vision = shape.vision and _kept(shape.vision, rows * shape.patches, _vision_layer(shape.vision), checkpointing)
    # Logits in 16 bits and float32, softmax and gradient in float32; about a third of the text is supervised.
    logits = rows * TEXT_TOKENS // 3 * shape.vocab * (2 + 4 + 4 + 4)
    return (language or 0) + (vision or 0) + logits


def _kept(layers: Layers, tokens: int, layer_bytes: int, checkpointing: bool) -> int:
    return tokens * (2 * layers.hidden * layers.count + layer_bytes if checkpointing else layer_bytes * layers.count)


def _language_layer(layers: Layers) -> int:
    """Bytes per token that a layer of Llama's form saves: two norms with float32 copies, attention, gated MLP."""
    return 24 * layers.hidden + 6 * layers.key_value + 8 * layers.intermediate


def _vision_layer(layers: Layers) -> int:
    """Bytes per token that a layer of a vision transformer saves: two norms, attention, MLP with its activation."""
    return 20 * layers.hidden + 6 * layers.intermediate
