"""Evaluate finished runs again, perhaps on other data; or a model without any training.

    ntil eval run=<folder> [task.<key>=... evaluation.<key>=... task=<name>]
    ntil eval model=<name> task=<name> [<key>=...]

    ntil eval run=runs/demo                                       finished runs (or all below a folder) once more
    ntil eval run=runs/demo task.source.difficulty=rich           on other data of the same source
    ntil eval run=runs/demo task=clock_photos task.source.labels=labels.csv    on another source: a config of conf/task
    ntil eval run=runs/demo evaluation.split=validation           on another split
    ntil eval run=runs/demo processes=8                           rows shared by eight ranks
    ntil eval run=runs/demo evaluation.decoding=[median,bayes]    other decodings beside greedy (docs/evaluation.md)
    ntil eval run=runs/demo evaluation.backend=openai evaluation.server.url=<url> evaluation.server.model=<name>
                                                                  by a server that serves the exported run
    ntil eval model=qwen2_vl_2b task=refcoco name=grounding       the model as it is, in the experiment `grounding`

run: the folder. processes: ranks that share the rows (one per GPU by default). accept_changes=true: load adapters
onto a base that has other contents than when they were trained. All else overrides the run's configuration: task,
task.*, evaluation.* and max_length.

Results are in <run>/evaluations/<hash>/; the run's own predictions and metrics stay as they are.

Without run= the model is tested as it is loaded, asked in its family's own words where there are any, with at least 128
tokens to answer. The result is a run of loss=untrained (runs/<name>/<task>/<model>/untrained/), which a report shows
before cross-entropy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers.utils import logging as transformers_logging

from ntil import preflight
from ntil.commands.options import parse_options, split_options
from ntil.commands.summary import print_metrics
from ntil.config.build import locate, parameters
from ntil.config.compose import parsed_overrides, task_dict
from ntil.config.errors import ConfigError, nearest
from ntil.config.permissions import without_permissions
from ntil.config.schema import Component, RunConfig, to_plain_dict
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.evaluation.decoding_metrics import by_decoding
from ntil.launch.processes import spawn
from ntil.launch.sweep import Sweep
from ntil.preflight import compose_checked
from ntil.runs.folder import RunFolder, evaluation_of, find_runs
from ntil.runs.lock import Busy, locked
from ntil.runs.metric_names import PREFIX, is_lenient
from ntil.train.evaluation import evaluate

LEAST_TOKENS = 128  # of an untrained model's answer, which may stand in a fence and repeat what was asked
CHANGEABLE = ("task", "evaluation", "max_length")


@dataclass
class EvaluateOptions:
    """Options of `ntil eval`.

    run: folder of a run, or one above several. processes: ranks (None: one per GPU). accept_changes: load adapters onto
    a base that has changed since.
    """

    run: str = ""
    processes: int | None = None
    accept_changes: bool = False


def main(arguments: list[str]) -> int:
    """Run `ntil eval` on every finished run at or below the folder; the exit code.

    Raises:
        UserError: neither run= nor model= given, no finished run there, or an override the run's config has no place
            for.
    """
    option_arguments, overrides = split_options(EvaluateOptions, arguments)
    options = parse_options("eval", EvaluateOptions, option_arguments)
    root, processes = options.run, options.processes
    if processes is not None and processes < 1:
        raise ConfigError(f"processes={processes}: take 1 or more, or leave it out for one per GPU")
    if not root and any(word.startswith("model=") for word in overrides):
        return evaluate_untrained([*overrides, *([f"engine.processes={processes}"] if processes else [])])
    if not root:
        raise ConfigError("ntil eval needs run=<folder>, or model=<name> and task=<name> for a model as it is")
    folders = [folder for folder in find_runs(root) if folder.done]
    if not folders:
        raise ConfigError(f"{root}: no finished run there (a run is finished when it has metrics.json)")
    transformers_logging.disable_progress_bar()
    for folder in folders:
        config = overridden(without_permissions(folder.config()), overrides)
        ranks = processes or (1 if config.engine.device == "cpu" else max(1, torch.cuda.device_count()))
        out, metrics = evaluate_run(folder, replace(config, accept_changes=options.accept_changes), ranks)
        print(f"{out}")
        print("  " + _line({k: v for k, v in metrics.items() if not k.startswith(PREFIX) or k.count("/") == 1}))
        for name, values in by_decoding(metrics).items():
            print(f"  {name}: {_line(values)}")
    return 0


def _line(metrics: dict[str, float]) -> str:
    return ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if not is_lenient(k))


def evaluate_untrained(overrides: Sequence[str]) -> int:
    """Test a model as it is loaded, as a run of loss=untrained; the exit code.

    Raises:
        UserError: the config can't be run.
    """
    config = compose_checked([*overrides, "loss=untrained"], on_this_machine=False)
    chosen = {word.partition("=")[0] for word in overrides}
    tasks = {name: _asked_freely(one, f"task.tasks.{name}", chosen) for name, one in config.members.items()}
    if tasks:
        options = {**config.task.options, "tasks": {name: one.to_dict() for name, one in tasks.items()}}
        config = replace(config, task=replace(config.task, options=options))
    else:
        config = replace(config, task=_asked_freely(config, "task", chosen))
    sweep = Sweep()
    sweep.run(config)
    if sweep.done:
        print_metrics(sweep.done)
    return 1 if sweep.failed else 0


def _asked_freely(config: RunConfig, key: str, chosen: set[str]) -> Component:
    """The task, asked in the family's own words where it has any, with room for an answer that nobody taught.

    Args:
        key: of the task. chosen: keys that the command line sets, which stay.
    """
    family, task = locate(config.model.target, "model"), locate(config.task.target, "task")
    takes, options = parameters(task)[0], dict(config.task.options)
    as_usual = not chosen & {f"{key}.question", f"{key}.question_style"}
    if "question_style" in takes and as_usual and getattr(task, "subject", None) in family.own_prompts:
        options["question_style"] = "family"
    if "max_new_tokens" in takes and f"{key}.max_new_tokens" not in chosen:
        options["max_new_tokens"] = max(LEAST_TOKENS, options.get("max_new_tokens") or 0)
    return replace(config.task, options=options)


def overridden(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """The run's config with changes to what an evaluation depends on.

    Raises:
        UserError: a key that an evaluation can't change, or that isn't there; a value that can't be run.
    """
    for override in overrides:
        key = override.partition("=")[0].partition(".")[0]
        if "=" not in override or key not in CHANGEABLE:
            raise ConfigError(
                f"ntil eval can change {', '.join(f'{k}.*' for k in CHANGEABLE[:2])} and max_length, not {override!r}"
                f"{nearest(key, (*CHANGEABLE, 'run'))}"
            )
    plain = config.to_dict()
    chosen = [override.partition("=")[2] for override in overrides if override.startswith("task=")]
    of_task = [override for override in overrides if override.startswith("task.")]
    if chosen:
        plain["task"] = task_dict(chosen[-1], of_task)
        overrides = [override for override in overrides if not override.startswith("task")]
    changed = RunConfig.from_dict(_merged(plain, overrides))
    if changed.evaluation.test != plain["evaluation"]["test"]:
        raise ConfigError("evaluation.test says which weights a training saves, and this run has saved its own")
    preflight.check(changed, on_this_machine=False)  # files and devices of the training don't matter here
    return changed


def _merged(plain: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    base = OmegaConf.create(plain)
    OmegaConf.set_struct(base, True)
    key = ""
    try:
        for override in parsed_overrides(overrides):
            key = override.get_key_element()
            if override.is_sweep_override():
                raise ConfigError(f"{override.input_line}: an evaluation takes one value; call ntil eval once for each")
            OmegaConf.update(base, key, override.value())
        return to_plain_dict(base)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or key
        parent = OmegaConf.select(base, key.rpartition(".")[0]) if "." in key else base
        names = [f"{key.rpartition('.')[0]}.{name}".lstrip(".") for name in map(str, parent or [])]
        raise ConfigError(f"no key {key!r} in the run's configuration{nearest(key, names)}") from error


def evaluate_run(folder: RunFolder, config: RunConfig, processes: int = 1) -> tuple[Path, dict[str, float]]:
    """Score a finished run's model on the data of another config; the folder of the results, and the metrics.

    Args:
        processes: ranks that share the rows; one is this process.

    Raises:
        UserError: see `evaluate`; ranks that failed; or the same evaluation is being made by another process.
        KeyboardInterrupt: they were interrupted.
    """
    results = evaluation_of(folder, config)
    if not results.path.resolve().is_relative_to(folder.path.resolve()):
        raise ConfigError(f"{results.path} is a link to another folder, which would be overwritten; remove the link")
    results.path.mkdir(parents=True, exist_ok=True)
    try:
        with locked(results.path) as lock:  # two at once would write each other's files
            results.freeze(config)
            _evaluate_in(results, folder, config, processes, lock)
            return results.path, results.read_metrics()
    except Busy as busy:
        raise ConfigError(
            f"{results.path}: {busy} is making this evaluation; run the command again when it has ended"
        ) from busy


def _evaluate_in(results: RunFolder, folder: RunFolder, config: RunConfig, processes: int, lock: int) -> None:
    """Evaluate the run in this process, or in several that inherit the lock of the results' folder."""
    if processes == 1 or config.evaluation.backend:  # a server answers: its requests need one process
        evaluate(folder, results, None, Ranks())
        return
    ranks = replace(config.engine, processes=processes, hostfile=None)
    code = spawn(results, replace(config, engine=ranks), lock)
    if code == Interrupt.EXIT_CODE:
        raise KeyboardInterrupt
    if code:
        raise ConfigError(f"{folder.path}: {results.last_error()}; more in {results.error}")
