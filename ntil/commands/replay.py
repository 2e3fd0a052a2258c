"""Run the batch whose loss or gradient was not finite again, row by row.

    ntil replay run=<folder> [accept_changes=true]

Prints every row alone with its loss, and the last modules before the first output, input or weight that is not finite.
A run that stops at such a batch keeps its rows and, where it can, its weights in <run>/replay.

run: the folder of the run. accept_changes=true: load its adapters onto a base that has changed since.
"""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import MISSING
from rich.markup import escape
from rich.table import Table
from torch import Tensor
from transformers.debug_utils import DebugUnderflowOverflow

from data.common.counts import counted
from data.common.rows import Row
from ntil.commands.options import parse_options
from ntil.components import Components
from ntil.config.errors import ConfigError
from ntil.config.permissions import without_permissions
from ntil.config.schema import RunConfig
from ntil.console import console
from ntil.evaluation.usable_rows import usable_rows
from ntil.losses import StepInfo
from ntil.models.head import SupervisedHead
from ntil.models.saving import load_saved
from ntil.models.tuning import tune
from ntil.runs.checkpoints import complete_checkpoints
from ntil.runs.folder import RunFolder, read_json
from ntil.runs.inputs import check_start
from ntil.train.augmentation import TIMES, AugmentedRows

FRAMES = 3  # modules shown before the first that is not finite


@dataclass
class ReplayOptions:
    """Options of `ntil replay`.

    Attributes:
        run: folder of the run. accept_changes: load its adapters onto a base that has changed since.
    """

    run: str = MISSING
    accept_changes: bool = False


def main(arguments: list[str]) -> int:
    """Run `ntil replay`; the exit code.

    Raises:
        ConfigError: no run= given, nothing to replay there, rows that are no longer there, or adapters whose base has
            changed.
    """
    options = parse_options("replay", ReplayOptions, arguments)
    folder = RunFolder(options.run)
    file = folder.replay / "batch.json"
    if not file.exists():
        raise ConfigError(
            f"{folder.path}: nothing to replay; a run writes replay/batch.json when its loss or gradient is not finite"
        )
    batch = read_json(file)
    _check(batch, file)
    config = without_permissions(folder.config())
    if config.tuning.mode == "lora":
        check_start(folder, config, options.accept_changes)
    components = Components.build(config)
    weights = _weights(folder, batch["weights"])
    rows = _rows(config, components, batch["ids"])
    # Of adapters on a model from scratch the run keeps the base where its model is to be.
    model = load_saved(components.family, weights, base_in=folder.unfinished_model, trainable=True).eval()
    if config.tuning.mode == "full":
        model = tune(model, components.family, config.tuning)  # what is frozen counts in no gradient
    out = console()
    out.print(
        f"step {batch['step']}, rank {batch['rank']}, {counted(len(rows), 'row')}, weights: {escape(str(weights))}"
    )
    out.print("then: " + ", ".join(f"{k} {v:.4g}" for k, v in batch["components"].items()))
    out.print(_table(components, model, rows))
    report = non_finite_report(components, model, rows)
    out.print(escape(report) if report else "all weights and outputs are finite with these weights")
    return 0


def _check(batch: dict[str, Any], file: Path) -> None:
    """Check what a run writes of a batch; a run's folder may be a stranger's.

    Raises:
        ConfigError: it isn't that.
    """
    ids, components = batch.get("ids"), batch.get("components")
    names_rows = isinstance(ids, list) and ids and all(isinstance(name, str) for name in ids)
    if not names_rows or not {"step", "rank", "weights"} <= batch.keys() or not isinstance(components, dict):
        raise ConfigError(f"{file}: names no rows; the file is damaged")
    if not all(isinstance(value, int | float) for value in components.values()):
        raise ConfigError(f"{file}: components that are no numbers; the file is damaged")


def _weights(folder: RunFolder, checkpoint: str) -> Path:
    if checkpoint == "model":
        return folder.replay / "model"
    checkpoints = complete_checkpoints(folder.checkpoints)
    if not checkpoints:
        raise ConfigError(f"{folder.path}: the run kept neither the weights of that step nor a checkpoint")
    return checkpoints[0]


def _rows(config: RunConfig, components: Components, ids: list[str]) -> list[Row]:
    rows = components.task.rows("train")
    names = [name.rpartition(TIMES)[0] for name in ids] if config.augment.on else ids
    index = {str(name): i for i, name in enumerate(rows["id"])}
    missing = [name for name in names if name not in index]
    if missing:
        raise ConfigError(f"the train split no longer has the rows {', '.join(missing[:5])}; the data has changed")
    if not config.augment.on:
        return [rows[index[name]] for name in ids]
    usable = usable_rows(config, components, "train", rows)
    return AugmentedRows(usable, components.task, config.augment, config.seed).by_ids(ids)


def _table(components: Components, model: Any, rows: list[Row]) -> Table:
    """Table of the rows: answer, components of the loss, largest logit and norm of the gradient."""
    head, embeddings = SupervisedHead(model), model.get_output_embeddings().weight
    table: Table | None = None
    for row in rows:
        model.zero_grad(set_to_none=True)
        batch = components.collator([row])
        inputs = {k: v.to(model.device) for k, v in batch.items() if isinstance(v, Tensor)}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = head.logits(model, inputs, positions)
        output = components.loss(logits, targets, batch["spans"], StepInfo(output_embeddings=embeddings))
        output.total.backward()
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        values = {**output.components, "largest logit": logits.abs().max(), "gradient": torch.stack(norms).norm()}
        if table is None:
            table = Table("row", "answer", *values, title="each row alone", title_justify="left")
        cells = [_cell(float(torch.as_tensor(value).detach())) for value in values.values()]
        table.add_row(escape(str(row["id"])), escape(components.task.answer(row)[:40]), *cells)
    assert table is not None
    return table


def _cell(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else f"[red]{value}"


def non_finite_report(components: Components, model: Any, rows: list[Row]) -> str | None:
    """Trace of the modules up to the first with a non-finite weight, input or output; None if all are finite."""
    batch = components.collator(rows)
    inputs = {k: v for k, v in batch.items() if isinstance(v, Tensor) and k not in ("positions", "targets")}
    DebugUnderflowOverflow(model, max_frames_to_save=FRAMES)
    printed = io.StringIO()
    try:
        with torch.no_grad(), contextlib.redirect_stdout(printed):
            model(**inputs)
    except ValueError as error:
        if "inf/nan" not in str(error):
            raise
        return printed.getvalue().strip()
    return None
