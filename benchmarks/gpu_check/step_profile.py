"""Where a step's time goes: torch's profiler over one step, and the share of matrix products."""

from __future__ import annotations

from typing import Any

from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback

from benchmarks.gpu_check.check import Context, Result
from benchmarks.gpu_check.training import train
from ntil.console import Table

TOP = 12
# Operators of torch that are matrix products, attention with them.
PRODUCTS = ("mm", "matmul", "linear", "attention", "conv")


class ProfiledStep(TrainerCallback):
    """Profiles the last step."""

    def __init__(self, device: str) -> None:
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
        self.profiler = profile(activities=activities)

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step + 1 == state.max_steps:
            self.profiler.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == state.max_steps:
            self.profiler.stop()


def run(context: Context) -> Result:
    """Profile a step and list the operators that take most."""
    step = ProfiledStep(context.device)
    train(context, [step])
    times = operator_times(step.profiler, context.device)
    total = sum(times.values())
    share = sum(time for name, time in times.items() if is_product(name)) / total
    top = sorted(times.items(), key=lambda item: -item[1])[:TOP]
    rows = [[name, f"{1000 * time:.3g}", f"{time / total:.1%}"] for name, time in top]
    table = Table("profile", ["operator", "ms", "share"], ["l", "r", "r"], rows)
    return Result("Profile of a step", None, [f"{share:.0%} of the busy time are matrix products"], [table])


def operator_times(profiler: profile, device: str) -> dict[str, float]:
    """Seconds of every operator by itself, on the device."""
    times = {}
    for event in profiler.key_averages():
        micros = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        if event.key.startswith("aten::") and micros > 0:
            times[event.key] = micros / 1e6
    return times


def is_product(operator: str) -> bool:
    """Whether an operator of torch is a matrix product, or attention."""
    return any(part in operator for part in PRODUCTS)
