"""One run in one process, or one rank of it: `python -m ntil.train.worker <run folder>`, from its frozen config.

The folder of an evaluation of a run (<run folder>/evaluations/<hash>) is evaluated.

`ntil train` starts it; torchrun and DeepSpeed's launcher can. Only rank 0 prints; the output of the others is in
<run folder>/logs. The run itself is in `ntil.train.run`.

Exit codes: 0 done; 130 interrupted (Ctrl-C, SIGTERM, a file `stop` in the folder) with a checkpoint to resume from; 1
failed, and 2 failed by an error that the user can fix, both with the traceback in error.txt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ntil.distributed.interrupt import Interrupt, end_process
from ntil.distributed.launcher import LAUNCHER, look_here_last
from ntil.distributed.renewal import Beginning
from ntil.runs.variables import remove_foreign_variables

if TYPE_CHECKING:
    from ntil.distributed.ranks import Ranks
    from ntil.runs.folder import RunFolder

USER_ERROR = 2
_DEADLINE = 30.0  # seconds that a process gets to end where nothing can be lost


def main(path: Path) -> int:
    """Run the frozen folder `path` on this rank; the exit code, see the module's docstring."""
    beginning = Beginning.now()
    interrupt = Interrupt(path / "stop")
    try:
        interrupt.install(at_once=True, deadline=_DEADLINE, last_words="")
        _end_with_launcher()
        if os.environ.get("NTIL_PACKAGES"):
            look_here_last()
        remove_foreign_variables()
        return _work(path, interrupt, beginning)
    except KeyboardInterrupt:
        return Interrupt.EXIT_CODE
    finally:
        interrupt.defer()  # the exit code stands


def _work(path: Path, interrupt: Interrupt, beginning: Beginning) -> int:
    # Imported once this process listens, since it takes seconds.
    from ntil.distributed.ranks import Ranks
    from ntil.runs.folder import RunFolder

    folder, ranks = RunFolder(path), Ranks.here()
    if not ranks.first:
        _print_to(folder.path / "logs" / f"rank{ranks.index}.log")
    elif ranks.count == 1:
        folder.error.unlink(missing_ok=True)
    try:
        goes_on = _act(folder, interrupt, ranks)
    except Exception as error:
        if follows_from(interrupt, error, ranks):
            print(f"ended by an interrupt, then: {type(error).__name__}: {error}", file=sys.stderr)
            raise KeyboardInterrupt from error
        return _fail(error, folder, ranks)
    return beginning.start_anew(interrupt, ranks) if goes_on else 0


def _act(folder: RunFolder, interrupt: Interrupt, ranks: Ranks) -> bool:
    """Do what the folder is for: a run, or an evaluation of one; whether a fresh process has to go on with it."""
    from ntil.train.evaluation import evaluate
    from ntil.train.libraries import set_up_libraries
    from ntil.train.run import run

    interrupt.raise_at_once()
    if folder.evaluated is None:
        return run(folder, interrupt, ranks)
    set_up_libraries(None)
    evaluate(folder.evaluated, folder, interrupt, ranks)
    return False


def follows_from(interrupt: Interrupt, error: Exception, ranks: Ranks) -> bool:
    """Whether an interrupt brought an error about; a save on a full disk that it asked for is another failure.

    While work can be lost, it is one only where another rank has ended before this one, or where a library has caught
    the interrupt itself.
    """
    from ntil.train.failure_hints import chain_of, lost_rank

    if not interrupt.requested:
        return False
    caught = any(isinstance(e, KeyboardInterrupt) for e in chain_of(error))
    return interrupt.at_once or caught or (ranks.count > 1 and lost_rank(error))


def _fail(error: Exception, folder: RunFolder, ranks: Ranks) -> int:
    """Write error.txt, with a hint where there is one; the exit code."""
    import traceback

    from data.common.errors import UserError
    from ntil.runs.checkpoints import remove_incomplete
    from ntil.train.failure_hints import failure_hint

    text = traceback.format_exc()
    # With the model saved, the failure is one of its evaluation.
    hint = failure_hint(error, folder.config(), evaluating=folder.trained.exists())
    text += f"{hint}\n" if hint else ""
    if ranks.count == 1:
        remove_incomplete(folder.checkpoints)  # they are of no use, and error.txt needs room on the disk
    folder.fail(f"rank {ranks.index} of {ranks.count}\n{text}" if ranks.count > 1 else text)
    if LAUNCHER not in os.environ or not ranks.first:
        sys.stderr.write(text)
    return USER_ERROR if isinstance(error, UserError) else 1


def _end_with_launcher() -> None:
    """Have the kernel ask this process to save and end when its launcher dies (Linux)."""
    from ntil.distributed.parent import end_with_parent

    launcher = os.environ.get(LAUNCHER)
    if launcher is not None:
        end_with_parent(int(launcher))


def _print_to(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())


if __name__ == "__main__":
    end_process(main(Path(sys.argv[1])))
