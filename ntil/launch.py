"""From a composed config to child processes: Hydra's multirun shares one process, so each of our jobs gets its own.

One host: the ranks are started here. Several (`engine.hostfile`): DeepSpeed's launcher starts them. Both start
`python -m ntil.worker <run folder>` with RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT set, as torchrun
does, on the config frozen in the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ntil.checkpoints import check_resumable
from ntil.config import ConfigError, EngineConfig, RunConfig, check_keys, locate, run_folder, typed
from ntil.interrupt import Interrupt
from ntil.lock import Busy, locked
from ntil.runs import RunFolder, write

LAUNCHER = "NTIL_LAUNCHER"  # set to the launcher's process id in the environment of the workers it starts
_GRACE = 30.0  # seconds that ranks get after the first of them has ended on request


class Sweep:
    """The runs of one call of `ntil train`, one after the other; what failed is kept for the end.

    `refused` counts the jobs whose config can't be run at all; `busy` those that somebody else is running.
    """

    def __init__(self) -> None:
        self.done: list[Path] = []
        self.failed: list[tuple[Path, str]] = []
        self.refused = 0
        self.busy = 0
        self._process = os.getpid()
        self._elsewhere = Path.cwd() / f".ntil-sweep-{socket.gethostname()}-{self._process}"

    def run(self, config: dict[str, Any]) -> None:
        """Check, freeze and run one job; skip it when its metrics are there or somebody else is running it.

        Raises:
            ConfigError: the config can't be run.
            KeyboardInterrupt: the job was interrupted and can be resumed.
        """
        run = check(config)
        folder = RunFolder(run_folder(config))
        folder.path.mkdir(parents=True, exist_ok=True)
        try:
            with locked(folder.path) as lock:
                self._run(config, run, folder, lock)
        except Busy as busy:
            print(f"{folder.path}: {busy} is running it, skipped", flush=True)
            self.busy += 1

    def _run(self, config: dict[str, Any], run: RunConfig, folder: RunFolder, lock: int) -> None:
        if folder.done:
            changed = ", ".join(map(str, edited(config["task"], folder.metrics.stat().st_mtime)))
            hint = f"; {changed} changed since: remove the folder to run it again" if changed else ""
            print(f"{folder.path}: done before, skipped{hint}", flush=True)
            self._note(folder.path)
            return
        if folder.error.exists() and not run.retry:
            said = last_error(folder)
            print(
                f"{folder.path}: failed before, skipped (retry=true runs it again): {said}", file=sys.stderr, flush=True
            )
            self._note(folder.path, said)
            return
        check_resumable(folder.checkpoints, run.engine, rank_count(run.engine))
        folder.freeze(config)
        code = spawn(folder, lock)
        if code == Interrupt.EXIT_CODE:
            raise KeyboardInterrupt
        if code == 0 and folder.done:
            self._note(folder.path)
            return
        print(f"{folder.path}: FAILED", file=sys.stderr)
        if folder.error.exists():
            print(folder.error.read_text().rstrip(), file=sys.stderr, flush=True)
        self._note(folder.path, last_error(folder))

    def collect(self) -> None:
        """Take in what jobs in other processes (a cluster's) have noted."""
        for file in sorted(self._elsewhere.glob("*.json")):
            folder, error = json.loads(file.read_text())
            self._note(Path(folder), error)
        shutil.rmtree(self._elsewhere, ignore_errors=True)

    def _note(self, folder: Path, error: str | None = None) -> None:
        if os.getpid() != self._process:
            # A launcher such as submitit's has sent a copy of this object to another process.
            self._elsewhere.mkdir(exist_ok=True)
            write(self._elsewhere / f"{time.time_ns()}-{os.getpid()}.json", json.dumps([str(folder), error]))
        elif error is None:
            self.done.append(folder)
        else:
            self.failed.append((folder, error))


def edited(part: Any, since: float) -> list[Path]:
    """Files (or globs of files) that some value of a config names and that were written after `since`."""
    if isinstance(part, dict | list):
        inner = part.values() if isinstance(part, dict) else part
        return sorted({file for value in inner for file in edited(value, since)})
    try:
        named = Path(part).expanduser() if isinstance(part, str) else None
        # A table has a suffix; the "*" among the operations of arithmetic is no glob.
        found = named.parent.glob(named.name) if named and (named.suffix or named.is_file()) else ()
        return [file for file in found if file.is_file() and file.stat().st_mtime > since]
    except (OSError, ValueError, RuntimeError):
        return []  # no path, but a text that can't be one


def check(config: dict[str, Any], here: bool = True) -> RunConfig:
    """All that can be known to be wrong without building anything.

    Args:
        here: check also for the devices and hosts of a training on this machine.

    Raises:
        ConfigError: named key, and the remedy.
    """
    run = typed(config)
    given = {"model": (), "task": ("coords",), "loss": ("vocab",)}
    for group, names in given.items():
        check_keys(group, config[group], names)
    from ntil.tuning import check as check_tuning

    check_tuning(run.tuning, locate(config["model"]["target"]))
    if here:
        _check_weights(config["model"], run.engine)
        _check_devices(run.engine)
        _check_batch(run)
    return run


def _check_weights(model: dict[str, Any], engine: EngineConfig) -> None:
    if model.get("dtype") == "float16" and engine.dtype != "float16":
        raise ConfigError(
            f"model.dtype=float16 is too coarse for engine.dtype={engine.dtype}; take engine.dtype=float16, which "
            "scales the loss, or model.dtype=bfloat16"
        )


def _check_devices(engine: EngineConfig) -> None:
    if engine.hostfile or engine.device == "cpu":
        return
    if engine.device == "auto" and engine.gpus == 1 and engine.dtype != "float16":
        return
    import torch

    found = torch.cuda.device_count()
    if not found and engine.device == "cuda":
        raise ConfigError("engine.device=cuda, but there is no CUDA device here; take engine.device=cpu")
    if not found and engine.dtype == "float16":
        raise ConfigError("engine.dtype=float16 needs a CUDA device and there is none here; take bfloat16 or float32")
    if found and engine.gpus > found:
        raise ConfigError(f"engine.gpus={engine.gpus}, but {found} CUDA device(s) are here; take engine.gpus={found}")


def rank_count(engine: EngineConfig) -> int:
    return sum(hosts(Path(engine.hostfile)).values()) if engine.hostfile else engine.gpus


def _check_batch(run: RunConfig) -> None:
    ranks = rank_count(run.engine)
    pieces, batch = ranks * run.engine.accumulation, run.optim.batch_size
    if batch % pieces:
        near = max(batch // pieces, 1) * pieces
        raise ConfigError(
            f"optim.batch_size={batch} doesn't divide over {ranks} rank(s) x engine.accumulation="
            f"{run.engine.accumulation}; take optim.batch_size={near} or {near + pieces}"
        )


def hosts(file: Path) -> dict[str, int]:
    """Host name -> ranks on it, from a DeepSpeed hostfile.

    Raises:
        ConfigError: no such file, or a line that isn't `name slots=N`.
    """
    if not file.is_file():
        raise ConfigError(f"engine.hostfile={file}: no such file; it holds one `name slots=N` a line")
    found: dict[str, int] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        words = line.split("#")[0].split()
        if not words:
            continue
        name, slots = words[0], words[1:]
        count = slots[0].removeprefix("slots=") if len(slots) == 1 else ""
        if not count.isdecimal() or int(count) < 1 or name in found:
            raise ConfigError(f"engine.hostfile={file}, line {number}: {line!r} must be `name slots=N`, each name once")
        found[name] = int(count)
    if not found:
        raise ConfigError(f"engine.hostfile={file} names no host; it holds one `name slots=N` a line")
    return found


def spawn(run: RunFolder, lock: int | None = None) -> int:
    """Run the workers of a frozen folder to their end; they inherit the folder's lock.

    Returns:
        0, 130 when they were interrupted and saved, or another code; then error.txt says why.
    """
    run.error.unlink(missing_ok=True)
    run.stop.unlink(missing_ok=True)
    engine = typed(run.config()).engine
    if engine.hostfile:
        return _spawn_on_hosts(run, Path(engine.hostfile))
    children = [
        # In sessions of their own, so that an interrupt reaches each exactly once, from here.
        subprocess.Popen(_worker(run.path), env=environment, start_new_session=True, pass_fds=[lock] if lock else [])
        for environment in _environments(engine)
    ]

    def forward(number: int) -> None:
        for child in children:
            if child.poll() is None:
                child.send_signal(number)

    with _signals(forward) as sent:
        codes = _wait(children)
    if Interrupt.EXIT_CODE in codes and (sent or set(codes) <= {0, Interrupt.EXIT_CODE}):
        return Interrupt.EXIT_CODE
    return _explained(run, codes)


def _worker(folder: Path) -> list[str]:
    return [sys.executable, "-m", "ntil.worker", str(folder)]


def _environments(engine: EngineConfig) -> Iterator[dict[str, str]]:
    common = {
        "WORLD_SIZE": str(engine.gpus),
        "LOCAL_WORLD_SIZE": str(engine.gpus),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        LAUNCHER: str(os.getpid()),
    }
    # An environment that is not activated has its own tools, too.
    common["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    if engine.gpus > 1:
        # Ranks that each take all cores are slower than one of them.
        common["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // engine.gpus)))
    for rank in range(engine.gpus):
        yield {**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(children: list[subprocess.Popen[bytes]]) -> list[int]:
    """Exit codes, once all have ended; the first that fails takes the others with it.

    Who dies with an error closes its connections, and ranks that wait for it may fail of that; so the codes are those
    of the moment when the first failure was seen, and -9 for those that had to be stopped then.
    """
    ended: float | None = None
    while True:
        codes = [child.poll() for child in children]
        failed = any(code not in (None, 0, Interrupt.EXIT_CODE) for code in codes)
        if None not in codes and not failed:
            return [code or 0 for code in codes]
        if ended is None and Interrupt.EXIT_CODE in codes:
            ended = time.monotonic()
        if failed or (ended and time.monotonic() - ended > _GRACE):
            for child in children:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            return [0 if code is None else code for code in codes]
        time.sleep(0.05)


@contextmanager
def _signals(act: Callable[[int], None]) -> Iterator[list[int]]:
    """Call `act` with the signals that ask to end; yields the list of those that came.

    Slurm's warning before the end of a job (SIGUSR2 through submitit) becomes a SIGTERM for the workers; once they have
    saved, whoever listened to it before, to queue the job again, gets it.
    """
    sent: list[int] = []
    before: dict[int, Any] = {}

    def handle(number: int, frame: Any) -> None:
        sent.append(number)
        act(signal.SIGTERM if number == signal.SIGUSR2 else number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        if number != signal.SIGUSR2 or callable(signal.getsignal(number)):
            before[number] = signal.signal(number, handle)
    try:
        yield sent
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
        if signal.SIGUSR2 in sent:
            before[signal.SIGUSR2](signal.SIGUSR2, None)


def _spawn_on_hosts(run: RunFolder, hostfile: Path) -> int:
    """Start DeepSpeed's launcher. It would end ranks at a signal, so they are asked through the file `stop`."""
    child = subprocess.Popen(hosts_command(run.path, hostfile), start_new_session=True)

    def ask(number: int) -> None:
        if run.stop.exists():
            child.send_signal(number)
        run.stop.touch()

    with _signals(ask) as sent:
        code = child.wait()
    if run.done:
        return 0
    if sent and not run.error.exists():
        return Interrupt.EXIT_CODE
    return _explained(run, [code])


def hosts_command(folder: Path, hostfile: Path) -> list[str]:
    """DeepSpeed's launcher for all hosts of the file; they must share this folder's file system and environment."""
    first = next(iter(hosts(hostfile)))
    launcher = [sys.executable, "-m", "deepspeed.launcher.runner", "--hostfile", str(hostfile.absolute())]
    # --no_local_rank: it would append `--local_rank` to the worker's arguments. A single localhost needs no ssh.
    options = ["--no_local_rank", "--module", "--master_port", str(_free_port())]
    if first in ("localhost", "127.0.0.1"):
        options += ["--no_ssh_check", "--master_addr", "127.0.0.1"]
    return [*launcher, *options, "ntil.worker", str(folder.absolute())]


def _explained(run: RunFolder, codes: list[int]) -> int:
    """The code of the rank that failed first; sees to it that error.txt says why."""
    killed = [rank for rank, code in enumerate(codes) if code < 0]
    failed: list[int] = [*(c for c in codes if c < 0), *(c for c in codes if c > 0)]
    rank = f"rank {killed[0]} of {len(codes)}: " if killed and len(codes) > 1 else ""
    if killed:
        # Whoever was waiting for the killed rank may have left an error of its own: that is not the cause.
        hint = "; the kernel kills when memory is short, see `dmesg`" if failed[0] == -signal.SIGKILL else ""
        run.error.unlink(missing_ok=True)
        run.fail(f"{rank}killed by signal {signal.Signals(-failed[0]).name}{hint}\n")
    elif not run.error.exists() and (failed or not run.done):
        run.fail(f"the worker ended with exit code {(failed or [0])[0]} and said nothing\n")
    return failed[0] if failed else 0


def last_error(folder: RunFolder) -> str:
    """The last line of the traceback, or how the process ended."""
    lines = folder.error.read_text().strip().splitlines() if folder.error.exists() else []
    return lines[-1] if lines else "failed without a message"
