"""Settings of the libraries that a process of a run works with: threads, warnings, what they print."""

from __future__ import annotations

import logging
import os
import warnings

import torch
from transformers.utils import logging as transformers_logging

from ntil.compat import limit_waits_for_builds


def set_up_libraries(threads: int | None) -> None:
    """Set up torch, DeepSpeed and transformers, once per process. threads: of torch; None: its own choice."""
    if threads:
        torch.set_num_threads(threads)
        # accelerate sets the number of threads itself where the variable isn't there (accelerate 1.15, state.py).
        os.environ["OMP_NUM_THREADS"] = str(threads)
    limit_waits_for_builds()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
