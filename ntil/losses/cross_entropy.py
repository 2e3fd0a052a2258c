"""Cross-entropy, plain and with smoothed labels."""

from __future__ import annotations

from typing import ClassVar

from ntil.losses.base import NumberLoss
from ntil.numbers.vocab import NumberVocab


class CE(NumberLoss):
    """Cross-entropy, mean over the supervised tokens.

    Args:
        vocab: not used; accepted so that all losses have the same constructor.
        smoothing: label smoothing over the whole vocabulary; PaliGemma's own transfer to RefCOCO uses 0.3.
    """

    any_style: ClassVar[bool] = True

    def __init__(self, vocab: NumberVocab | None = None, *, smoothing: float = 0.0) -> None:
        super().__init__(vocab, smoothing=smoothing)


class Untrained(CE):
    """No training at all: the model is tested as it was loaded, the baseline before any loss."""

    trains: ClassVar[bool] = False
