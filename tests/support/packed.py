"""Packed and separate micro-batches over the same rows, and what a loss makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from data.common.rows import Row
from ntil.components import Components
from ntil.losses.base import NumberLoss, StepInfo
from ntil.models.head import SupervisedHead
from ntil.packing.collator import PackedCollator
from ntil.packing.masks import attention_mask
from ntil.packing.rows import SharedPictures
from ntil.train.trainer import NOT_INPUTS

SCENES = ["task=grounding_nano", "task.source.questions=4", "task.source.rows={train:48,validation:8,test:8}"]


@dataclass(frozen=True)
class Result:
    """What a step over some rows gives."""

    logits: Tensor
    total: Tensor
    components: dict[str, Tensor]
    gradients: dict[str, Tensor]
    tokens: int


def rows_at(components: Components, indices: Sequence[int], split: str = "train") -> list[Row]:
    return SharedPictures(components.task.rows(split), components.task).__getitems__(indices)


def inputs_of(batch: dict[str, Any], model: Any) -> dict[str, Any]:
    inputs = {k: v for k, v in batch.items() if k not in NOT_INPUTS}
    if "segments" in batch:
        inputs["attention_mask"] = attention_mask(batch["segments"], model.config._attn_implementation, model.dtype)
    return inputs


def result(model: Any, loss: NumberLoss, batch: dict[str, Any], head: SupervisedHead | None = None) -> Result:
    """One step's loss and gradients."""
    head = head or SupervisedHead(model)
    model.zero_grad(set_to_none=True)
    logits = head.logits(model, inputs_of(batch, model), batch["positions"])
    info = StepInfo(
        torch.tensor(float(batch["targets"].numel())),
        torch.tensor(float(batch["samples"])),
        torch.tensor(float(max(1, batch["digits"]))),
        torch.tensor(float(max(1, batch["numbers"]))),
    )
    if loss.uses_embeddings:
        info = replace(info, output_embeddings=model.get_output_embeddings().weight)
    output = loss(logits, batch["targets"], batch["spans"], info)
    output.total.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return Result(logits.detach(), output.total.detach(), output.components, gradients, batch["tokens"])


def assert_same_targets(packed: dict[str, Any], separate: dict[str, Any]) -> None:
    for name in ("samples", "digits", "numbers", "ids", "unmeasured"):
        assert packed[name] == separate[name]
    assert torch.equal(packed["targets"], separate["targets"])
    for name, value in vars(separate["spans"]).items():
        other = getattr(packed["spans"], name)
        assert torch.equal(other, value) if isinstance(value, Tensor) else other == value


def assert_same_step(packed: Result, separate: Result, tolerance: float = 1e-5) -> dict[str, float]:
    """Losses, their components, logits, and the gradient of every parameter by its norm, relative; the differences."""
    scale = separate.logits.abs().max()
    differences = {
        "logits": float((packed.logits - separate.logits).abs().max() / scale),
        "loss": float((packed.total - separate.total).abs() / separate.total.abs()),
        "components": max(
            float((packed.components[n] - value).abs() / value.abs().clamp(min=1e-6))
            for n, value in separate.components.items()
        ),
        "gradients": float(
            torch.stack([(packed.gradients[n] - g).norm() for n, g in separate.gradients.items()]).norm()
            / torch.stack([g.norm() for g in separate.gradients.values()]).norm()
        ),
    }
    assert packed.gradients.keys() == separate.gradients.keys()
    assert max(differences.values()) < tolerance, differences
    return differences


def both(components: Components, packing: Any, rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The packed batch of the rows and the one that isn't."""
    return PackedCollator(components.collator, packing)(rows), components.collator(rows)
