"""Workers forked from a process that has imported everything: each starts in a second, not in eight."""

from __future__ import annotations

import multiprocessing
import os
import sys
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
        "wandb",
        "transformers.models.llava.modeling_llava",
        "transformers.models.clip.modeling_clip",
        "transformers.models.llama.modeling_llama",
        "ntil.train.run",
        "ntil.models.llava",
        "tasks.clock",
        "data.clock.rendered",
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


def start(run: RunFolder) -> list[BaseProcess]:
    """The ranks of a frozen run; what they print lies in logs/."""
    processes = []
    for environment in _environments(run.config().engine):
        changed = {k: v for k, v in environment.items() if os.environ.get(k) != v and k != LAUNCHER}
        process = _context.Process(target=_work, args=(run.path, changed))
        process.start()
        processes.append(process)
    return processes


def finish(run: RunFolder, timeout: float = 300) -> list[int | None]:
    """Run to the end; the ranks' exit codes."""
    codes = wait(start(run), timeout)
    return wait(start(run), timeout) if set(codes) == {AGAIN} else codes


def wait(processes: list[BaseProcess], timeout: float = 300) -> list[int | None]:
    """The exit codes; `AGAIN` of ranks that would start anew in their own place, which a fork can't."""
    for process in processes:
        process.join(timeout)
        process.kill()
    return [process.exitcode for process in processes]


def _end_to_start_anew(*_: Any) -> NoReturn:
    sys.exit(AGAIN)


def _work(folder: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.setsid()
    # As in a run that a launcher starts; here the fork server's own way would be inherited.
    multiprocessing.set_start_method("fork", force=True)
    from ntil.distributed.renewal import Beginning
    from ntil.train import worker

    Beginning.start_anew = _end_to_start_anew  # type: ignore[assignment, method-assign]
    worker._print_to(folder / "logs" / f"rank{environment['RANK']}.log")
    sys.exit(worker.main(folder))
