"""`ntil replay run=<folder>`: the batch whose loss was not finite once more, row by row, and where it goes wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from ntil.checkpoints import complete_checkpoints
from ntil.config import ConfigError
from ntil.runs import RunFolder
from ntil.session import Session, saved_model
from ntil.train.trainer import SupervisedHead


def main(words: list[str]) -> int:
    """
    Raises:
        ConfigError: no run= given, nothing to replay there, or rows that are no longer there.
    """
    keys = dict(word.partition("=")[::2] for word in words)
    root = keys.pop("run", None)
    if root is None or keys:
        raise ConfigError("ntil replay needs run=<folder of a run> and takes nothing else")
    run = RunFolder(root)
    file = run.path / "replay" / "batch.json"
    if not file.exists():
        raise ConfigError(f"{run.path}: nothing to replay; a run writes replay/batch.json when its loss is not finite")
    saved = json.loads(file.read_text())
    session = Session.build(run.config())
    weights = _weights(run, saved["weights"])
    rows = _rows(session, saved["ids"])
    model = saved_model(session, weights).eval()
    console = Console(width=None if Console().is_terminal else 140)
    console.print(f"step {saved['step']}, rank {saved['rank']}, {len(rows)} rows, weights: {escape(str(weights))}")
    console.print("then: " + ", ".join(f"{k} {v:.4g}" for k, v in saved["components"].items()))
    console.print(_table(session, model, rows))
    first = first_not_finite(session, model, rows)
    console.print(f"first output that is not finite: {first or 'none, all outputs are finite with these weights'}")
    return 0


def _weights(run: RunFolder, said: str) -> Path:
    if said == "model":
        return run.path / "replay" / "model"
    found = complete_checkpoints(run.checkpoints)
    if not found:
        raise ConfigError(f"{run.path}: the run kept neither the weights of that step nor a checkpoint")
    return found[0]


def _rows(session: Session, ids: list[str]) -> list[dict[str, Any]]:
    rows = session.task.rows("train")
    index = {str(name): i for i, name in enumerate(rows["id"])}
    missing = [name for name in ids if name not in index]
    if missing:
        raise ConfigError(f"the train split no longer has the rows {', '.join(missing[:5])}; the data has changed")
    return [rows[index[name]] for name in ids]


def _table(session: Session, model: Any, rows: list[dict[str, Any]]) -> Table:
    """Per row: its answer, each component of its loss, its largest logit and the norm of its gradient."""
    head = SupervisedHead(model)
    table: Table | None = None
    for row in rows:
        model.zero_grad(set_to_none=True)
        batch = session.collator([row])
        inputs = {k: v.to(model.device) for k, v in batch.items() if isinstance(v, Tensor)}
        positions, targets = inputs.pop("positions"), inputs.pop("targets")
        logits = head.logits(model, inputs, positions)
        output = session.loss(logits, targets, batch["spans"])
        output.total.backward()
        norms = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        shown = {**output.components, "largest logit": logits.abs().max(), "gradient": torch.stack(norms).norm()}
        if table is None:
            table = Table("row", "answer", *shown, title="each row alone", title_justify="left")
        cells = [_cell(float(value)) for value in shown.values()]
        table.add_row(escape(str(row["id"])), escape(session.task.answer(row)[:40]), *cells)
    assert table is not None
    return table


def _cell(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else f"[red]{value}"


def first_not_finite(session: Session, model: nn.Module, rows: list[dict[str, Any]]) -> str | None:
    """Name of the first module, in the order of the forward pass, whose output is not finite on these rows together."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if not found and isinstance(first, Tensor) and not bool(torch.isfinite(first).all()):
                found.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [m.register_forward_hook(look(name)) for name, m in model.named_modules() if name]
    try:
        batch = session.collator(rows)
        inputs = {k: v for k, v in batch.items() if isinstance(v, Tensor) and k not in ("positions", "targets")}
        with torch.no_grad():
            model(**inputs)
    finally:
        for handle in hooks:
            handle.remove()
    return found[0] if found else None
