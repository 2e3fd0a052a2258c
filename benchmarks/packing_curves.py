"""A training with and without packing over the same rows of every step: the curves, and how far they are apart.

    OMP_NUM_THREADS=1 python -m benchmarks.packing_curves --figure docs/figures/packing_curves.png

Both have the order of a packed training, whose steps go through the rows picture by picture; the second one's
micro-batches have every row in full. A third one shows what rounding alone does: it is the second one with its first
weights changed by a millionth of themselves. Each starts from the same random weights.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from experiments.render.plots import plt
from ntil.components import Components
from ntil.preflight import compose_checked
from ntil.train.trainer import build_trainer

RUN = [
    "task=grounding_nano",
    "task.source.questions=4",
    "task.source.rows={train: 1600, validation: 8, test: 8}",
    "model=llava_nano",
    "engine=local",
    "engine.device=cpu",
    "engine.workers=0",
    "engine.threads=1",
    "curriculum=none",
    "tracker=none",
    "evaluation.every_steps=0",
    "save_every=0",
    "save_minutes=0",
    "log_every=1",
    "optim.batch_size=16",
    "packing=pictures",
]
NUDGE = 1e-6
FIGURES = ("loss", "grad_norm")
NAMES = ("packed", "separate", "nudged")


def curves(name: str, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """The log of every step of one training."""
    config = compose_checked([*RUN, *overrides])
    components = Components.build(config)
    torch.manual_seed(0)
    model: Any = components.family.load()
    if name == "nudged":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + NUDGE * torch.randn_like(parameter))
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, components, model, components.task.rows("train"), Path(folder))
        if name != "packed":
            trainer.data_collator = components.collator
        trainer.train()
    log = [record for record in trainer.state.log_history if "loss" in record]
    print(f"{name:9} last loss {log[-1]['loss']:.6f}, {tokens_per_row(log):.1f} tokens a row", flush=True)
    return log


def largest_difference(
    one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]], figure: str, steps: int
) -> float:
    """Largest of the first `steps` steps, relative to the larger value."""
    pairs = [(a[figure], b[figure]) for a, b in zip(one[:steps], other[:steps], strict=True)]
    return max(abs(a - b) / max(abs(a), abs(b)) for a, b in pairs)


def tokens_per_row(log: Sequence[dict[str, Any]]) -> float:
    """Mean over the steps."""
    return sum(record["tokens_per_s"] / record["samples_per_s"] for record in log) / len(log)


def draw(logs: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """The losses of both on one axis, and below it how far they are apart."""
    steps = [record["step"] for record in logs["packed"]]
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.5, 6), sharex=True, layout="constrained")
    for name, style in (("separate", {"linewidth": 4, "alpha": 0.35}), ("packed", {"linewidth": 1.2})):
        label = f"{name}, {tokens_per_row(logs[name]):.1f} tokens a row"
        above.plot(steps, [record["loss"] for record in logs[name]], label=label, **style)
    above.set_ylabel("loss of a step")
    separate = [record["loss"] for record in logs["separate"]]
    for name, label in (("packed", "packed"), ("nudged", f"separate, first weights changed by {NUDGE:g}")):
        apart = [abs(r["loss"] - loss) / abs(loss) for r, loss in zip(logs[name], separate, strict=True)]
        below.semilogy(steps, [max(value, 1e-9) for value in apart], label=label, linewidth=1.2)
    below.set_ylabel("relative difference from separate")
    below.set_xlabel("step")
    for axis in (above, below):
        axis.legend(frameon=False)
        axis.grid(alpha=0.25)
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--loss", default="ntil")
    parser.add_argument("--figure", type=Path)
    parser.add_argument("overrides", nargs="*", help="of the configuration, such as optim.lr=1e-4")
    arguments = parser.parse_args()
    words = [f"loss={arguments.loss}", f"optim.steps={arguments.steps}", *arguments.overrides]
    logs = {name: curves(name, words) for name in NAMES}
    for name in ("packed", "nudged"):
        for steps in dict.fromkeys(min(n, arguments.steps) for n in (1, 20, 50, 100, arguments.steps)):
            apart = (
                f"{figure} {largest_difference(logs[name], logs['separate'], figure, steps):.1e}" for figure in FIGURES
            )
            print(f"{name:9} from separate, largest of the first {steps:3}: {', '.join(apart)}")
    if arguments.figure:
        draw(logs, arguments.figure)


if __name__ == "__main__":
    main()
