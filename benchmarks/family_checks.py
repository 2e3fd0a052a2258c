"""What must hold for every model family, measured; the tests judge it and `python -m benchmarks.families` prints it.

`python -m benchmarks.family_checks model=... tuning=... engine=zero2` trains a few steps and prints as JSON which
parameters moved.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from data.common.rows import Row
from ntil.components import Components

# Small and quick, and no weight decay: a parameter moves by its gradient or not at all.
STEP = [
    "tracker=none",
    "curriculum=none",
    "evaluation.every_steps=0",
    "save_every=0",
    "optim.batch_size=4",
    "optim.steps=3",
    "optim.warmup=0",
    "optim.weight_decay=0",
    "optim.lr=0.01",
    "vision_cache_gb=0",
]


def supervised_logits_error(components: Components, model: Any, rows: list[Row]) -> float:
    """Largest difference between the logits at the answers' positions alone and the full logits there."""
    from ntil.models.head import SupervisedHead

    batch = components.collator(rows)
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    positions, _ = inputs.pop("positions"), inputs.pop("targets")
    with torch.no_grad():
        full = model(**inputs).logits
        picked = SupervisedHead(model).logits(model, inputs, positions)
    return (picked - full.reshape(-1, full.shape[-1])[positions]).abs().max().item()


def batched_is_single(components: Components, model: Any, rows: list[Row]) -> bool:
    """Whether the answers generated in one batch are those generated one by one."""
    from ntil.evaluation.generate import generate

    collator = components.collator
    return generate(model, collator, rows) == [generate(model, collator, [row])[0] for row in rows]


def moved(words: list[str]) -> dict[str, list[str]]:
    """Train a few steps of the run that the words describe: names of the parameters that were free to move, and did."""
    from ntil.models.tuning import tune
    from ntil.preflight import compose_checked
    from ntil.train.arguments import float32_masters, training_arguments
    from ntil.train.trainer import build_trainer

    config = compose_checked([*STEP, *words])
    components = Components.build(config)
    rows = components.task.rows("train")
    torch.manual_seed(config.seed)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # First, since under ZeRO-3 they decide how weights are loaded.
        arguments = training_arguments(config, folder, components.family.dtype)
        model = tune(components.family.load(), components.family, config.tuning)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer = build_trainer(config, components, model, rows, folder, arguments=arguments)
        with float32_masters(model, config.engine):
            trainer.train()
    free = [name for name, p in model.named_parameters() if p.requires_grad]
    changed = [name for name, p in model.named_parameters() if not torch.equal(p.detach(), before[name])]
    return {"free": free, "moved": changed}


if __name__ == "__main__":
    print(json.dumps(moved(sys.argv[1:])))
