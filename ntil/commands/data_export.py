"""Export of a task to an evaluation harness, as `ntil data export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING

from data.common.counts import counted
from ntil.commands.options import parse_options, split_options
from ntil.config.errors import ConfigError, nearest

HARNESSES = {"lm-eval": "lm_eval --include_path", "lmms-eval": "python -m lmms_eval --include_path"}


@dataclass
class ExportOptions:
    """Options of `ntil data export`; an empty `split` is the one that the task is tested on."""

    to: str = MISSING
    out: str = MISSING
    split: str = ""


def main(arguments: list[str]) -> int:
    """Run `ntil data export`; the exit code.

    Raises:
        UserError: to= or out= missing, another harness, a folder that exists, rows that can't be read.
    """
    from ntil.components import build_task
    from ntil.integrations.eval_harness import export_task
    from ntil.preflight import compose_checked

    words, overrides = split_options(ExportOptions, arguments)
    options = parse_options("data export", ExportOptions, words)
    if options.to not in HARNESSES:
        raise ConfigError(f"to={options.to}: no harness of that name{nearest(options.to, HARNESSES)}")
    config = compose_checked(overrides, on_this_machine=False)
    task = build_task(config)
    task.check_files()
    split, folder = options.split or config.evaluation.split, Path(options.out)
    task.check_split(split)
    count = export_task(task, config, split, options.to, folder)  # type: ignore[arg-type]
    print(f"{folder}: {split}, {counted(count, 'row')}")
    print(f"{HARNESSES[options.to]} {folder} --tasks ntil_{config.task.name} --log_samples ...")
    return 0
