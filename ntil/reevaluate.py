"""`ntil eval run=<folder> [task.key=value ...]`: a finished run on the same or another source of its task.

Results lie in <run>/evaluations/<hash>/, the run's own predictions and metrics stay as they are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from transformers.utils import logging as hf_logging

from ntil.config import ConfigError, config_hash, nearest, plain
from ntil.evaluate import evaluate_to, records
from ntil.interrupt import Interrupt
from ntil.launch import check
from ntil.runs import RunFolder, find, write
from ntil.session import Session, device, saved_model


def evaluate(words: list[str]) -> int:
    """
    Raises:
        ConfigError: no run= given, no finished run there, or an override the run's config has no place for.
    """
    given = OmegaConf.from_dotlist(words)
    root = given.pop("run", None)
    if root is None:
        raise ConfigError("ntil eval needs run=<folder of a finished run>")
    done = [run for run in find(root) if run.done]
    if not done:
        raise ConfigError(f"{root}: no finished run there (a run is finished when it has metrics.json)")
    hf_logging.disable_progress_bar()
    for run in done:
        config = overridden(run.config(), plain(given))
        folder, metrics = evaluate_run(run, config)
        print(f"{folder}")
        print("  " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if not k.startswith("lenient_")))
    return 0


def overridden(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The run's config with changes to what an evaluation depends on."""
    for key in changes:
        if key not in ("task", "evaluation", "max_length"):
            raise ConfigError(
                f"ntil eval can change task.*, evaluation.* and max_length, not {key!r}{nearest(key, ('task', 'run'))}"
            )
    merged = plain(OmegaConf.merge(OmegaConf.create(config), OmegaConf.create(changes)))
    check(merged, here=False)  # where it was trained doesn't matter now
    return merged


def evaluate_run(run: RunFolder, config: dict[str, Any]) -> tuple[Path, dict[str, float]]:
    session = Session.build(config)
    settings = config["evaluation"]
    folder = run.path / "evaluations" / config_hash(config)
    folder.mkdir(parents=True, exist_ok=True)
    RunFolder(folder).freeze(config)
    rows = session.task.rows(settings["split"])
    model = saved_model(session, run.model).to(device())
    interrupt = Interrupt().install()
    title = f"{config['loss']['name']} on {settings['split']}"
    found = records(model, session.collator, rows, settings["batch_size"], title, interrupt.check)
    metrics = evaluate_to(folder / "predictions.jsonl", found, session.task.summarize)
    write(folder / "metrics.json", json.dumps(metrics, indent=1))
    return folder, metrics
