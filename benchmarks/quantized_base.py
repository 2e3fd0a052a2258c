"""Adapters on a base in 4 bits, with bitsandbytes as it is installed here: training, resume, reload, merged export.

    python -m benchmarks.quantized_base [overrides ...]

A nano text model is saved as a checkpoint and trained four steps with `tuning=qlora` on what is here. It
prints which layers are in 4 bits, whether a resumed training and a reload are equal bit for bit, and how far the merged
model's logits are from those of base and adapters; without bitsandbytes it ends with one sentence.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.schema import RunConfig
from ntil.models.saving import load_merged, load_saved, save
from ntil.models.tuning import Parts, tune
from ntil.train.arguments import float32_masters
from ntil.train.trainer import build_trainer

WORDS = [
    *("model=qwen25_nano", "task=arithmetic", "loss=ntil", "engine=local", "engine.workers=0", "curriculum=none"),
    *("task.source.rows={train:64,validation:8,test:8}", "evaluation.every_steps=0", "tracker=none", "log_every=1"),
    *("optim.batch_size=8", "optim.steps=4", "optim.warmup=1", "save_every=2", "keep_checkpoints=2"),
]


def main(overrides: list[str]) -> int:
    """Run the benchmark; the exit code."""
    if not find_spec("bitsandbytes"):
        print("bitsandbytes isn't installed here, so there is nothing to try", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        family = Components.build(compose(WORDS)).family
        torch.manual_seed(0)
        family.save(family.load(), place / "base")
        config = compose([*WORDS, f"model.checkpoint={place / 'base'}", "tuning=qlora", *overrides])
        compare(config, place)
    return 0


def compare(config: RunConfig, place: Path) -> None:
    """Train, resume, reload and merge; print what is equal and what isn't."""
    model, family = trained(config, place, None)
    layers = sum(type(module).__module__.startswith("bitsandbytes") for module in model.modules())
    print(f"{layers} layers in 4 bits; (parameters, trained) {Parts(family).counts(model)}")
    resumed, _ = trained(config, place, place / "checkpoints" / "checkpoint-2")
    pairs = zip(model.parameters(), resumed.parameters(), strict=True)
    print(f"resumed from step 2: equal {all(torch.equal(a, b) for a, b in pairs if a.requires_grad)}")
    save(model, family, place / "model")
    logits = logits_of(model)
    print(f"reloaded: equal {torch.equal(logits_of(load_saved(family, place / 'model')), logits)}")
    scale, far = logits.abs().max().item(), (logits_of(load_merged(family, place / "model")) - logits).abs().max()
    print(f"merged into the base unpacked: logits up to {scale:.3g} differ by {far.item():.2g}")
    family.quantization = None
    far = (logits_of(load_merged(family, place / "model")) - logits).abs().max()
    print(f"merged into the base as it was before: by {far.item():.2g}")


def trained(config: RunConfig, place: Path, checkpoint: Path | None) -> tuple[Any, Any]:
    """The model after the config's steps, from a checkpoint or from the beginning, and its family."""
    components = Components.build(config)
    torch.manual_seed(0)
    model = tune(components.family.load(), components.family, config.tuning)
    trainer = build_trainer(config, components, model, components.task.rows("train"), place / "checkpoints")
    with float32_masters(trainer.inner_model, config.engine):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return model, components.family


def logits_of(model: Any) -> Tensor:
    """Logits [2, 10, V] of fixed ids, on the CPU."""
    with torch.no_grad():
        ids = torch.arange(3, 23).reshape(2, 10).to(model.device)
        return model.eval()(input_ids=ids).logits.float().cpu()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
