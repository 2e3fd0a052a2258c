"""A trainer of a context's run in this process, as a run has it, for the checks that look into a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from benchmarks.gpu_check.check import Context
from ntil.components import Components
from ntil.models.tuning import tune
from ntil.preflight import compose_checked
from ntil.train.arguments import float32_masters, training_arguments
from ntil.train.trainer import build_trainer

# Nothing but steps; several a logging window, since logging asks the device for numbers.
STEPS_ALONE = (
    "engine=local",
    "tracker=none",
    "curriculum=none",
    "evaluation.every_steps=0",
    "save_every=0",
    "log_every=1000",
    "optim.warmup=0",
)


def train(context: Context, callbacks: list[TrainerCallback], *words: str) -> Any:
    """Train `context.steps` and two more steps of the run; the trainer."""
    device = f"engine.device={'cpu' if context.device == 'cpu' else 'cuda'}"
    steps = f"optim.steps={context.steps + 2}"
    config = compose_checked([*context.words, *STEPS_ALONE, device, steps, *words])
    components = Components.build(config)
    model = tune(components.family.load(), components.family, config.tuning)
    rows = components.task.rows("train")
    folder = Path(context.folder) / "trainer"
    arguments = training_arguments(config, folder, components.family.dtype)
    # transformers 5.23 would cut a batch over all GPUs of a process without ranks, once it has looked for its device.
    assert arguments.device is not None
    arguments._n_gpu = min(1, arguments.n_gpu)
    trainer = build_trainer(config, components, model, rows, folder, arguments=arguments, callbacks=callbacks)
    with float32_masters(trainer.inner_model, config.engine):
        trainer.train()
    return trainer
