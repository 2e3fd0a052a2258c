"""Command line: a table of commands. The module of a command is imported only when it is called."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from ntil.config.config_dirs import declared, problem, split_config_dirs
from ntil.distributed.interrupt import Interrupt, end_process
from ntil.distributed.launcher import look_here_last
from ntil.rooms import importable, is_of_others

HELP = """\
ntil: teach vision-language models numbers, and compare the losses that do it

  ntil train model=llava_nano task=clock loss=ntil seed=3     one run
  ntil train -m loss=ce,emd,ntil seed=0,1                     a sweep: one child process per job, done ones skipped
  ntil train ... --cfg job                                    print the composed config and stop
  ntil rehearse -m ...                                        a flight check: real processes, longest rows, few steps
  ntil eval run=<folder> [task=<name> task.key=value ...]     evaluate a finished run (or all below a folder) again
  ntil show task=clock loss=ntil [row=0 split=train]          one example, token by token, as the loss sees it
  ntil models [name ...] [gpus=8 rank=16] [--json]            every model: size, digits, memory, whether it is cached
  ntil data check task=...  [splits=train,test]               read every row of a source as training would
  ntil data show task=... [split=train n=16 out=sheet.png]    some rows with their answers drawn, on one sheet
  ntil data export task=... to=lm-eval out=<folder>           a task for lm-eval or lmms-eval, scored by ours
  ntil report experiment=<name> | runs=<folder>               all runs there compared: tables, statistics, HTML
  ntil compare <run> <run>                                    any two runs or folders of one loss, paired by seed
  ntil compare --samples a.jsonl b.jsonl task=...             answers of anybody's models, in three formats
  ntil benchmark of=<protocol> [stage=pilot dry_run=true]     an equal search for each loss, then seeds at its best
  ntil records runs=<folder> to=<file>.tar.xz                 finished runs without weights: tables can be made again
  ntil effects nano=<folder> small=<folder> to=<folder>       what each loss changes at several scales, in one plot
  ntil dashboard experiment=<name> [entity=... publish=true]  a W&B workspace and report for an experiment's runs
  ntil status <folder>                                        every run below it: done, running with ETA, failed
  ntil replay run=<folder>                                    the batch whose loss was not finite, row by row
  ntil export run=<folder> to=<folder> [merge=true]           a finished run as a plain Hugging Face folder
  ntil new loss|task|model|source <name> [--into <folder>]    a plug-in to start from: config, Python file, test
  ntil plugins                                                the active plug-ins: their configs and modules

`ntil <command> --help` says more. Config groups: model, task, loss, tuning, packing, augment, curriculum, engine,
optim, recipe, init, scale, tracker, experiment; their choices: `ntil train --help`.
`--config-dir <folder>`, of every command: configs of your own and the Python beside them (docs/plugins.md).
Every key is typed in ntil/config/schema.py. Environment: NTIL_CACHE (rendered data, default ~/.cache/ntil),
NTIL_CONFIG_PATH (as --config-dir), NTIL_PACKAGES (packages of your own whose classes a config may name).
"""

# name -> module with `main(arguments) -> exit code`, whose docstring is the command's help
COMMANDS = {
    "train": "ntil.commands.train",
    "rehearse": "ntil.commands.rehearse",
    "eval": "ntil.commands.evaluate",
    "report": "experiments.report",
    "compare": "experiments.compare",
    "benchmark": "experiments.benchmark.command",
    "effects": "experiments.effects",
    "records": "experiments.records",
    "dashboard": "experiments.dashboard",
    "show": "ntil.commands.show",
    "models": "ntil.commands.models",
    "data": "ntil.commands.data",
    "status": "ntil.commands.status",
    "replay": "ntil.commands.replay",
    "export": "ntil.commands.export",
    "new": "ntil.commands.new",
    "plugins": "ntil.commands.plugins",
}


_INTERRUPTED = "\ninterrupted; run the same command again to go on where it stopped\n"
_DEADLINE = 30.0  # seconds that a command gets to end after a signal, before it is ended by force


def main(arguments: list[str] | None = None) -> int:
    """Run `ntil <arguments>`; the exit code, 2 for an unknown command, 130 after Ctrl-C or SIGTERM.

    Without `arguments` this process is the command: after a signal it has a deadline, and after its end none.
    """
    process = arguments is None
    interrupt = Interrupt()
    code = 0
    try:
        if process:
            interrupt.install(at_once=True, deadline=_DEADLINE, last_words=_INTERRUPTED)
        else:
            interrupt.install(at_once=True)
        code = _command(sys.argv[1:] if arguments is None else arguments, interrupt)
    except KeyboardInterrupt:
        code = Interrupt.EXIT_CODE
    finally:
        interrupt.defer()
        if not process:
            interrupt.uninstall()
    if code == Interrupt.EXIT_CODE or interrupt.requested:  # what a command calls may swallow the exception
        print(_INTERRUPTED, end="", file=sys.stderr)
        return Interrupt.EXIT_CODE
    return code


def _command(arguments: list[str], interrupt: Interrupt) -> int:
    arguments, folders = split_config_dirs(arguments)
    if sentence := problem(folders):
        print(f"ntil: {sentence}", file=sys.stderr)
        return 2
    with declared(folders):
        return _answer(arguments, interrupt)


def _answer(arguments: list[str], interrupt: Interrupt) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    if arguments[0] == "--version":
        from ntil import __version__

        print(f"ntil {__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        from ntil.config.errors import nearest

        print(f"ntil: no command {arguments[0]!r}{nearest(arguments[0], COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return _run(arguments[0], arguments[1:], interrupt)
    except BrokenPipeError:  # `ntil ... | head`: who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(command: str, arguments: list[str], interrupt: Interrupt) -> int:
    """Run a command; errors of the user and of Hydra become one line on stderr."""
    if {"-h", "--help"} & {*arguments}:
        print(help_of(command))
        if command != "train":
            return 0
    try:
        act = importlib.import_module(importable(COMMANDS[command])).main
    except ModuleNotFoundError as error:
        if not is_of_others(error.name):
            raise
        print(f"ntil {command}: needs {error.name!r}; `pip install 'ntil[train]'` brings it", file=sys.stderr)
        return 2
    interrupt.raise_at_once()
    if command == "train":  # Hydra's own command line: it reports its jobs' errors one by one
        return act(arguments)
    from ntil.config.compose import report_errors

    return report_errors(lambda: act(arguments), arguments)


def help_of(command: str) -> str:
    """Docstring of the command's module, parsed from its source without importing it."""
    import ast
    import importlib.util

    spec = importlib.util.find_spec(importable(COMMANDS[command]))
    assert spec is not None
    assert spec.origin is not None
    return ast.get_docstring(ast.parse(Path(spec.origin).read_text())) or ""


def run() -> NoReturn:
    """Run this process as `ntil`, to its end."""
    end_process(main())


if __name__ == "__main__":
    if not sys.flags.safe_path:
        look_here_last()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    run()
