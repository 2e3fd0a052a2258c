"""Number-aware losses: a token cost, value terms, and a way to join them to cross-entropy."""

from ntil.losses.base import LossOutput, NumberLoss
from ntil.losses.presets import CE, EMD, NTIL

__all__ = ["CE", "EMD", "NTIL", "LossOutput", "NumberLoss"]
