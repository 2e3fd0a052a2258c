"""Processes of one run: start, signals, wait, and the cause of a failure.

One host: the ranks are started here. Several (`engine.hostfile`): DeepSpeed's launcher starts them. Both start
`python -m ntil.train.worker <run folder>` with RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as
torchrun does, on the config frozen in the folder.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from data.common.cores import usable_cores
from ntil.config.schema import EngineConfig, RunConfig
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.launcher import LAUNCHER
from ntil.distributed.ports import free_port
from ntil.distributed.ranks import ranks_on_this_host
from ntil.launch.prepared import Prepared, PreparedWorker
from ntil.preflight import hosts
from ntil.runs.folder import RunFolder

WORKER = "ntil.train.worker"
Rank: TypeAlias = subprocess.Popen[bytes] | PreparedWorker
_GRACE = 30.0  # seconds that ranks get to end after the first of them has ended on request
_SAVING = 900.0  # seconds that ranks get to save and end after a signal
# Exit codes of a process that a signal has ended: one that listened, and one that did not yet.
_INTERRUPTED = (Interrupt.EXIT_CODE, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)


def spawn(
    run: RunFolder,
    config: RunConfig,
    lock: int | None = None,
    worker: str = WORKER,
    prepared: Prepared | None = None,
) -> int:
    """Run the workers of a frozen folder to their end; they inherit the folder's lock.

    Args:
        worker: the module that a rank runs, with the folder as its argument.
        prepared: a process to fork a single rank of WORKER from; ranks of another module are started anew.

    Returns:
        0, 130 when they were interrupted, or another code; error.txt says what failed, also in saving when interrupted.
    """
    run.error.unlink(missing_ok=True)
    run.stop.unlink(missing_ok=True)
    engine = config.engine
    if engine.hostfile:
        return _spawn_on_hosts(run, Path(engine.hostfile), worker, lock)
    children: list[Rank] = []

    def forward(number: int) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    with _signals(forward) as received:
        children += _start(run.path, engine, lock, worker, prepared)
        if received:  # before there was anybody to forward it to
            forward(signal.SIGTERM)
        codes = _wait(children, received)
    if received and any(code not in (0, *_INTERRUPTED) for code in codes):
        # All were asked to end, and one failed, as on a full disk; the worker tells that from the loss of a peer.
        _explained(run, codes)
        return Interrupt.EXIT_CODE
    if received or set(codes) & {*_INTERRUPTED}:
        # A rank whose peer has ended on request may have written an error of its own, which is none of the run's.
        run.error.unlink(missing_ok=True)
        return Interrupt.EXIT_CODE
    return _explained(run, codes)


def _start(
    folder: Path,
    engine: EngineConfig,
    lock: int | None,
    worker: str = WORKER,
    prepared: Prepared | None = None,
) -> list[Rank]:
    """Start all ranks, in sessions of their own, so that an interrupt reaches each exactly once, from here."""
    environments = list(_environments(engine))
    if prepared is not None and worker == WORKER and len(environments) == 1:
        forked = prepared.start(folder, environments[0], lock)
        if forked is not None:
            return [forked]
    return [
        subprocess.Popen(
            _worker(folder, worker), env=environment, start_new_session=True, pass_fds=[lock] if lock else []
        )
        for environment in environments
    ]


def _worker(folder: Path, module: str = WORKER) -> list[str]:
    return [sys.executable, "-m", module, str(folder)]


def _environments(engine: EngineConfig) -> Iterator[dict[str, str]]:
    count = ranks_on_this_host(engine)
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        LAUNCHER: str(os.getpid()),
    }
    # Tools of this interpreter's environment must be found also where it is not activated.
    common |= _imports()
    common["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if count > 1:
        # Ranks that each use all cores are slower than a single rank.
        common["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, usable_cores() // count)))
    for rank in range(count):
        yield {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}


def _imports() -> dict[str, str]:
    """Variables with which a child imports this very package, and nothing that lies in the working folder by chance."""
    root = str(Path(__file__).resolve().parents[2])
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    # A checkout that is not installed was found through the working folder, which children don't look into.
    if root not in paths and Path.cwd() == Path(root):
        paths.append(root)
    return {"PYTHONSAFEPATH": "1", **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def _wait(children: Sequence[Rank], received: Sequence[int] = ()) -> list[int]:
    """Wait until all ranks have ended; their exit codes. When one fails, the others are killed.

    They are, too, `_SAVING` seconds after the first signal in `received`, or `_GRACE` after the first end on request.

    A rank that fails closes its connections, and ranks that wait for it may fail in turn; so the codes are those at the
    moment when the first failure was seen, and 0 for ranks that were still running then.
    """
    deadline = math.inf
    while True:
        codes = [child.poll() for child in children]
        failed = any(code not in (None, 0, *_INTERRUPTED) for code in codes)
        if None not in codes and not failed:
            return [code or 0 for code in codes]
        if received:
            deadline = min(deadline, time.monotonic() + _SAVING)
        if {*_INTERRUPTED} & {*codes}:
            deadline = min(deadline, time.monotonic() + _GRACE)
        if time.monotonic() > deadline:
            print(f"a process did not end within {_SAVING if received else _GRACE:g} s and is killed", file=sys.stderr)
        if failed or time.monotonic() > deadline:
            for child in children:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            return [0 if code is None else code for code in codes]
        time.sleep(0.05)


@contextlib.contextmanager
def _signals(act: Callable[[int], None]) -> Iterator[list[int]]:
    """Call `act` with the signals that ask to end, within the block; yields the list of those received.

    The end of a terminal (SIGHUP) counts too, unless it is ignored, as under nohup. Slurm's warning before the end of a
    job (SIGUSR2 through submitit) becomes a SIGTERM for the workers; once they have saved, the previous handler of the
    signal, which queues the job again, is called.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, _frame: Any) -> None:
        received.append(number)
        act(signal.SIGTERM if number in (signal.SIGUSR2, signal.SIGHUP) else number)

    asked_by = [signal.SIGINT, signal.SIGTERM]
    asked_by += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    asked_by += [signal.SIGUSR2] if callable(signal.getsignal(signal.SIGUSR2)) else []
    for number in asked_by:
        before[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
        if signal.SIGUSR2 in received:
            before[signal.SIGUSR2](signal.SIGUSR2, None)


def _spawn_on_hosts(run: RunFolder, hostfile: Path, worker: str = WORKER, lock: int | None = None) -> int:
    """Start DeepSpeed's launcher, which inherits the lock and lives as long as the ranks.

    It would kill them at a signal, so the file `stop` asks them to end.
    """
    children: list[subprocess.Popen[bytes]] = []

    def ask(number: int) -> None:
        if run.stop.exists():
            for child in children:
                child.send_signal(number)
        run.stop.touch()

    with _signals(ask) as received:
        command, environment = hosts_command(run.path, hostfile, worker), {**os.environ, **_imports()}
        fds = [lock] if lock else []
        children.append(subprocess.Popen(command, env=environment, start_new_session=True, pass_fds=fds))
        (code,) = _wait(children, received)
    if received or code in _INTERRUPTED:
        if code in (0, *_INTERRUPTED):
            run.error.unlink(missing_ok=True)
        return Interrupt.EXIT_CODE
    if run.done:
        return 0
    return _explained(run, [code])


def hosts_command(folder: Path, hostfile: Path, worker: str = WORKER) -> list[str]:
    """Command of DeepSpeed's launcher for all hosts of the file, which share this file system and environment."""
    first = next(iter(hosts(hostfile)))
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile.absolute())]
    # --no_local_rank: it would append `--local_rank` to the worker's arguments. A single localhost needs no ssh.
    options = ["--no_local_rank", "--module", "--master_port", str(free_port())]
    if first in ("localhost", "127.0.0.1"):
        options += ["--no_ssh_check", "--master_addr", "127.0.0.1"]
    return [*launcher, *options, worker, str(folder.absolute())]


def _explained(run: RunFolder, codes: list[int]) -> int:
    """Exit code of the first failed rank, a killed one before others; makes sure that error.txt has the cause."""
    killed = [rank for rank, code in enumerate(codes) if code < 0]
    failed: list[int] = [*(c for c in codes if c < 0), *(c for c in codes if c > 0)]
    rank = f"rank {killed[0]} of {len(codes)}: " if killed and len(codes) > 1 else ""
    if killed:
        # Ranks that waited for the killed one may have written an error of their own, which is not the cause.
        hint = "; the kernel kills when memory is short, see `dmesg`" if failed[0] == -signal.SIGKILL else ""
        run.error.unlink(missing_ok=True)
        run.fail(f"{rank}killed by signal {signal.Signals(-failed[0]).name}{hint}\n")
    elif not run.error.exists() and (failed or not run.done):
        run.fail(f"the worker ended with exit code {(failed or [0])[0]} and said nothing\n")
    return failed[0] if failed else 0
