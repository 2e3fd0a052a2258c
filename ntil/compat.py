"""Workarounds that use private parts of other libraries, each with the version in which they were checked."""

from __future__ import annotations


def skip_deepspeed_shm_build() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce, which only its inference engine calls.

    Without this every process group on a CPU begins with a build that needs ninja and a C++ compiler, and a killed
    build leaves a lock that the next run waits for indefinitely (DeepSpeed 0.19.8: `comm.torch.build_shm_op`). Call it
    before the process group is made.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
