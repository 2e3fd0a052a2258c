"""A training step on several questions a picture: ours packed and unpacked, Hugging Face's Trainer, TRL's SFTTrainer.

    python -m benchmarks.shared_pictures                                  # 1, 2, 4 and 8 questions a picture
    python -m benchmarks.shared_pictures --questions 8,gref --trainers "packed;unpacked" --rounds 5

A mini LLaVA with the real geometry: 336 pixels, 576 tokens a picture, 32,064 words; hidden 512, 8 layers; a tower of
hidden 384 and 6 layers, all trained, in plain torch (no DeepSpeed) with torch's fused AdamW. Every trainer runs in a
process of its own, in turns, `--rounds` times; the median of the steps after the first counts, peak memory is of the
whole process. On a CPU a step's time is the process's own, with data prepared in it, which others on the machine hardly
change; with one thread (OMP_NUM_THREADS=1) that is what a clock would show on an idle machine. Ratios compare within
one run only.

`gref` reads questions a picture from $NTIL_SHARED: the expressions of RefCOCOg's validation split.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from benchmarks.mini_llava import MODEL, WORDS, gref_counts
from benchmarks.train_step import PEERS, Clock, run_peer
from ntil.components import Components
from ntil.config.schema import RunConfig
from ntil.preflight import compose_checked
from ntil.train.throughput import peak_memory
from ntil.train.trainer import build_trainer

OURS = {"packed": "pictures", "tokens": "tokens", "unpacked": "none"}


def configured(trainer: str, questions: str, batch: int, steps: int) -> tuple[RunConfig, list[int]]:
    """The run, and how many questions each picture has."""
    needed = batch * (steps + 1)
    counts = gref_counts() if questions == "gref" else [int(questions)] * needed
    pictures = next(i for i in range(1, len(counts) + 1) if sum(counts[:i]) >= needed)
    counts = counts[:pictures]
    words = [*MODEL, "task=grounding_nano", "task.source.size=336", f"task.source.questions={max(counts)}"]
    words += [f"task.source.rows={{train:{max(counts) * pictures}}}", f"packing={OURS.get(trainer, 'none')}"]
    words += ["loss=ce", "engine=local", "tracker=none", "curriculum=none", "engine.workers=0", "save_every=0"]
    words += [f"optim.batch_size={batch}", f"optim.steps={steps}", "optim.warmup=1", "evaluation.every_steps=0"]
    return compose_checked(words), counts


def rows_of(components: Components, counts: list[int]) -> Dataset:
    """As many questions of each picture as it has to have."""
    most = max(counts)
    chosen = [picture * most + i for picture, count in enumerate(counts) for i in range(count)]
    return components.task.rows("train").select(chosen)


def child(trainer: str, options: argparse.Namespace) -> None:
    """Run one trainer and print its figures."""
    config, counts = configured(trainer, options.questions[0], options.batch, options.steps)
    components, clock = Components.build(config), Clock(of_process=not torch.cuda.is_available())
    components.family.config.text_config.vocab_size = WORDS
    rows = rows_of(components, counts)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        if trainer in PEERS:
            components.task.rows = lambda split: rows  # type: ignore[method-assign]  # noqa: ARG005
            run_peer(trainer, config, components, Path(folder), clock)
        else:
            build_trainer(config, components, components.family.load(), rows, Path(folder), callbacks=[clock]).train()
    print(json.dumps({"steps": clock.steps, "gib": peak_memory() / 2**30}))


def spawned(trainer: str, questions: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.shared_pictures", "--only", trainer, "--questions", questions]
    command += ["--batch", str(options.batch), "--steps", str(options.steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{trainer}, {questions} questions: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Print a table for each number of questions a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=lambda s: s.split(","), default=["1", "2", "4", "8"], help="or gref")
    parser.add_argument("--trainers", type=lambda s: s.split(";"), default=[*OURS, *PEERS])
    parser.add_argument("--batch", type=int, default=8, help="rows of a step")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        child(options.only, options)
        return
    print(f"{torch.get_num_threads()} threads, {options.batch} rows a step")
    print("\n| questions | trainer | step s | x of the first | peak GiB |\n| --- | --- | ---: | ---: | ---: |")
    for questions in options.questions:
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in options.trainers}
        for _ in range(options.rounds):
            for name in options.trainers:
                runs[name].append(spawned(name, questions, options))
        first = 0.0
        for name, results in runs.items():
            seconds = statistics.median(s for run in results for s in run["steps"])
            gib = statistics.median(run["gib"] for run in results)
            first = first or seconds
            label = name if name in PEERS else f"ours, {name}"
            print(f"| {questions} | {label} | {seconds:.2f} | {seconds / first:.2f} | {gib:.2f} |", flush=True)


if __name__ == "__main__":
    main()
