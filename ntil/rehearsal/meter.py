"""Measurement of a run from within one of its ranks: seconds and peak memory of every phase, and what a step waits for.

Lines of `<run folder>/rehearsal/rank<k>.jsonl`: `{"begin": phase}` where a phase begins, and where it ends a `Measure`.
So the last line of a rank that died says where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainerControl, TrainerState

from data.common.files import write_text
from ntil.config.errors import ConfigError
from ntil.rehearsal.peaks import Peak, peak, reset_peak
from ntil.runs.folder import RunFolder, read_json, read_jsonl

# Names of collective operations in torch's profiler: of gloo, of NCCL's kernels, of PyTorch's own wrapper of both.
COLLECTIVES = ("gloo:", "nccl", "c10d::")


@dataclass(frozen=True)
class Measure:
    """One phase of one rank.

    step: of a training step, its number, else None. parts: seconds of the parts of a step. profiled: the step ran under
    torch's profiler, which slows it; `parts` then has `communication` (busy time of collective operations, which may
    overlap with computation).
    """

    phase: str
    seconds: float
    memory: Peak
    step: int | None = None
    parts: dict[str, float] = field(default_factory=dict)
    profiled: bool = False


@dataclass(frozen=True)
class Script:
    """What a rehearsal's process does.

    rows: split -> indices of the rows to take. save_after: after this step the run is
    interrupted: it saves and ends. end_after: after this step the process ends, and nothing is saved.
    """

    rows: dict[str, list[int]]
    save_after: int | None = None
    end_after: int | None = None

    def write(self, folder: RunFolder) -> None:
        write_text(_script(folder), json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: RunFolder) -> Script:
        return cls(**read_json(_script(folder)))


def _script(folder: RunFolder) -> Path:
    return folder.path / "rehearsal" / "script.json"


def measures_of(folder: RunFolder) -> dict[int, list[Measure]]:
    """Measures of every rank, in their order."""
    measures: dict[int, list[Measure]] = {}
    for file in sorted((folder.path / "rehearsal").glob("rank*.jsonl")):
        ended = [line for line in read_jsonl(file) if "begin" not in line]
        rank = int(file.stem.removeprefix("rank"))
        measures[rank] = [Measure(**{**line, "memory": Peak(**line["memory"])}) for line in ended]
    return measures


def unfinished_phase(folder: RunFolder) -> str | None:
    """The phase in which the ranks ended, of the first of them that did; None where each had ended its phase."""
    for file in sorted((folder.path / "rehearsal").glob("rank*.jsonl")):
        try:
            lines = list(read_jsonl(file))
        except ConfigError:  # a line that a kill or a full disk truncated
            continue
        if lines and "begin" in lines[-1]:
            return str(lines[-1]["begin"])
    return None


class Meter(TrainerCallback):
    """Listener of a run's phases (`ntil.train.phases`) and callback of its trainer, see the module's docstring."""

    def __init__(self, folder: RunFolder, rank: int, script: Script) -> None:
        self.folder, self.script, self.callbacks = folder, script, [self]
        self._file = folder.path / "rehearsal" / f"rank{rank}.jsonl"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._since = time.perf_counter()
        self._parts: dict[str, float] = {}
        self._began_at_step = 0
        self._profiler: profile | None = None
        reset_peak()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase; one within another (validation in the training) is the inner one's alone."""
        self._begin(name)
        yield
        self._end(name)
        if name == "load":
            self._begin("engine")

    def result(self, name: str, value: Any) -> None:
        """Have the model that is tested write answers to their limit."""
        if name == "load trained":
            _write_whole_answers(value)

    def rows(self, split: str, rows: Dataset) -> Dataset:
        """The rows of the script."""
        return rows.select(self.script.rows[split])

    def _begin(self, name: str) -> None:
        _synchronize()
        self._write({"begin": name})
        reset_peak()
        self._since = time.perf_counter()
        self._parts = {}

    def _end(self, name: str, step: int | None = None) -> None:
        _synchronize()
        seconds = time.perf_counter() - self._since
        measure = Measure(name, seconds, peak(), step, self._parts, self._profiler is not None)
        self._write(asdict(measure))
        reset_peak()
        self._since = time.perf_counter()

    def _write(self, record: dict[str, Any]) -> None:
        with self._file.open("a") as out:
            out.write(json.dumps(record) + "\n")

    def on_train_begin(
        self, args: Any, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """End of the phase in which the engine is built and, in a resumed run, the checkpoint is read."""
        self._began_at_step = state.global_step
        self._end("resume" if state.global_step else "engine")
        self._clock(model, kwargs.get("optimizer"))
        _write_whole_answers(model)
        self._begin("step")

    def _clock(self, model: nn.Module, optimizer: Any) -> None:
        """Clock the model's forward and the innermost optimizer's step, by their hooks."""
        model.register_forward_pre_hook(lambda *_: self._start("forward"))
        model.register_forward_hook(lambda *_: self._stop("forward"))
        while hasattr(optimizer, "optimizer"):  # accelerate's wrapper, and DeepSpeed's
            optimizer = optimizer.optimizer
        if isinstance(optimizer, torch.optim.Optimizer):
            optimizer.register_step_pre_hook(lambda *_: self._start("optimizer"))
            optimizer.register_step_post_hook(lambda *_: self._stop("optimizer"))

    def _start(self, part: str) -> None:
        _synchronize()
        self._parts[part] = self._parts.get(part, 0.0) - time.perf_counter()

    def _stop(self, part: str) -> None:
        _synchronize()
        self._parts[part] += time.perf_counter()

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._parts = {"data": time.perf_counter() - self._since}
        if state.global_step + 1 == state.max_steps and args.world_size > 1:
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
            self._profiler = profile(activities=activities)
            self._profiler.start()

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        _synchronize()
        total = time.perf_counter() - self._since
        self._parts["backward"] = total - sum(self._parts.values())
        if self._profiler is not None:
            self._profiler.stop()
            self._parts["communication"] = communication_seconds(self._profiler)
        self._since = time.perf_counter() - total
        self._end("step", state.global_step)
        self._profiler = None
        self._write({"begin": "step" if state.global_step < state.max_steps else "end of training"})
        self._follow_script(state)

    def _follow_script(self, state: TrainerState) -> None:
        if state.global_step == self.script.end_after:
            raise KeyboardInterrupt
        # Asked for one step ahead: who ends the run at the end of a step has looked before this callback is called.
        if state.global_step + 1 == self.script.save_after and not self._began_at_step:
            self.folder.stop.touch()
        if state.global_step == self.script.save_after and not self._began_at_step:
            # All ranks have agreed to end by now; with the request still there an error while saving would pass for it.
            self.folder.stop.unlink(missing_ok=True)
            self._begin("save")

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._end("save")

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._write({"begin": "end of training"})


def _write_whole_answers(model: nn.Module) -> None:
    """Have the model write as many tokens as it may: memory and time are those of an answer that rambles."""
    for module in model.modules():
        config: Any = getattr(module, "generation_config", None)
        if config is not None:
            config.min_new_tokens = 1 << 20


def communication_seconds(profiler: profile) -> float:
    """Busy time of collective operations: on the GPU where there is one, else on the CPU."""
    micros = 0.0
    for event in profiler.key_averages():
        if any(event.key.startswith(name) for name in COLLECTIVES):
            micros += event.self_device_time_total or event.self_cpu_time_total
    return micros / 1e6


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
