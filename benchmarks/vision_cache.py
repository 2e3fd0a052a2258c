"""Seconds of a run with a frozen tower: computing features, filling the cache, reading it.

`python -m benchmarks.vision_cache` from the project's root: a LLaVA with a tower of ViT-S/16's size at 224 pixels and a
nano language model, 48 rendered clocks, 24 steps of 8 rows (four epochs), torch alone on one CPU thread.
"""

import os
import tempfile
import time
from pathlib import Path

import torch
from transformers import PrinterCallback

WORDS = [
    "model=llava_nano",
    "model.image_size=224",
    "model.patch_size=16",
    "model.vision={hidden_size:384,intermediate_size:1536,num_hidden_layers:12,num_attention_heads:6}",
    "task=clock",
    "task.size=224",
    "task.rows={train:48,validation:2,test:2}",
    "loss=ntil",
    "tuning=freeze_vision",
    "engine=local",
    "tracker=none",
    "curriculum=none",
    "evaluation.every=0",
    "save_every=0",
    "optim.steps=24",
    "optim.batch_size=8",
]


def seconds(place: Path, limit: int) -> tuple[float, str]:
    from ntil.compose import compose
    from ntil.config import CurriculumConfig, typed
    from ntil.session import Session
    from ntil.train.engine import training_arguments
    from ntil.train.sampler import CurriculumSampler
    from ntil.train.trainer import NumberTrainer
    from ntil.tuning import tune
    from ntil.vision_cache import VisionCache

    config = compose(WORDS)
    settings, session = typed(config), Session.build(config)
    rows = session.task.rows("train")
    torch.manual_seed(0)
    model = tune(session.family.load(), session.family, settings.tuning)
    kept = VisionCache(session.family, model, place / "vision", limit) if limit else None
    trainer = NumberTrainer(
        model=model,
        args=training_arguments(settings, place / "run"),
        train_dataset=rows,
        data_collator=session.collator,
        number_loss=session.loss,
        sampler=CurriculumSampler(len(rows), 24, 8, 0, CurriculumConfig()),
        validate=dict,
    )
    trainer.remove_callback(PrinterCallback)
    started = time.perf_counter()
    trainer.train()
    loss = trainer.state.log_history[-1]["train_loss"]
    said = f"{kept.hits} read, {kept.misses} computed" if kept else "192 computed"
    return time.perf_counter() - started, f"{said}, mean loss {loss:.6f}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NTIL_CACHE"] = folder
        for title, limit in (("without", 0), ("filling", 10**9), ("reading", 10**9)):
            taken, said = seconds(Path(folder), limit)
            print(f"{title}: {taken:.1f} s ({said})")
        size = sum(p.stat().st_size for p in (Path(folder) / "vision").rglob("*.safetensors"))
        print(f"on disk: {size / 48 / 1e3:.0f} kB a picture")
