"""ntil: teach vision-language models numbers. `import ntil` needs torch only, and not even that before first use."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "NumberVocab": "ntil.numbers",
    "NumberSpans": "ntil.numbers",
    "digit_by_digit": "ntil.tokenizers",
    "LossOutput": "ntil.losses",
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
}
__all__ = [*_LAZY, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ntil' has no attribute {name!r}")
