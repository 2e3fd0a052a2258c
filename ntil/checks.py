"""What must hold for every model family, measured; the tests judge it and `python -m benchmarks.families` prints it.

`python -m ntil.checks model=... tuning=... engine=zero2` trains a few steps and prints as JSON which parameters moved.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from ntil.session import Session
from tasks.base import Row

# Small and quick, and no weight decay: a parameter moves by its gradient or not at all.
STEP = [
    "tracker=none",
    "curriculum=none",
    "evaluation.every=0",
    "save_every=0",
    "optim.batch_size=4",
    "optim.steps=3",
    "optim.warmup=0",
    "optim.weight_decay=0",
    "optim.lr=0.01",
    "vision_cache_gb=0",
]


def supervised_logits_error(session: Session, model: Any, rows: list[Row]) -> float:
    """Largest difference between the logits at the answers' positions alone and the full logits there."""
    from ntil.train.trainer import SupervisedHead

    batch = session.collator(rows)
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    positions, _ = inputs.pop("positions"), inputs.pop("targets")
    with torch.no_grad():
        full = model(**inputs).logits
        picked = SupervisedHead(model).logits(model, inputs, positions)
    return (picked - full.reshape(-1, full.shape[-1])[positions]).abs().max().item()


def batched_is_single(session: Session, model: Any, rows: list[Row]) -> bool:
    """Whether the answers generated in one batch are those generated one by one."""
    from ntil.evaluate import generate

    return generate(model, session.collator, rows) == [generate(model, session.collator, [row])[0] for row in rows]


def moved(words: list[str]) -> dict[str, list[str]]:
    """Train a few steps of the run that the words describe: names of the parameters that were free to move, and did."""
    from transformers import PrinterCallback

    from ntil.compose import compose
    from ntil.config import CurriculumConfig, typed
    from ntil.train.engine import float32_masters, training_arguments
    from ntil.train.sampler import CurriculumSampler
    from ntil.train.trainer import NumberTrainer
    from ntil.tuning import tune

    config = compose([*STEP, *words])
    settings, session = typed(config), Session.build(config)
    optim = settings.optim
    rows = session.task.rows("train")
    torch.manual_seed(settings.seed)
    with tempfile.TemporaryDirectory() as place:
        arguments = training_arguments(settings, Path(place), session.family.dtype)
        model = tune(session.family.load(), session.family, settings.tuning)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        trainer = NumberTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            data_collator=session.collator,
            number_loss=session.loss,
            sampler=CurriculumSampler(len(rows), optim.steps, optim.batch_size, 0, CurriculumConfig()),
            validate=dict,
        )
        trainer.remove_callback(PrinterCallback)
        with float32_masters(model, settings.engine):
            trainer.train()
    free = [name for name, p in model.named_parameters() if p.requires_grad]
    changed = [name for name, p in model.named_parameters() if not torch.equal(p.detach(), before[name])]
    return {"free": free, "moved": changed}


if __name__ == "__main__":
    print(json.dumps(moved(sys.argv[1:])))
