"""Trainer callbacks: history on disk, complete checkpoints, progress bar, interrupt."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from data.common.files import write_text
from ntil.distributed.interrupt import Interrupt
from ntil.distributed.ranks import Ranks
from ntil.runs.checkpoints import COMPLETE, complete_checkpoints, flush_to_disk, read_mark, remove_checkpoint


class History(TrainerCallback):
    """Append every log record to history.jsonl, and one with `began` where a process begins.

    A resumed run first drops the records after its checkpoint.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        lines_before = [line for line in lines if _step(line) <= state.global_step]
        write_text(self.file, "".join(f"{line}\n" for line in lines_before))
        self._append(state, {"began": True})

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if state.is_world_process_zero and logs:
            self._append(state, logs)

    def _append(self, state: TrainerState, logs: dict[str, Any]) -> None:
        with self.file.open("a") as file:
            file.write(json.dumps({"step": state.global_step, "time": round(time.time(), 3), **logs}) + "\n")


def _step(line: str) -> float:
    """Step of a record; infinite for a line that a kill truncated."""
    try:
        return json.loads(line)["step"]
    except ValueError:
        return math.inf


class Checkpoints(TrainerCallback):
    """Mark a checkpoint complete after its last byte, and only then remove older ones.

    Kept are the `keep` newest and the best one by `metric`, among those whose step was validated. The mark also holds
    how long the run has trained, so that `seconds` includes the time before an interruption.
    """

    def __init__(self, keep: int, ranks: Ranks, metric: str, greater_is_better: bool, layout: dict[str, Any]) -> None:
        self.keep, self.ranks, self.about = keep, ranks, layout
        self.metric, self.sign = metric, 1 if greater_is_better else -1
        self._validated: tuple[int, float] | None = None
        self._since = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training, validation and saving so far, without work that was lost after a checkpoint."""
        return time.perf_counter() - self._since

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        assert args.output_dir is not None
        resumed = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        before = read_mark(resumed).get("seconds", 0.0) if state.global_step else 0.0
        self._since = time.perf_counter() - before

    def on_evaluate(
        self, args: Any, state: TrainerState, control: TrainerControl, metrics: dict[str, Any] | None = None, **_: Any
    ) -> None:
        if metrics and f"eval_{self.metric}" in metrics:
            self._validated = state.global_step, metrics[f"eval_{self.metric}"]

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.ranks.barrier()  # until every rank has written its share
        if not state.is_world_process_zero:
            return
        assert args.output_dir is not None
        folder = Path(args.output_dir)
        validated_now = self._validated is not None and self._validated[0] == state.global_step
        score = self.sign * self._validated[1] if validated_now and self._validated else None
        saved = folder / f"checkpoint-{state.global_step}"
        flush_to_disk(saved)
        record = {
            "step": state.global_step,
            "score": score,
            "metric": self.metric,
            "seconds": round(self.seconds, 1),
            **self.about,
        }
        write_text(saved / COMPLETE, json.dumps(record))
        self._clear(folder)

    def _clear(self, folder: Path) -> None:
        newest = complete_checkpoints(folder)
        scored = [(read_mark(p)["score"], p) for p in newest if read_mark(p).get("score") is not None]
        retained = {*newest[: self.keep], *(p for _, p in sorted(scored, key=lambda pair: pair[0])[-1:])}
        for path in folder.glob("checkpoint-*"):
            if path not in retained:
                remove_checkpoint(path)


class IntervalsOfArguments(TrainerCallback):
    """Log, validate and save in the intervals of the arguments, also where a run goes on from a checkpoint.

    Transformers (5.23) takes the checkpoint's, so that another `save_every` or `log_every` would do nothing.
    """

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        state.compute_steps(args, state.max_steps)


class SaveWhenDue(TrainerCallback):
    """Save after so many minutes, whatever the step, and never at the last step, when the model itself is saved.

    Args:
        minutes: since the training began or the last save; 0: never.
        steps: between two looks at the clock, which is rank 0's.
    """

    def __init__(self, minutes: float, steps: int, ranks: Ranks) -> None:
        self.minutes, self.steps, self.ranks = minutes, steps, ranks
        self._since = time.monotonic()

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._since = time.monotonic()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if self.minutes and state.global_step % self.steps == 0:
            late = time.monotonic() - self._since >= 60 * self.minutes
            control.should_save |= self.ranks.any(late and self.ranks.first)
        if state.global_step >= state.max_steps:
            control.should_save = False
        return control

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._since = time.monotonic()


class StopOnInterrupt(TrainerCallback):
    """Save and stop when an interrupt is requested, on all ranks at the same step.

    Args:
        validates: also validate then, where that is due; a run whose end or result depends on it must.
    """

    def __init__(self, interrupt: Interrupt, ranks: Ranks, validates: bool = False) -> None:
        self.interrupt, self.ranks, self.validates = interrupt, ranks, validates
        self.interrupted = False

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.interrupt.defer()  # from the first step on there is something to lose

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        if self.interrupt.agreed(self.ranks) and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            # A preempting scheduler waits only seconds.
            control.should_evaluate &= self.validates
            self.interrupted = True
        return control


class Progress(TrainerCallback):
    """Progress bar of a run with ETA, loss and last validation."""

    def __init__(self, title: str, metric: str) -> None:
        self.title, self.metric = title, metric
        self.bar: tqdm[Any] | None = None
        self.postfix: dict[str, str] = {}

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
        columns = {"loss/ce": "ce", "loss/aux": "aux", f"eval_{self.metric}": f"val {self.metric}"}
        self.postfix |= {short: f"{logs[name]:.3f}" for name, short in columns.items() if name in logs}
        self.bar.set_postfix(self.postfix, refresh=False)

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
