"""One rehearsal: a few steps, an interruption, a resume, validation, saving, test, export; in a run's processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ntil.config.schema import RunConfig
from ntil.distributed.interrupt import Interrupt
from ntil.launch.processes import spawn
from ntil.rehearsal.meter import Measure, Script, measures_of, unfinished_phase
from ntil.rehearsal.peaks import Peak
from ntil.rehearsal.prepare import SplitRows
from ntil.runs.checkpoints import complete_checkpoints, read_mark
from ntil.runs.folder import RunFolder, folder_of
from ntil.train.failure_hints import failure_hint
from ntil.train.throughput import MAXRSS_UNIT

WORKER = "ntil.rehearsal.worker"
EXPORT = "export"


@dataclass
class Outcome:
    """What a rehearsal showed.

    measures: rank -> phases in their order; the export is one of rank 0. failure: what it died of, None if it didn't.
    checkpoint, model: bytes on disk of a training checkpoint, and of the trained model.
    """

    rows: dict[str, SplitRows] = field(default_factory=dict)
    measures: dict[int, list[Measure]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    failure: str | None = None
    checkpoint: int = 0
    model: int = 0


def perform(config: RunConfig, rows: dict[str, SplitRows], place: Path) -> Outcome:
    """Rehearse the config, which `rehearsal_config` has made, below its `runs`.

    Args:
        place: an empty folder for the export.

    Raises:
        KeyboardInterrupt: the user's, not the rehearsal's own.
    """
    outcome, folder = Outcome(rows), folder_of(config)
    folder.freeze(config)
    steps = config.optim.steps
    assert steps is not None
    Script(_taken(config, rows), save_after=steps - 1).write(folder)
    outcome.failure = _until_saved(folder, config, steps - 1)
    if outcome.failure is None:
        outcome.checkpoint = sum(map(size_on_disk, complete_checkpoints(folder.checkpoints)))
        outcome.failure = _to_the_end(folder, config)
    outcome.measures = measures_of(folder)
    if outcome.failure is None:
        outcome.model = size_on_disk(folder.model)
        outcome.failure = _export(folder, place / "exported", outcome)
    return outcome


def try_loss(config: RunConfig, rows: dict[str, SplitRows]) -> str | None:
    """Train one step with the config's loss, and save nothing; what it died of."""
    folder = folder_of(config)
    folder.freeze(config)
    Script(_taken(config, rows), end_after=1).write(folder)
    code = _spawned(folder, config)
    if code != Interrupt.EXIT_CODE:
        return _reason(folder, config, code)
    # A Ctrl-C ends it by the same code, but before the step.
    if not any(m.phase == "step" for m in measures_of(folder).get(0, [])):
        raise KeyboardInterrupt
    return None


def _taken(config: RunConfig, rows: dict[str, SplitRows]) -> dict[str, list[int]]:
    """Split -> indices of the rows to take; those of the test last, whose split may be that of the validation."""
    return {config.evaluation.split if name == "test" else name: part.indices for name, part in rows.items()}


def _until_saved(folder: RunFolder, config: RunConfig, step: int) -> str | None:
    code = _spawned(folder, config)
    if code != Interrupt.EXIT_CODE:
        return _reason(folder, config, code)
    saved = complete_checkpoints(folder.checkpoints)
    if not saved or read_mark(saved[0])["step"] != step:
        raise KeyboardInterrupt
    return None


def _to_the_end(folder: RunFolder, config: RunConfig) -> str | None:
    code = _spawned(folder, config)
    if code == Interrupt.EXIT_CODE:
        raise KeyboardInterrupt
    return None if code == 0 and folder.done else _reason(folder, config, code)


def _spawned(folder: RunFolder, config: RunConfig) -> int:
    with _output_to(folder.path / "logs" / "rank0.log"):
        return spawn(folder, config, worker=WORKER)


def _reason(folder: RunFolder, config: RunConfig, code: int) -> str:
    """One sentence: the phase, the error, and its remedy."""
    reason, phase = folder.last_error(), unfinished_phase(folder) or "start"
    if code == -signal.SIGKILL:
        evaluating = phase in ("evaluation", "validation")
        reason += f"; {failure_hint(MemoryError(), config, evaluating)}"
    return f"{phase}: {reason}"


def _export(folder: RunFolder, target: Path, outcome: Outcome) -> str | None:
    """Run `ntil export` on the run, as a user would; what it died of."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "ntil.cli", EXPORT, f"run={folder.path}", f"to={target}"]
    log = folder.path / "logs" / "export.log"
    with log.open("w") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    memory = Peak(usage.ru_maxrss * MAXRSS_UNIT)
    outcome.measures[0].append(Measure(EXPORT, time.perf_counter() - began, memory))
    if child.returncode == 0:
        return None
    lines = log.read_text().strip().splitlines()
    return f"{EXPORT}: {lines[-1] if lines else f'ended with exit code {child.returncode}'}"


def size_on_disk(path: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


@contextmanager
def _output_to(file: Path) -> Iterator[None]:
    """Have this process, and those that it starts, print to a file within the block."""
    file.parent.mkdir(parents=True, exist_ok=True)
    before = [os.dup(stream) for stream in (1, 2)]
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        with file.open("a") as out:
            for stream in (1, 2):
                os.dup2(out.fileno(), stream)
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, stream)
            os.close(saved)
