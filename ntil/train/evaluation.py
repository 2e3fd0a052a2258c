"""Evaluation of a finished run's model by the config of another evaluation, on one rank or over several."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset

from data.common.errors import UserError
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.evaluation.by_server import compare, predict_by_server
from ntil.evaluation.generate import evaluate_sharded
from ntil.evaluation.pictures import with_pictures
from ntil.evaluation.server import Server
from ntil.evaluation.sets import batch_sizes, evaluation_sets, predict_sets
from ntil.evaluation.usable_rows import usable_rows
from ntil.models.saving import load_saved
from ntil.runs.code import check_code
from ntil.runs.folder import RunFolder, read_json
from ntil.runs.inputs import check_start, missing_inputs
from ntil.runs.run import build_from_saved
from ntil.train.arguments import training_arguments
from ntil.train.phases import phase


def evaluate(folder: RunFolder, results: RunFolder, interrupt: Interrupt | None, ranks: Ranks) -> None:
    """Score the model of `folder`, every rank on its share of the rows, and write the metrics to `results`.

    Args:
        results: one of the run's evaluations, with its config.
        interrupt: looked at before every batch; None where a signal raises by itself.

    Raises:
        KeyboardInterrupt: an interrupt was requested.
        UserError: rows that can't be read or used, or adapters whose base has changed.
    """
    config = results.config()
    if ranks.first and config.tuning.mode == "lora":
        check_start(folder, config, config.accept_changes)
    components = build_from_saved(folder, config, Components.build)
    if config.evaluation.backend and components.task.members:
        raise ConfigError(
            f"evaluation.backend={config.evaluation.backend} answers for one task, and this is a mixture; leave it out"
        )
    if ranks.first:
        check_code(results.code, config, resuming=False, accept=True)
    device = _device(config, results, ranks)
    split = config.evaluation.split
    rows = usable_rows(config, components, split, _rows(folder, config, components), ranks, interrupt)
    model = load_tested(folder, components, device)
    title = f"{config.loss.name} on {split}" if ranks.first else None
    check = (lambda: interrupt.check(ranks)) if interrupt else (lambda: None)
    sets = evaluation_sets(components, rows)
    sizes = batch_sizes(config, model, sets, ranks)
    compared: dict[str, float] = {}
    if config.evaluation.backend:
        server = Server(config.evaluation.server, components.collator, config.evaluation.generation)
        parity = compare(model, components.collator, server, rows, sizes[0])
        print(parity)
        parity.check(config.evaluation.server)
        compared = parity.metrics
        del model
        records = predict_by_server(server, config.evaluation, rows, title, check)
    else:
        records = predict_sets(model, sets, sizes, ranks, title, check, config.evaluation)
    if ranks.first:
        results.metrics.unlink(missing_ok=True)  # of an earlier call: they would stand beside this one's predictions
    metrics = evaluate_sharded(results.predictions, with_pictures(records, sets), components.task.summarize, ranks)
    if metrics is not None:
        results.write_metrics({**metrics, **compared}, components.task.protocol, **components.task.protocols)
    ranks.barrier()


@phase("load trained")
def load_tested(folder: RunFolder, components: Components, device: torch.device) -> Any:
    """The model that a run has saved, onto a device; of a run without training the one that it started from."""
    if components.loss.trains:
        return load_saved(components.family, folder.model, device)
    return components.family.load().eval().to(device)


def _device(config: RunConfig, results: RunFolder, ranks: Ranks) -> torch.device:
    """This rank's device, the CPU where the run asks for it; several ranks are joined."""
    if ranks.count == 1:
        on_gpu = config.engine.device != "cpu" and torch.cuda.is_available()
        return torch.device("cuda" if on_gpu else "cpu")
    alone = replace(config.engine, zero_stage=None, offload=False, accumulation=1, dtype="float32")
    optim = replace(config.optim, batch_size=ranks.count)
    return training_arguments(replace(config, engine=alone, optim=optim), results.checkpoints).device


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
