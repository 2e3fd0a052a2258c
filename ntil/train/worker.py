"""One run in one process, or one rank of it: `python -m ntil.train.worker <run folder>`, from its frozen config.

`ntil train` starts it; torchrun and DeepSpeed's launcher can. Only rank 0 prints; the output of the others is in
<run folder>/logs. The run itself is in `ntil.train.run`.

Exit codes: 0 done; 130 interrupted (Ctrl-C, SIGTERM, a file `stop` in the folder) with a checkpoint to resume from; 1
failed, and 2 failed by an error that the user can fix, both with the traceback in error.txt.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import traceback
from pathlib import Path

from data.common.errors import UserError
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import LAUNCHER, Ranks
from ntil.runs.folder import RunFolder

USER_ERROR = 2


def main(path: Path) -> int:
    """Run the frozen folder `path` on this rank; the exit code, see the module's docstring."""
    folder, ranks = RunFolder(path), Ranks.here()
    interrupt = Interrupt(folder.stop).install()
    _end_with_launcher()
    if not ranks.first:
        _print_to(folder.path / "logs" / f"rank{ranks.index}.log")
    elif ranks.count == 1:
        folder.error.unlink(missing_ok=True)
    try:
        # Imported after the signal handlers are set, since this takes seconds.
        from ntil.train.run import run

        run(folder, interrupt, ranks)
    except KeyboardInterrupt:
        return Interrupt.EXIT_CODE
    except Exception as error:
        return _fail(error, folder, ranks)
    return 0


def _fail(error: Exception, folder: RunFolder, ranks: Ranks) -> int:
    """Write error.txt, with a hint where there is one; the exit code."""
    from ntil.runs.checkpoints import remove_incomplete
    from ntil.train.failure_hints import failure_hint

    text = traceback.format_exc()
    # With the model saved, the failure is one of its evaluation.
    hint = failure_hint(error, folder.config(), evaluating=(folder.model / "config.json").exists())
    text += f"{hint}\n" if hint else ""
    if ranks.count == 1:
        remove_incomplete(folder.checkpoints)  # they are of no use, and error.txt needs room on the disk
    folder.fail(f"rank {ranks.index} of {ranks.count}\n{text}" if ranks.count > 1 else text)
    if LAUNCHER not in os.environ or not ranks.first:
        sys.stderr.write(text)
    return USER_ERROR if isinstance(error, UserError) else 1


def _end_with_launcher() -> None:
    """Have the kernel ask this process to save and end when its launcher dies (Linux)."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or not sys.platform.startswith("linux"):
        return
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(launcher):
        os.kill(os.getpid(), signal.SIGTERM)


def _print_to(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
