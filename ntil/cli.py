"""The command line. Imports nothing heavy before it knows what is asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

HELP = """\
ntil: teach vision-language models numbers, and compare the losses that do it

  ntil train model=llava_nano task=clock loss=ntil seed=3     one run
  ntil train -m loss=ce,emd,ntil seed=0,1                     a sweep: one child process per job, done ones skipped
  ntil train ... --cfg job                                    print the composed config and stop
  ntil eval run=<folder> [task.source=photos ...]             evaluate a finished run (or all below a folder) again
  ntil show task=clock loss=ntil [row=0 split=train]          one example, token by token, as the loss sees it
  ntil data check task=...  [splits=train,test]               read every row of a source as training would
  ntil data show task=... [split=train n=16 out=sheet.png]    some rows with their answers drawn, on one sheet
  ntil report runs=<folder>                                   table, learning curves and predictions of all runs in it

Config groups: model, task, loss, curriculum, engine, optim, tracker, experiment; their choices: `ntil train --help`.
Every key is typed in ntil/config.py. Environment: NTIL_CACHE (rendered data, default ~/.cache/ntil).
"""


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if words[0] == "--version":
        from ntil import __version__

        print(f"ntil {__version__}")
        return 0
    command = COMMANDS.get(words[0])
    if command is None:
        from ntil.config import nearest

        print(f"ntil: no command {words[0]!r}{nearest(words[0], COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return command(words[1:])
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on where it stopped", file=sys.stderr)
        return 130


def _train(words: list[str]) -> int:
    from ntil.compose import train

    return train(words)


def _eval(words: list[str]) -> int:
    from ntil.compose import reported
    from ntil.reevaluate import evaluate

    return reported(lambda: evaluate(words))


def _report(words: list[str]) -> int:
    from experiments.report import main as report
    from ntil.compose import reported

    return reported(lambda: report(words))


def _show(words: list[str]) -> int:
    from ntil.compose import reported
    from ntil.show import show

    return reported(lambda: show(words), words)


def _data(words: list[str]) -> int:
    from ntil.compose import reported
    from ntil.data_commands import main as data

    return reported(lambda: data(words), words)


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "eval": _eval,
    "report": _report,
    "show": _show,
    "data": _data,
}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
