"""Environment variables with which other libraries would change a run behind its configuration."""

from __future__ import annotations

import os

# Read by accelerate 1.14 and transformers 5.17 for what `engine` says: precision, devices, sharding, accumulation.
PREFIXES = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "FP8_")
# Precision of matrix products (CUDA, cuBLAS, XLA), model parallelism of SageMaker, kernels from the hub.
NAMES = (
    "NVIDIA_TF32_OVERRIDE",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "XLA_USE_BF16",
    "XLA_DOWNCAST_BF16",
    "SM_FRAMEWORK_PARAMS",
    "SM_HP_MP_PARAMETERS",
    "USE_HUB_KERNELS",
)
_removed: dict[str, str] = {}


def remove_foreign_variables() -> None:
    """Remove them from this process's environment, before a library reads them: the configuration decides."""
    for name in [*os.environ]:
        if name in NAMES or name.startswith(PREFIXES):
            _removed[name] = os.environ.pop(name)


def removed_variables() -> dict[str, str]:
    """Those that this process was started with, by name."""
    return dict(sorted(_removed.items()))
