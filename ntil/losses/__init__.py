"""Number-aware losses: a token cost, value terms, and a way to join them to cross-entropy."""

from ntil.losses.base import LossOutput, LossParts, NumberLoss, StepInfo
from ntil.losses.baselines import DEL, DIST2, EMO, NTL, SMMD, SoftLabel
from ntil.losses.cross_entropy import CE, Untrained
from ntil.losses.ntil import EMD, NTIL
from ntil.losses.value_emd import ValueEMD

__all__ = [
    "CE",
    "DEL",
    "DIST2",
    "EMD",
    "EMO",
    "NTIL",
    "NTL",
    "SMMD",
    "LossOutput",
    "LossParts",
    "NumberLoss",
    "SoftLabel",
    "StepInfo",
    "Untrained",
    "ValueEMD",
]
