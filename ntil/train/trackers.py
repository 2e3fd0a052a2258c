"""Trackers: Weights & Biases and TensorBoard, fed by the same calls. A tracker that fails never stops a run.

W&B gets one run per run folder, continued when the run is resumed: its id is made of experiment, loss, seed and a
random part that the folder keeps, its group is experiment/task/model, its job type the loss. An offline run is uploaded
later with `wandb sync --append <run folder>/wandb/offline-run-*`.
"""

from __future__ import annotations

import json
import logging
import netrc
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from secrets import token_hex
from threading import Thread
from typing import Any
from urllib.parse import urlparse

from datasets import Dataset
from PIL import Image
from transformers import TrainerCallback, TrainerControl, TrainerState

from data.common.files import write_text
from data.common.rows import Row
from ntil.config.identity import config_hash
from ntil.config.schema import RunConfig
from ntil.distributed.ranks import Ranks
from ntil.runs.checkpoints import complete_checkpoints, step_of
from ntil.runs.folder import RunFolder, read_json
from tasks.base import Task

log = logging.getLogger(__name__)

WANDB_LONGEST_ID, WANDB_LONGEST_GROUP = 64, 128  # characters that W&B takes
LIMIT = 300.0  # seconds that a tracker gets for one call, as to send what is left at the end
SHOWN = 16  # rows in the table of predictions


class Backend(ABC):
    """Interface to one tracking service."""

    @abstractmethod
    def log(self, values: dict[str, float], step: int) -> None: ...

    @abstractmethod
    def predictions(self, table: list[dict[str, Any]]) -> None:
        """Rows with `picture` (a PIL image), `answer`, `text` and the scores."""

    @abstractmethod
    def finish(self, summary: dict[str, float], failed: bool) -> None: ...

    def interrupted(self) -> None:
        """Close a run that the same command goes on with."""
        self.finish({}, failed=False)


class Wandb(Backend):
    """Weights & Biases; a resumed run continues the one of the same id."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        task, model, loss = config.task.name, config.model.name, config.loss.name
        self.wandb = wandb
        self.run = wandb.init(
            project=config.tracker.project,
            mode=wandb_mode(config.tracker.mode),
            dir=str(folder),
            id=wandb_id(config, folder),
            name=f"{loss}-seed{config.seed}",
            group=f"{config.name}/{task}/{model}"[-WANDB_LONGEST_GROUP:],
            job_type=loss,
            tags=[task, model, loss],
            config=config.to_dict(),
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, values: dict[str, float], step: int) -> None:
        self.run.log(values, step=step)

    def predictions(self, table: list[dict[str, Any]]) -> None:
        columns: list[Any] = list(dict.fromkeys(name for row in table for name in row))
        values = [[row.get(name) for name in columns] for row in table]  # tasks of a mixture have scores of their own
        rows: list[Any] = [[self.wandb.Image(v) if isinstance(v, Image.Image) else v for v in row] for row in values]
        self.run.log({"test/predictions": self.wandb.Table(columns=columns, data=rows)})

    def finish(self, summary: dict[str, float], failed: bool) -> None:
        self.run.summary.update(summary)
        self.run.finish(exit_code=int(failed))

    def interrupted(self) -> None:
        self.run.finish(exit_code=255)  # W&B shows it as killed, not as failed


class TensorBoard(Backend):
    """TensorBoard event files in `tensorboard/` of the run folder."""

    def __init__(self, config: RunConfig, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder / "tensorboard"), purge_step=_first_step(RunFolder(folder)))
        self.writer.add_text("config", "\n".join(f"    {k}: {v}" for k, v in config.to_dict().items()))
        history = RunFolder(folder).read_history()
        self.step = int(history[-1]["step"]) if history else 0  # of the final scores, also where nothing is trained

    def log(self, values: dict[str, float], step: int) -> None:
        self.step = step
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def predictions(self, table: list[dict[str, Any]]) -> None:
        import numpy as np

        for number, row in enumerate(table):
            picture = np.asarray(row["picture"].convert("RGB"))
            self.writer.add_image(f"test/predictions/{number:02d}", picture, self.step, dataformats="HWC")

    def finish(self, summary: dict[str, float], failed: bool) -> None:
        for name, value in summary.items():
            self.writer.add_scalar(name, value, self.step)
        self.writer.close()


def _first_step(folder: RunFolder) -> int | None:
    """The first step that this process trains, from which on TensorBoard hides what a killed one logged; None: none."""
    if folder.trained.exists():
        return None
    resumed = complete_checkpoints(folder.checkpoints)[:1]
    return step_of(resumed[0]) + 1 if resumed else 0


KINDS: dict[str, Callable[[RunConfig, Path], Backend]] = {"wandb": Wandb, "tensorboard": TensorBoard}


class Trackers(TrainerCallback):
    """All trackers of a run, on rank 0 only; one that fails is dropped with a warning."""

    def __init__(self, config: RunConfig, folder: Path, ranks: Ranks) -> None:
        self.backends: list[Backend] = []
        self.facts: dict[str, float] = {}
        for kind in config.tracker.kinds if ranks.first else ():
            self._safely(kind, partial(self._open, kind, config, folder))

    def _open(self, kind: str, config: RunConfig, folder: Path) -> None:
        self.backends.append(KINDS[kind](config, folder))

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if state.is_world_process_zero and logs:
            values = {k.replace("eval_", "validation/"): v for k, v in logs.items() if isinstance(v, int | float)}
            self._each(lambda backend: backend.log(values, state.global_step))

    def note(self, facts: dict[str, float]) -> None:
        """Add facts of the whole run to its summary."""
        self.facts |= facts

    def predictions(self, task: Task, rows: Dataset, records: Iterable[Row]) -> None:
        """Log the first rows of the split, of a mixture those of each task, drawn with the model's answers.

        Args:
            records: of the rows, in their order.
        """
        if not self.backends:
            return
        of_task = SHOWN // max(1, len(task.members))
        shown: dict[str, list[dict[str, Any]]] = {}
        for index, record in enumerate(records):
            table = shown.setdefault(record.get("task", ""), [])
            if len(table) < of_task:
                table.append(table_row(task, rows[index], record))
            elif len(shown) >= len(task.members):
                break
        in_one = [row for table in shown.values() for row in table]
        if in_one:
            self._each(lambda backend: backend.predictions(in_one))

    def pause(self) -> None:
        """Close for a process that goes on with this run."""
        self._each(lambda backend: backend.finish(self.facts, failed=False))
        self.backends = []

    def finish(self, metrics: dict[str, float] | None, interrupted: bool = False) -> None:
        """Write the final metrics (None: the run failed, or was `interrupted` and goes on later) and close."""
        if metrics is None and interrupted:
            self._each(lambda backend: backend.interrupted())
            self.backends = []
        summary = {**self.facts, **{f"test/{k}": float(v) for k, v in (metrics or {}).items()}}
        self._each(lambda backend: backend.finish(summary, metrics is None))
        self.backends = []

    def _each(self, act: Callable[[Backend], None]) -> None:
        for backend in list(self.backends):
            if not self._safely(type(backend).__name__, partial(act, backend)):
                self.backends.remove(backend)

    def _safely(self, name: str, act: Callable[[], Any]) -> bool:
        errors: list[Exception] = []

        def guarded() -> None:
            try:
                act()
            except Exception as error:
                errors.append(error)

        call = Thread(target=guarded, daemon=True)
        call.start()
        call.join(LIMIT)
        if call.is_alive():
            log.warning("%s did not answer for %g s; training goes on without it", name, LIMIT)
        elif errors:
            log.warning("%s failed (%s: %s); training goes on without it", name, type(errors[0]).__name__, errors[0])
        return not (call.is_alive() or errors)


def table_row(task: Task, row: Row, record: Row) -> Row:
    """Row of the table of predictions: drawn picture, id, texts and scores."""
    picture = task.draw(row, task.parse(record["text"], row))
    texts = {"id": str(record["id"]), "answer": record["answer"], "text": record["text"]}
    return {"picture": picture, **texts, **record["scores"]}


def wandb_id(config: RunConfig, folder: Path) -> str:
    """Id of the folder's W&B run: the one that it keeps, else a new one, since a folder made anew is another run.

    A folder of an earlier version has none; its id was the config's hash.
    """
    file = RunFolder(folder).tracking
    if (known := read_json(file).get("wandb_id")) is not None:
        return str(known)
    unique = config_hash(config) if (folder / "wandb").exists() else token_hex(6)
    end = f"-{config.loss.name}-seed{config.seed}-{unique}"
    name = re.sub(r"[^\w.-]", "-", config.name, flags=re.ASCII) + end
    new = name if len(name) <= WANDB_LONGEST_ID else f"{name[: WANDB_LONGEST_ID - len(unique) - 1]}-{unique}"
    write_text(file, json.dumps({"wandb_id": new}))
    return new


def wandb_mode(mode: str) -> Any:
    """Mode of W&B: `auto` is that of WANDB_MODE, else online if an API key is found, else offline."""
    if mode != "auto":
        return mode
    return os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
