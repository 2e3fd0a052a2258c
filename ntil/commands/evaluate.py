"""Evaluate finished runs again, perhaps on other data.

    ntil eval run=<folder> [task.<key>=... evaluation.<key>=... task=<name>]

    ntil eval run=runs/demo                                       finished runs (or all below a folder) once more
    ntil eval run=runs/demo task.source.difficulty=rich           on other data of the same source
    ntil eval run=runs/demo task=clock_photos task.source.labels=labels.csv    on another source: a config of conf/task
    ntil eval run=runs/demo evaluation.split=validation           on another split

run: the folder. All else overrides the run's configuration: task, task.*, evaluation.* and max_length.

Results are in <run>/evaluations/<hash>/; the run's own predictions and metrics stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers.utils import logging as transformers_logging

from data.common.errors import UserError
from ntil import preflight
from ntil.commands.options import parse_options, split_options
from ntil.components import Components
from ntil.config.compose import task_dict
from ntil.config.errors import ConfigError, nearest
from ntil.config.identity import config_hash
from ntil.config.schema import RunConfig, to_plain_dict
from ntil.evaluation.batch_size import evaluation_batch_size
from ntil.evaluation.generate import evaluate_to, predict
from ntil.evaluation.usable_rows import usable_rows
from ntil.models.saving import load_saved
from ntil.runs.folder import RunFolder, find_runs, read_json
from ntil.runs.inputs import missing_inputs
from ntil.runs.run import build_from_saved

CHANGEABLE = ("task", "evaluation", "max_length")


@dataclass
class EvaluateOptions:
    """Options of `ntil eval`; `run` is a run's folder or one above several."""

    run: str = MISSING


def main(arguments: list[str]) -> int:
    """Run `ntil eval` on every finished run at or below the folder; the exit code.

    Raises:
        UserError: no run= given, no finished run there, or an override the run's config has no place for.
    """
    words, overrides = split_options(EvaluateOptions, arguments)
    root = parse_options("eval", EvaluateOptions, words).run
    folders = [folder for folder in find_runs(root) if folder.done]
    if not folders:
        raise ConfigError(f"{root}: no finished run there (a run is finished when it has metrics.json)")
    transformers_logging.disable_progress_bar()
    for folder in folders:
        out, metrics = evaluate_run(folder, overridden(folder.config(), overrides))
        print(f"{out}")
        print("  " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if not k.startswith("lenient_")))
    return 0


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
    preflight.check(changed, on_this_machine=False)  # files and devices of the training don't matter here
    return changed


def _merged(plain: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    base = OmegaConf.create(plain)
    OmegaConf.set_struct(base, True)
    try:
        return to_plain_dict(OmegaConf.merge(base, OmegaConf.from_dotlist(list(overrides))))
    except OmegaConfBaseException as error:
        key: str = getattr(error, "full_key", None) or overrides[0].partition("=")[0]
        parent = OmegaConf.select(base, key.rpartition(".")[0]) if "." in key else base
        names = [f"{key.rpartition('.')[0]}.{name}".lstrip(".") for name in map(str, parent or [])]
        raise ConfigError(f"no key {key!r} in the run's configuration{nearest(key, names)}") from error


def _rows(folder: RunFolder, config: RunConfig, components: Components) -> Dataset:
    """The rows to evaluate on.

    Raises:
        UserError: they can't be read; of files that the run had and that aren't here, with what to do.
    """
    try:
        return components.task.rows(config.evaluation.split)
    except UserError as error:
        missing = missing_inputs(read_json(folder.inputs), config)
        if not missing:
            raise
        raise ConfigError(
            f"{folder.path}: {error}; its data are not here: paths start from the working folder, so evaluate where it "
            f"was trained, or set {' and '.join(f'{key}=<path>' for key in missing)}"
        ) from error


def evaluate_run(folder: RunFolder, config: RunConfig) -> tuple[Path, dict[str, float]]:
    """Score a finished run's model on the data of another config; the folder of the results, and the metrics."""
    components = build_from_saved(folder, config, Components.build)
    split = config.evaluation.split
    rows = usable_rows(config, components, split, _rows(folder, config, components))
    results = RunFolder(folder.evaluations / config_hash(config))
    results.freeze(config)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_saved(components.family, folder.model).to(device)
    title = f"{config.loss.name} on {split}"
    records = predict(model, components.collator, rows, evaluation_batch_size(config), title)
    metrics = evaluate_to(results.predictions, records, components.task.summarize)
    results.write_metrics(metrics, components.task.protocol)
    return results.path, metrics
