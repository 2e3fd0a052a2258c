"""What watches a run: its history on disk, complete checkpoints, the progress bar, the interrupt."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ntil.interrupt import Interrupt

COMPLETE = "COMPLETE"


class History(TrainerCallback):
    """Appends every log record to history.jsonl; a resumed run first drops what lies after its checkpoint."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero or not self.file.exists():
            return
        kept = [line for line in self.file.read_text().splitlines() if json.loads(line)["step"] <= state.global_step]
        self.file.write_text("".join(f"{line}\n" for line in kept))

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if state.is_world_process_zero and logs:
            with self.file.open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")


class Checkpoints(TrainerCallback):
    """Marks a checkpoint complete after its last byte, and only then removes older ones beyond `keep`."""

    def __init__(self, keep: int) -> None:
        self.keep = keep

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        assert args.output_dir is not None
        folder = Path(args.output_dir)
        (folder / f"checkpoint-{state.global_step}" / COMPLETE).touch()
        newest = complete_checkpoints(folder)
        kept = set(newest[: self.keep])
        for path in folder.glob("checkpoint-*"):
            if path not in kept:
                shutil.rmtree(path, ignore_errors=True)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, newest first; what a kill left half-written isn't among them."""
    found = [p for p in folder.glob("checkpoint-*") if (p / COMPLETE).exists()]
    return sorted(found, key=lambda p: int(p.name.rpartition("-")[2]), reverse=True)


class Guard(TrainerCallback):
    """Saves and stops when an interrupt is requested; stops at a loss that is not finite."""

    def __init__(self, interrupt: Interrupt) -> None:
        self.interrupt = interrupt
        self.interrupted = False

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if self.interrupt.requested and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            self.interrupted = True
        return control

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        loss = (logs or {}).get("loss")
        if loss is not None and not math.isfinite(loss):
            raise FloatingPointError(f"the loss is {loss} at step {state.global_step}; lower optim.lr or see history")


class Progress(TrainerCallback):
    """One bar per run with ETA, the loss and the last validation beside it."""

    def __init__(self, title: str, metric: str) -> None:
        self.title, self.metric = title, metric
        self.bar: tqdm[Any] | None = None
        self.shown: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.title, unit="step", mininterval=1
            )

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.update(state.global_step - self.bar.n)

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if self.bar is None or not logs:
            return
        known = {"loss/ce": "ce", "loss/aux": "aux", f"eval_{self.metric}": f"val {self.metric}"}
        self.shown |= {short: f"{logs[name]:.3f}" for name, short in known.items() if name in logs}
        self.bar.set_postfix(self.shown, refresh=False)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
