"""How exact a packed step is: the same rows packed and separate, for families and losses, in float32.

    python -m benchmarks.packing_checks                                   # all families and losses, a minute
    python -m benchmarks.packing_checks --models llava_nano --losses ce,ntil --modes tokens
    python -m benchmarks.packing_checks --memory                          # what 8,192 tokens keep for the backward

Differences are relative: of the logits by the largest one, of loss and components (the largest) by their value, of the
gradients by their norm over all parameters. Pictures have four questions, of which a step has one to four; text models
share a beginning of worked examples.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from data.common.rows import Row
from ntil.components import Components
from ntil.config.compose import choices, compose
from ntil.config.schema import PackingConfig
from ntil.losses.base import NumberLoss
from ntil.losses.step import StepInfo
from ntil.models.head import SupervisedHead
from ntil.packing.collator import PackedCollator
from ntil.packing.masks import attention_mask, visible
from ntil.packing.rows import SharedPictures
from ntil.packing.tower import SharedTower
from ntil.train.trainer import NOT_INPUTS

PICTURED = (
    "llava_nano",
    "yi_vl_nano",
    "qwen2_vl_nano",
    "qwen2_5_vl_nano",
    "qwen3_vl_nano",
    "internvl_nano",
    "smolvlm_nano",
    "llava_ov_nano",
    "dino_smol_nano",
)
TEXT = ("qwen25_nano", "llama3_nano", "baichuan2_nano", "minicpm3_nano")
SCENES = ["task=grounding_nano", "task.source.questions=4", "task.source.rows={train:48,validation:8,test:8}"]
# Longest sequence, of which a step has several that share something; a picture in tiles alone has more than 160 tokens.
TOKENS = defaultdict(lambda: 160, llava_ov_nano=640)
ROWS = [5, 0, 9, 2, 1, 12, 10, 3, 11]  # one to four questions of each picture, mixed
EXAMPLES = "Numbers are written in digits, and the sum follows. " + "12 + 31 = 43. 20 + 57 = 77. 10 + 20 = 30. " * 2


@dataclass(frozen=True)
class StepResult:
    """What a step over some rows gives."""

    logits: Tensor
    total: Tensor
    components: dict[str, Tensor]
    gradients: dict[str, Tensor]
    tokens: int


def words_of(model: str) -> list[str]:
    """Overrides of a model and of rows that share a beginning."""
    if model in PICTURED:
        return [f"model={model}", *SCENES]
    return [f"model={model}", "task=arithmetic", f'model.template="{EXAMPLES}{{prompt}}\\nAnswer:"']


def rows_at(components: Components, indices: Sequence[int], split: str = "train") -> list[Row]:
    """Rows that were fetched together."""
    return SharedPictures(components.task.rows(split), components.task).__getitems__(indices)


def both(components: Components, packing: PackingConfig, rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The packed batch of the rows and the one that isn't."""
    return PackedCollator(components.collator, packing)(rows), components.collator(rows)


def step(
    model: Any, loss: NumberLoss, batch: dict[str, Any], head: SupervisedHead, tower: SharedTower | None = None
) -> StepResult:
    """A step's logits, loss and gradients."""
    model.zero_grad(set_to_none=True)
    inputs = {k: v for k, v in batch.items() if k not in NOT_INPUTS}
    if "segments" in batch:
        inputs["attention_mask"] = attention_mask(batch["segments"], model.config._attn_implementation, model.dtype)
    with tower.following(batch.get("tower")) if tower else nullcontext():
        logits = head.logits(model, inputs, batch["positions"])
    names = ("digits", "numbers", "boxes")
    digits, numbers, boxes = (torch.tensor(float(max(1, batch[name]))) for name in names)
    info = StepInfo(float(batch["targets"].numel()), float(batch["samples"]), digits, numbers, shapes=boxes)
    if loss.uses_embeddings:
        info = replace(info, output_embeddings=model.get_output_embeddings().weight)
    output = loss(logits, batch["targets"], batch["spans"], info)
    output.total.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return StepResult(logits.detach(), output.total.detach(), output.components, gradients, batch["tokens"])


def differences(packed: StepResult, separate: StepResult) -> dict[str, float]:
    """Relative differences of logits, loss, components and gradients.

    Raises:
        ValueError: parameters have a gradient in one of them only.
    """
    if packed.gradients.keys() != separate.gradients.keys():
        raise ValueError("not the same parameters have a gradient")
    apart = [(packed.gradients[name] - gradient).norm() for name, gradient in separate.gradients.items()]
    norms = [gradient.norm() for gradient in separate.gradients.values()]
    parts = separate.components.items()
    return {
        "logits": float((packed.logits - separate.logits).abs().max() / separate.logits.abs().max()),
        "loss": float((packed.total - separate.total).abs() / separate.total.abs()),
        "components": max(float((packed.components[n] - v).abs() / v.abs().clamp(min=1e-6)) for n, v in parts),
        "gradients": float(torch.stack(apart).norm() / torch.stack(norms).norm()),
    }


def kept_bytes(bool_mask: bool, length: int = 8192, layers: int = 4) -> int:
    """Bytes that a Llama of few, narrow layers keeps for its backward, with our mask or a bool one of the same."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 1}
    sizes["num_hidden_layers"] = layers
    model = LlamaModel(LlamaConfig(vocab_size=64, max_position_embeddings=length, **sizes))
    segments = torch.arange(length)[None, None].expand(1, 2, length) // 1024  # eight examples
    mask = visible(segments) if bool_mask else attention_mask(segments, "sdpa", torch.float32)
    storages: dict[int, Any] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    places = torch.arange(length)[None] % 1024
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model(input_ids=places % 64, attention_mask=mask, position_ids=places, use_cache=False)
    assert hidden.last_hidden_state.requires_grad
    return sum(storage.nbytes() for storage in storages.values())


def main() -> None:
    """Print a line for each model, loss and mode."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    losses = ",".join(name for name in choices("loss") if name != "untrained")
    parser.add_argument("--models", default=",".join([*PICTURED, *TEXT]))
    parser.add_argument("--losses", default=losses)
    parser.add_argument("--modes", default="pictures,tokens")
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    if options.memory:
        print(f"bool mask {kept_bytes(True) / 1e6:,.0f} MB, ours {kept_bytes(False) / 1e6:,.0f} MB")
        return
    print("| model | packing | losses | tokens | logits | loss | components | gradients |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.models.split(","):
        model = None
        for mode in options.modes.split(","):
            worst: dict[str, float] = {}
            for loss in options.losses.split(","):
                components = Components.build(compose([*words_of(name), f"loss={loss}"]))
                if model is None:
                    torch.manual_seed(0)
                    model = components.family.load()
                    head = SupervisedHead(model)
                batches = both(components, PackingConfig(mode, TOKENS[name]), rows_at(components, ROWS))
                packed, separate = (step(model, components.loss, batch, head) for batch in batches)
                for key, value in differences(packed, separate).items():
                    worst[key] = max(value, worst.get(key, 0.0))
            figures = " | ".join(f"{value:.0e}" for value in worst.values())
            tokens = f"{packed.tokens} of {separate.tokens}"
            count = len(options.losses.split(","))
            print(f"| `{name}` | `{mode}` | {count} | {tokens} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
