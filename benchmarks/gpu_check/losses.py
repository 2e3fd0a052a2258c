"""Every loss of conf/loss on the device equals the CPU's: total and gradient, on a batch with numbers of all kinds."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from benchmarks.gpu_check.check import Context, Result
from ntil import NumberSpans, NumberVocab
from ntil.config.build import build
from ntil.config.compose import choices, compose
from ntil.config.schema import Component
from ntil.console import Table

TOLERANCE = 1e-5  # of float32 sums in another order, relative to the largest value
VOCABULARY, WIDTH = 4096, 32
VOCAB = NumberVocab(list(range(15, 25)), point_ids=[8], minus_ids=[9])
# Numbers of one to four digits, a fraction, a negative one; 7 is other text, -100 isn't supervised.
LABELS = (
    (7, 16, 17, 7, 18, 7, 24, 15, 15, 7, -100, -100),
    (9, 16, 8, 19, 20, 7, 7, 15, 8, 15, 21, -100),
    (-100, 7, 23, 7, 9, 17, 17, 17, 17, 7, 7, 7),
)
BOX, EXTENT = (0, 1, 2, 5), (1000.0, 3000.0)  # x1, y1, x2, y2: the numbers 12, 3, 900 and 8


def run(context: Context) -> Result:
    """Compare all losses on the device with those on the CPU."""
    rows = []
    for name in choices("loss"):
        spec = spec_of(name)
        here, there = value_and_gradient(spec, "cpu"), value_and_gradient(spec, context.device)
        differences = [difference(a, b.cpu()) for a, b in zip(here, there, strict=True)]
        equal = max(differences) <= TOLERANCE
        rows.append([name, *(f"{d:.1e}" for d in differences), "equal" if equal else "DIFFERS"])
    table = Table("losses", ["loss", "total", "gradient", ""], ["l", "r", "r", "l"], rows)
    passed = all(row[-1] == "equal" for row in rows)
    noted = f"largest relative differences, at most {TOLERANCE:g}; noise is off, since generators differ by device"
    return Result(f"Losses on {context.device} equal the CPU's", passed, [noted], [table])


@cache
def spec_of(name: str) -> Component:
    """A config of conf/loss without noise."""
    spec = compose([f"loss={name}"]).loss
    return replace(spec, options={**spec.options, **({"noise": 0.0} if "noise" in spec.options else {})})


def value_and_gradient(spec: Component, device: str) -> tuple[Tensor, Tensor]:
    """Total of a loss and its gradient on the logits, of the same batch on any device."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(VOCABULARY, WIDTH, generator=generator).to(device)
    labels = torch.tensor(LABELS)
    logits = (2 * torch.randn(*labels.shape, VOCABULARY, generator=generator)).to(device).requires_grad_()
    loss = build("loss", spec, vocab=VOCAB, embeddings=table).to(device)
    spans = NumberSpans.find(labels, VOCAB, loss.number_style)
    box = replace(spans, shape=torch.tensor([BOX]), extent=torch.tensor([EXTENT], dtype=torch.float64))
    total = loss(logits, labels.to(device), box.to(device)).total
    return total.detach(), torch.autograd.grad(total, logits)[0]


def difference(one: Tensor, other: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return ((one - other).abs().max() / one.abs().max().clamp(min=1e-12)).item()
