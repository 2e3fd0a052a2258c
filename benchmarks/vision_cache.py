"""Seconds of a run with a frozen tower: computing features, filling the cache, reading it.

`python -m benchmarks.vision_cache` from the project's root: a LLaVA with a tower of ViT-S/16's size at 224 pixels and a
nano language model, 48 rendered clocks, 24 steps of 8 rows (four epochs), torch alone on one CPU thread.
"""

import os
import tempfile
import time
from pathlib import Path

import torch

WORDS = [
    "model=llava_nano",
    "model.image_size=224",
    "model.patch_size=16",
    "model.vision={hidden_size:384,intermediate_size:1536,num_hidden_layers:12,num_attention_heads:6}",
    "task=clock",
    "task.source.size=224",
    "task.source.rows={train:48,validation:2,test:2}",
    "loss=ntil",
    "tuning=freeze_vision",
    "engine=local",
    "tracker=none",
    "curriculum=none",
    "evaluation.every_steps=0",
    "save_every=0",
    "optim.steps=24",
    "optim.batch_size=8",
]


def seconds(place: Path, limit: int) -> tuple[float, str]:
    from ntil.components import Components
    from ntil.models.tuning import tune
    from ntil.models.vision_cache import VisionCache
    from ntil.preflight import compose_checked
    from ntil.train.trainer import build_trainer

    config = compose_checked(WORDS)
    components = Components.build(config)
    torch.manual_seed(0)
    model = tune(components.family.load(), components.family, config.tuning)
    kept = VisionCache(components.family, model, place / "vision", limit) if limit else None
    trainer = build_trainer(config, components, model, components.task.rows("train"), place / "run")
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
