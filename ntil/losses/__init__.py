"""Number-aware losses: a token cost, value terms, and a way to join them to cross-entropy."""

from ntil.losses.base import LossOutput, NumberLoss
from ntil.losses.baselines import CE
from ntil.losses.ntil import EMD, NTIL
from ntil.losses.rivals import DEL, DIST2, EMO, NTL, SMMD, SoftLabel
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
    "NumberLoss",
    "SoftLabel",
    "ValueEMD",
]
