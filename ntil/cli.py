"""The command line. Imports nothing heavy before it knows what is asked."""

from __future__ import annotations

import importlib
import os
import sys

HELP = """\
ntil: teach vision-language models numbers, and compare the losses that do it

  ntil train model=llava_nano task=clock loss=ntil seed=3     one run
  ntil train -m loss=ce,emd,ntil seed=0,1                     a sweep: one child process per job, done ones skipped
  ntil train ... --cfg job                                    print the composed config and stop
  ntil eval run=<folder> [task.source=photos ...]             evaluate a finished run (or all below a folder) again
  ntil show task=clock loss=ntil [row=0 split=train]          one example, token by token, as the loss sees it
  ntil models [name ...] [gpus=8 rank=16] [--json]            every model: size, digits, memory, whether it is cached
  ntil data check task=...  [splits=train,test]               read every row of a source as training would
  ntil data show task=... [split=train n=16 out=sheet.png]    some rows with their answers drawn, on one sheet
  ntil report experiment=<name> | runs=<folder>               all runs there compared: tables, statistics, HTML
  ntil compare <run> <run>                                    any two runs or folders of one loss, paired by seed
  ntil dashboard experiment=<name> [entity=... publish=true]  a W&B workspace and report for an experiment's runs
  ntil status <folder>                                        every run below it: done, running with ETA, failed
  ntil replay run=<folder>                                    the batch whose loss was not finite, row by row
  ntil export run=<folder> to=<folder> [merge=true]           a finished run as a plain Hugging Face folder

Config groups: model, task, loss, tuning, curriculum, engine, optim, tracker, experiment.
Their choices: `ntil train --help`.
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
    if words[0] not in COMMANDS:
        from ntil.config import nearest

        print(f"ntil: no command {words[0]!r}{nearest(words[0], COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return _run(words[0], words[1:])
    except KeyboardInterrupt:
        print("\ninterrupted; run the same command again to go on where it stopped", file=sys.stderr)
        return 130


def _run(command: str, words: list[str]) -> int:
    """Import the command's function and call it; an error of the user's making becomes one line."""
    module, _, name = COMMANDS[command].partition(":")
    act = getattr(importlib.import_module(module), name)
    if command == "train":  # Hydra's own command line: it reports its jobs' errors one by one
        return act(words)
    from ntil.compose import reported

    return reported(lambda: act(words), words)


# name -> "module:function" of words -> exit code
COMMANDS = {
    "train": "ntil.compose:train",
    "eval": "ntil.reevaluate:evaluate",
    "report": "experiments.report:main",
    "compare": "experiments.compare:main",
    "dashboard": "experiments.dashboard:main",
    "show": "ntil.show:show",
    "models": "ntil.list_models:main",
    "data": "ntil.data_commands:main",
    "status": "ntil.status:main",
    "replay": "ntil.replay:main",
    "export": "ntil.export:main",
}

if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
