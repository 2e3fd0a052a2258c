"""Workarounds that use private parts of other libraries, each with the version in which they were checked."""

from __future__ import annotations

import os
import sys
import time
from functools import wraps
from typing import Any

BUILD_LIMIT = 600.0  # seconds that a build of an extension by another process may take


def skip_deepspeed_shm_build() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce, which only its inference engine calls.

    Without this every process group on a CPU begins with a build that needs ninja and a C++ compiler, and a killed
    build leaves a lock that the next run waits for indefinitely (DeepSpeed 0.19.8: `comm.torch.build_shm_op`). Call it
    before the process group is made.
    """
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def end_where_batches_cannot_be_sent() -> None:
    """Have this data worker end where a batch can't be sent, as where /dev/shm is full.

    The thread that sends batches would print the error and go on, and the trainer would wait for the lost batch
    (CPython 3.11: `multiprocessing.queues.Queue._on_queue_feeder_error`).
    """
    from multiprocessing.queues import Queue

    def end(error: Exception, _batch: Any) -> None:
        print(f"a data worker can't send a batch: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)

    Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


def limit_waits_for_builds() -> None:
    """Have a wait for another process's build of an extension say so, and end (torch 2.13: `FileBaton.wait`).

    A build that was killed leaves its lock, for which torch and DeepSpeed would wait forever, without a word.
    """
    from torch.utils.file_baton import FileBaton

    def wait(baton: Any) -> None:
        lock, began = baton.lock_file_path, time.monotonic()
        while os.path.exists(lock):  # noqa: PTH110  a text, or whatever torch has there
            waited = time.monotonic() - began
            if waited < baton.wait_seconds:
                print(
                    f"waiting for another process to build an extension, at most {BUILD_LIMIT:g} s: {lock}", flush=True
                )
            if waited > BUILD_LIMIT:
                raise TimeoutError(
                    f"{lock} was there for {BUILD_LIMIT:g} s: the build that made it is stuck or was killed; if no "
                    "process builds any more, remove the file and run the same command with retry=true"
                )
            time.sleep(baton.wait_seconds)

    FileBaton.wait = wait  # type: ignore[method-assign,assignment]


def leave_out_tied_frozen(engine: Any) -> None:
    """Have a checkpoint without frozen parameters hold none under its second name either.

    A tied head is the embedding by another name, and `named_parameters` gives it one: each checkpoint of adapters held
    the embedding, 1 GB of PaliGemma's (DeepSpeed 0.19.8: `DeepSpeedEngine.module_state_dict`).
    """
    original = engine.module_state_dict
    if getattr(original, "leaves_out_tied", False):
        return

    @wraps(original)
    def module_state_dict(*args: Any, exclude_frozen_parameters: bool = False, **kwargs: Any) -> Any:
        state = original(*args, exclude_frozen_parameters=exclude_frozen_parameters, **kwargs)
        if exclude_frozen_parameters:
            for name, parameter in engine.module.named_parameters(remove_duplicate=False):
                if not parameter.requires_grad:
                    state.pop(name, None)
        return state

    module_state_dict.leaves_out_tied = True  # type: ignore[attr-defined]
    engine.module_state_dict = module_state_dict
