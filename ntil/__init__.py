"""Number-aware losses and the number spans under them; a name is imported at first use and needs torch alone."""

from __future__ import annotations

import importlib
from typing import Any

from ntil.rooms import name_rooms

__version__ = "0.2.0"

_LAZY = {
    "NumberVocab": "ntil.numbers.vocab",
    "NumberSpans": "ntil.numbers.spans",
    "digit_by_digit": "ntil.numbers.tokenizers",
    "LossOutput": "ntil.losses",
    "LossParts": "ntil.losses",
    "StepInfo": "ntil.losses",
    "NumberLoss": "ntil.losses",
    "CE": "ntil.losses",
    "EMD": "ntil.losses",
    "NTIL": "ntil.losses",
    "NTL": "ntil.losses",
    "SMMD": "ntil.losses",
    "DIST2": "ntil.losses",
    "SoftLabel": "ntil.losses",
    "DEL": "ntil.losses",
    "EMO": "ntil.losses",
    "ValueEMD": "ntil.losses",
    "RAFT": "ntil.losses",
    "NTLNumber": "ntil.losses",
    "CoordExp": "ntil.losses",
    "ExpectedIoU": "ntil.losses",
    "RegressionHead": "ntil.losses",
    "Sum": "ntil.losses",
}
__all__ = [*_LAZY, "__version__"]

name_rooms()


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ntil' has no attribute {name!r}")
