"""Weights & Biases, offline unless asked otherwise. A tracker that fails never stops a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from ntil.config import config_hash

log = logging.getLogger(__name__)


class Wandb(TrainerCallback):
    """One W&B run per run folder, continued when the run is resumed: group experiment/task/model, job type the loss."""

    def __init__(self, config: dict[str, Any], folder: Path) -> None:
        self.config, self.folder = config, folder
        self.run: Any = None

    def start(self) -> None:
        tracker, loss = self.config["tracker"], self.config["loss"]["name"]
        task, model = self.config["task"]["name"], self.config["model"]["name"]
        self._safely(lambda: self._init(tracker, loss, task, model))

    def _init(self, tracker: dict[str, Any], loss: str, task: str, model: str) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        identity = f"{self.config['name']}-{loss}-seed{self.config['seed']}-{config_hash(self.config)}"
        self.run = wandb.init(
            project=tracker["project"],
            mode=tracker["mode"],
            dir=str(self.folder),
            id=identity,
            name=f"{loss}-seed{self.config['seed']}",
            group=f"{self.config['name']}/{task}/{model}",
            job_type=loss,
            tags=[task, model, loss],
            config=self.config,
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if self.run is not None and state.is_world_process_zero and logs:
            values = {k.replace("eval_", "validation/"): v for k, v in logs.items()}
            self._safely(lambda: self.run.log(values, step=state.global_step))

    def finish(self, metrics: dict[str, Any] | None) -> None:
        """Write the final metrics (none: the run did not end well) and close."""
        if self.run is None:
            return
        summary = {f"test/{k}": v for k, v in (metrics or {}).items()}
        self._safely(lambda: self.run.summary.update(summary))
        self._safely(lambda: self.run.finish(exit_code=0 if metrics is not None else 1))
        self.run = None

    def _safely(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            log.warning("wandb failed (%s: %s); training goes on without it", type(error).__name__, error)
            self.run = None
