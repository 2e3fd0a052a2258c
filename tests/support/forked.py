"""Workers forked from a process that has imported everything: each starts in a second, not in eight."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from ntil.distributed.launcher import LAUNCHER
from ntil.launch.processes import _environments
from ntil.preflight import compose_checked
from ntil.runs.folder import RunFolder, folder_of
from tests.support.runs import TINY_RUN

_context: Any = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [
        "torch",
        "deepspeed",
        "deepspeed.runtime.zero.muon.muon_optimizer",  # with torch.compile's parts: 3 s
        "wandb",
        "transformers.models.llava.modeling_llava",
        "transformers.models.clip.modeling_clip",
        "transformers.models.llama.modeling_llama",
        "transformers.models.qwen2.modeling_qwen2",
        "transformers.models.qwen2_vl.modeling_qwen2_vl",
        "transformers.models.paligemma.modeling_paligemma",
        "transformers.models.siglip.modeling_siglip",
        "transformers.models.gemma.modeling_gemma",
        "peft",
        "ntil.train.run",
        "ntil.models.llava",
        "ntil.models.yi_vl",
        "ntil.models.qwen2_vl",
        "ntil.models.paligemma",
        "ntil.models.causal_lm",
        "ntil.models.baichuan2",
        "ntil.models.minicpm3",
        "tasks.clock",
        "tasks.arithmetic",
        "data.clock.rendered",
        "data.arithmetic",
    ]
)
os.environ.setdefault("DS_ACCELERATOR", "cpu")
AGAIN = 75

FORKED_RUN = [
    *TINY_RUN,
    "optim.warmup=2",
    "task.source.rows={train:64,validation:16,test:26}",
    "evaluation.batch_size=4",
    "engine.device=cpu",
]


def freeze(words: list[str]) -> RunFolder:
    config = compose_checked([*FORKED_RUN, *words])
    run = folder_of(config)
    run.freeze(config)
    return run


def start(run: RunFolder, before: Callable[[], object] | None = None) -> list[BaseProcess]:
    """The ranks of a frozen run; what they print lies in logs/. `before` is called in each, from a module that they can
    import."""
    processes = []
    for environment in _environments(run.config().engine):
        changed = {k: v for k, v in environment.items() if os.environ.get(k) != v and k != LAUNCHER}
        process = _context.Process(target=_work, args=(run.path, changed, before))
        process.start()
        processes.append(process)
    return processes


def finish(run: RunFolder, timeout: float = 300, before: Callable[[], object] | None = None) -> list[int | None]:
    """Run to the end; the ranks' exit codes."""
    codes = wait(start(run, before), timeout)
    return wait(start(run, before), timeout) if set(codes) == {AGAIN} else codes


def wait(processes: list[BaseProcess], timeout: float = 300) -> list[int | None]:
    """The exit codes; `AGAIN` of ranks that would start anew in their own place, which a fork can't."""
    for process in processes:
        process.join(timeout)
        process.kill()
    return [process.exitcode for process in processes]


def _end_to_start_anew(*_: Any) -> NoReturn:
    sys.exit(AGAIN)


def _work(folder: Path, environment: dict[str, str], before: Callable[[], object] | None) -> None:
    gc.freeze()  # what was imported before need not be looked through whenever garbage is collected
    os.environ.update(environment)
    os.setsid()
    if before is not None:
        before()
    # As in a run that a launcher starts; here the fork server's own way would be inherited.
    multiprocessing.set_start_method("fork", force=True)
    from ntil.distributed.renewal import Beginning
    from ntil.train import worker

    Beginning.start_anew = _end_to_start_anew  # type: ignore[assignment, method-assign]
    worker._print_to(folder / "logs" / f"rank{environment['RANK']}.log")
    sys.exit(worker.main(folder))
