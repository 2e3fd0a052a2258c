"""How near a packed step is to the machine's matrix products, and where the rest of its time goes.

    OMP_NUM_THREADS=1 python -m benchmarks.packed_limit                  # the mini LLaVA, 8 questions on a picture
    OMP_NUM_THREADS=1 python -m benchmarks.packed_limit --questions 2 --steps 5

The peak is that of a product of two square matrices in the same process, its best over several tries. A step's
arithmetic is counted by torch, attention over all pairs of tokens included; its time is that of the operators of
forward, backward and optimizer, by torch's profiler, grouped by what they do, and of the collator. What isn't a matrix
product counts as loss, and so does the time that products take beyond what they would at the peak. On a CPU. Last, a
training with one data worker beside it: how much of a step's time, by the clock, it waits for the worker.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from transformers import TrainerCallback

from benchmarks.mini_llava import WORDS
from benchmarks.shared_pictures import configured, rows_of
from benchmarks.train_step import Clock
from ntil.components import Components
from ntil.train.trainer import NumberTrainer, build_trainer

# Operators by what they do; an operator is of the first group a part of whose name it has.
GROUPS = {
    "matrix products": ("addmm", "::mm", "bmm", "linear", "matmul"),
    "attention": ("scaled_dot_product", "flash_attention"),
    "convolution of the patches": ("convolution", "conv2d"),
    "optimizer": ("adam",),
    "norms of the gradients": ("norm", "foreach"),
    "softmax and loss": ("softmax", "nll", "gather", "logsumexp"),
    "activations": ("silu", "gelu", "sigmoid"),
    "zeroes and copies": ("zero_", "fill_", "copy_", "empty", "clone", "cat", "to_copy"),
    "embeddings and selections": ("embedding", "index", "scatter", "select"),
}
OTHERS = "sums, products and other operators a number"


def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of the CPU's attention, which torch's counter leaves out; from shapes."""
    return sdpa_flop_count(query, key, value)


def attention_backward_flops(gradient: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Operations of its backward."""
    return sdpa_backward_flop_count(gradient, query, key, value)


ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward_flops,
}


def peak_flops(size: int = 2048, tries: int = 6) -> float:
    """Floating-point operations a second of a square matrix product in float32, the best of several."""
    one, other = torch.randn(size, size), torch.randn(size, size)
    seconds = []
    for _ in range(tries):
        begun = time.process_time()
        one @ other
        seconds.append(time.process_time() - begun)
    return 2 * size**3 / min(seconds)


def group_of(operator: str) -> str:
    """What an operator is counted as."""
    return next((group for group, parts in GROUPS.items() if any(part in operator for part in parts)), OTHERS)


def trainer_of(options: Namespace, folder: Path, workers: int, callbacks: list[TrainerCallback]) -> NumberTrainer:
    """A trainer of packed steps."""
    config, counts = configured("packed", options.questions, options.batch, options.steps + 1)
    config.engine.workers = workers
    components = Components.build(config)
    components.family.config.text_config.vocab_size = WORDS
    torch.manual_seed(0)
    model, rows = components.family.load(), rows_of(components, counts)
    return build_trainer(config, components, model, rows, folder, callbacks=callbacks)


def step(trainer: NumberTrainer, batch: dict[str, Any]) -> None:
    """Forward, backward, norm of the gradients and optimizer."""
    assert trainer.model is not None
    assert trainer.optimizer is not None
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
    trainer.optimizer.step()
    trainer.model.zero_grad()


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    result = work()
    return time.process_time() - begun, result


def measure(options: Namespace, folder: Path) -> tuple[dict[str, float], float, Counter[str]]:
    """Operations of a step's products, its seconds without a profiler, and seconds of each group with one; means."""
    trainer = trainer_of(options, folder, 0, [])
    trainer.create_optimizer_and_scheduler(options.steps + 1)
    batches = iter(trainer.get_train_dataloader())

    def next_batch() -> dict[str, Any]:
        return trainer.get_batch_samples(batches, 1, torch.device("cpu"))[0][0]

    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        step(trainer, next_batch())
    counted = counter.get_flop_counts()["Global"]
    of_attention = float(sum(counted[operator] for operator in ATTENTION))
    flops = {"attention": of_attention, "matrix products": counter.get_total_flops() - of_attention}
    groups: Counter[str] = Counter()
    plain = 0.0
    for number in range(options.steps):
        collating, batch = seconds_of(next_batch)
        groups["collator: pictures, ids, spans"] += collating / options.steps
        if number % 2 == 0:
            seconds, _ = seconds_of(partial(step, trainer, batch))
            plain += (collating + seconds) / len(range(0, options.steps, 2))
            continue
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            step(trainer, batch)
        for event in profiled.key_averages():
            if event.key.startswith("aten::"):
                groups[group_of(event.key)] += event.self_cpu_time_total / 1e6 / (options.steps // 2)
    return flops, plain, groups


def waiting(options: Namespace, folder: Path) -> tuple[float, float]:
    """Medians over the steps after the first: seconds that a training with one worker waits for data, and of a step."""
    clock, waits = Clock(), []
    trainer = trainer_of(options, folder, 1, [clock])
    original = trainer.get_batch_samples

    def timed(*args: Any) -> Any:
        begun = time.perf_counter()
        batches = original(*args)
        waits.append(time.perf_counter() - begun)
        return batches

    trainer.get_batch_samples = timed  # type: ignore[method-assign, assignment]
    trainer.train()
    return statistics.median(waits[1:]), statistics.median(clock.steps)


def main() -> None:
    """Print the share of the peak, and where the rest goes, the largest first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", default="8", help="a picture, or gref")
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--steps", type=int, default=6, help="every other one is profiled")
    options = parser.parse_args()
    before = peak_flops()
    with tempfile.TemporaryDirectory() as folder:
        flops, seconds, groups = measure(options, Path(folder))
        waited, of_step = waiting(options, Path(folder))
    peak, total = max(before, peak_flops()), sum(flops.values())
    print(f"{torch.get_num_threads()} threads; peak {peak / 1e9:.0f} GFLOP/s; a step {total / 1e9:.0f} GFLOP")
    at_peak = total / peak
    print(f"a step takes {seconds:.2f} s, {at_peak / seconds:.0%} of the peak, at which it would take {at_peak:.2f} s")
    lost = Counter({f"{name} below the peak": groups.pop(name) - flops[name] / peak for name in flops})
    lost.update(groups)
    print("\n| lost to | s a step | of the step |\n| --- | ---: | ---: |")
    for name, spent in lost.most_common():
        print(f"| {name} | {spent:.3f} | {spent / seconds:.1%} |")
    share = waited / of_step
    print(f"\nwaiting for one data worker: {waited:.3f} s of a step of {of_step:.2f} s by the clock, {share:.1%}")


if __name__ == "__main__":
    main()
