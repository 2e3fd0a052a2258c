"""Number-aware losses: a token cost, value terms, and a way to join them to cross-entropy."""

from ntil.losses.base import NumberLoss
from ntil.losses.baselines import DEL, DIST2, EMO, SMMD, SoftLabel
from ntil.losses.boxes import CoordExp, ExpectedIoU
from ntil.losses.cross_entropy import CE, Untrained
from ntil.losses.ntil import EMD, NTIL
from ntil.losses.ntl import NTL, NTLNumber
from ntil.losses.raft import RAFT
from ntil.losses.regression import RegressionHead
from ntil.losses.step import LossOutput, LossParts, StepInfo
from ntil.losses.sum import Sum
from ntil.losses.value_emd import ValueEMD

__all__ = [
    "CE",
    "DEL",
    "DIST2",
    "EMD",
    "EMO",
    "NTIL",
    "NTL",
    "RAFT",
    "SMMD",
    "CoordExp",
    "ExpectedIoU",
    "LossOutput",
    "LossParts",
    "NTLNumber",
    "NumberLoss",
    "RegressionHead",
    "SoftLabel",
    "StepInfo",
    "Sum",
    "Untrained",
    "ValueEMD",
]
