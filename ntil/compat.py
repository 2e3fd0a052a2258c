"""Holds on what other libraries keep private, each with the version that it was seen in."""

from __future__ import annotations


def skip_deepspeed_shm_build() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce, which only its inference engine calls.

    Without this every process group on a CPU begins with a build that needs ninja and a C++ compiler, and a killed
    build leaves a lock that the next run waits for without end (DeepSpeed 0.19.8: `comm.torch.build_shm_op`). Must be
    called before the process group is made.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
