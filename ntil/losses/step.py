"""What a loss gets and gives: the step that a batch is part of, the inputs of terms, terms, their means, the output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ntil.losses.mass import Largest
from ntil.numbers.spans import NumberSpans

IGNORE = -100


class LossOutput(NamedTuple):
    """`total` is the scalar to call backward on; `components` are detached scalars for the log."""

    total: Tensor
    components: dict[str, Tensor]


@dataclass(frozen=True)
class StepInfo:
    """Properties of the optimizer step that a micro-batch is part of; by default it is the whole step.

    Attributes:
        tokens, samples, digits, numbers, shapes: what the sums over supervised tokens, samples, digits, numbers and
            boxes are divided by: their counts in the whole step, over ranks and micro-batches, see
            `NumberLoss.step_info`.
        draw: number of the step. The noise of a loss is a function of its seed and of this.
        first_token, step_tokens: where the batch's supervised tokens begin among the step's, and how many those are, so
            that noise doesn't depend on how a step is cut into ranks and micro-batches (0: as many as the batch has).
        output_embeddings: [V, H], the model's, for losses that use them (`uses_embeddings`).
        reference: what the factors come from, of the whole step, where it is known before its parts, see
            `NumberLoss.reference`.
    """

    tokens: Tensor | float | None = None
    samples: Tensor | float | None = None
    digits: Tensor | float | None = None
    numbers: Tensor | float | None = None
    draw: int = 0
    first_token: int = 0
    step_tokens: int = 0
    output_embeddings: Tensor | None = None
    reference: Tensor | None = None
    shapes: Tensor | float | None = None


WHOLE_STEP = StepInfo()


class LossInputs(NamedTuple):
    """Inputs of the terms: float32 (or float64) logits [N, V], labels [N], digit logits [N, base], numbers.

    `log_mass` [N], log of the probability of all digits together, is there for losses that use it (`uses_mass`).
    """

    logits: Tensor
    labels: Tensor
    digit_logits: Tensor
    spans: NumberSpans
    info: StepInfo
    log_mass: Tensor | None = None


class Term(NamedTuple):
    """A cost for every token or digit ([N]), number ([M]) or box ([S]), its weight in `aux`, its largest value."""

    cost: Tensor
    per: Literal["token", "digit", "number", "shape"]
    weight: float = 1.0
    largest: Largest | None = None


class LossParts(NamedTuple):
    """Mean cross-entropy, and the mean and weight of every term, each a scalar."""

    ce: Tensor
    terms: dict[str, tuple[Tensor, float]]

    @property
    def aux(self) -> Tensor:
        return sum((weight * mean for mean, weight in self.terms.values()), torch.zeros_like(self.ce))


class Counts(NamedTuple):
    """Denominators of the means."""

    tokens: Tensor | float
    samples: Tensor | float
    digits: Tensor | float
    numbers: Tensor | float
    shapes: Tensor | float


def is_factor(component: str) -> bool:
    """Whether a component of a loss is the same in every part of a step, so that it is averaged where others add up."""
    return component.rpartition("/")[2] == "factor"


def places_in_step(dealt: Sequence[Sequence[int]], rank: int) -> list[tuple[int, int]]:
    """Where each micro-batch's supervised tokens begin among those of the step, and how many those are.

    The rows of a step are assigned micro-batch by micro-batch, rank by rank, so a micro-batch follows those of all
    ranks in earlier rounds, and those of lower ranks in its own.

    Args:
        dealt: tokens of the micro-batches of every rank. rank: whose micro-batches are asked for.
    """
    rounds = list(zip(*dealt, strict=True))
    total = sum(map(sum, rounds))
    return [(sum(map(sum, rounds[:i])) + sum(sizes[:rank]), total) for i, sizes in enumerate(rounds)]
