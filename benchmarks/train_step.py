"""A whole training step, same model, rows and batch: ours, Hugging Face's Trainer with `labels=`, TRL's SFTTrainer.

    python -m benchmarks.train_step                               # both models, minutes
    python -m benchmarks.train_step --models llava_nano --losses ce,ntil --rounds 5
    python -m benchmarks.train_step --where                       # where the time of our step goes, too
    python -m benchmarks.train_step --models qwen2_vl_2b          # the published size in bfloat16, for a GPU

`paligemma` is a mini PaliGemma with the real vocabulary (257,216 tokens, hidden 256, 4 layers, 256 picture tokens): its
tokenizer is read from $NTIL_SHARED. Every trainer runs in a process of its own, in turns, `--rounds` times round; the
median of the steps after the first two counts, peak memory is of the whole process. Ratios compare within one run only.
All three take the same batches from our collator, in plain torch (no DeepSpeed), with torch's fused AdamW.
Parts of a step are medians, so that the start of the data workers doesn't count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Trainer, TrainerCallback, TrainingArguments

from data.common.counts import counted
from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.schema import RunConfig
from ntil.models.tuning import Parts
from ntil.preflight import compose_checked
from ntil.rehearsal.weights import write_random
from ntil.train.throughput import peak_memory
from ntil.train.trainer import NumberTrainer, build_trainer

PEERS = ["HF Trainer, labels=", "TRL SFTTrainer"]
MODELS = {"llava_nano": (64, 40), "paligemma": (8, 5), "qwen2_vl_2b": (8, 12)}  # batch, steps
USUAL = ("llava_nano", "paligemma")  # the last takes a GPU


class Clock(TrainerCallback):
    """Seconds from the end of one step to the end of the next: all of a step, its data too.

    of_process: those that this process computed, which others on the machine hardly change.
    """

    def __init__(self, of_process: bool = False) -> None:
        self._now = time.process_time if of_process else time.perf_counter
        self.steps: list[float] = []
        self.last = 0.0

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = self._now()
        if self.last:
            self.steps.append(now - self.last)
        self.last = now


def mini_paligemma(folder: Path) -> None:
    """A PaliGemma checkpoint folder with the real tokenizer and small towers, of random weights."""
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        SiglipImageProcessorPil,
        SiglipVisionConfig,
    )

    source = Path(os.environ.get("NTIL_SHARED", "../shared")) / "assets/tokenizers/paligemma/tokenizer.json"
    if not source.exists():
        raise SystemExit(f"{source} is not there: set NTIL_SHARED to the folder with the real tokenizers")
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(source), **special)
    text = GemmaConfig(
        vocab_size=257216,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=64,
    )
    vision = SiglipVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=224,
        patch_size=14,
        vision_use_head=False,
    )
    config = PaliGemmaConfig(
        vision_config=vision, text_config=text, image_token_index=257152, vocab_size=257216, projection_dim=256
    )
    torch.manual_seed(0)
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 224, "width": 224}).save_pretrained(folder)


def configured(model: str, loss: str, checkpoint: Path | None, workers: int, steps: int) -> RunConfig:
    batch = MODELS[model][0]
    words = [f"loss={loss}", "engine=local", "tracker=none", "curriculum=none", f"engine.workers={workers}"]
    words += [f"optim.batch_size={batch}", f"optim.steps={steps}", "optim.warmup=1"]
    words += ["evaluation.every_steps=0", "save_every=0"]
    if checkpoint is None:
        words += [f"model={model}", "task=clock", f"task.source.rows={{train:{batch * steps}}}"]
    elif model == "qwen2_vl_2b":
        words += [f"model={model}", f"model.checkpoint={checkpoint}", "task=grounding_nano", "task.source.size=448"]
        words += [f"task.source.rows={{train:{batch * steps}}}", "optim.lr=1e-5"]
    else:
        # Boxes in <loc> tokens are 5 tokens an answer; digits make them 16 or so, as in most families.
        words += ["model=paligemma_3b", f"model.checkpoint={checkpoint}", "model.coords=int1000", "task=grounding_nano"]
        words += ["task.source.size=224", f"task.source.rows={{train:{batch * steps}}}", "model.dtype=float32"]
    return compose_checked(words)


def with_labels(components: Components, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Our batch as other trainers want it: labels [B, T], -100 everywhere but on the answer."""
    batch = components.collator(rows)
    labels = torch.full_like(batch["input_ids"], -100)
    labels.view(-1)[batch["positions"] + 1] = batch["targets"]
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor) and k not in ("positions", "targets")}
    return {**inputs, "labels": labels}


def run_ours(config: RunConfig, components: Components, folder: Path, clock: Clock, where: bool) -> dict[str, float]:
    model, rows = components.family.load(), components.task.rows("train")
    trainer = build_trainer(config, components, model, rows, folder, callbacks=[clock])
    spent = measured(trainer, components) if where else {}
    trainer.train()
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


def measured(trainer: NumberTrainer, components: Components) -> dict[str, list[float]]:
    """Seconds of each part, step by step, filled while the trainer runs; forward by hooks, the rest by wrapping."""
    spent: dict[str, list[float]] = defaultdict(list)
    model = trainer.model
    assert isinstance(model, PreTrainedModel)

    def around(module: nn.Module, name: str) -> None:
        started: list[float] = []
        module.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))
        module.register_forward_hook(lambda *_: spent[name].append(time.perf_counter() - started.pop()))

    def wrap(owner: Any, method: str, name: str) -> None:
        inner = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent[name].append(time.perf_counter() - begun)

        setattr(owner, method, timed)

    parts = Parts(components.family)
    for part in components.family.parts:
        for module in parts.modules(model, part).values():
            around(module, f"forward {part}")
    around(model.get_output_embeddings(), "forward head")
    wrap(trainer.number_loss, "parts", "forward loss")  # without joining them, a few operations on scalars
    wrap(trainer, "get_batch_samples", "waiting for data")
    wrap(trainer.accelerator, "backward", "backward")
    trainer.create_optimizer_and_scheduler(trainer.args.max_steps)
    wrap(trainer.optimizer, "step", "optimizer")
    return spent


def run_peer(name: str, config: RunConfig, components: Components, folder: Path, clock: Clock) -> None:
    rows = components.task.rows("train")
    common: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": config.optim.steps,
        "per_device_train_batch_size": config.optim.batch_size,
        "learning_rate": config.optim.lr,
        "remove_unused_columns": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_steps": config.optim.steps,
        "optim": "adamw_torch_fused",
        "dataloader_num_workers": config.engine.workers,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
    }
    parts: dict[str, Any] = {
        "model": components.family.load(),
        "train_dataset": rows,
        "data_collator": lambda chosen: with_labels(components, chosen),
        "callbacks": [clock],
    }
    if name == PEERS[0]:
        Trainer(args=TrainingArguments(**common), **parts).train()
        return
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        **common,
        bf16=False,
        gradient_checkpointing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
    )
    # Rows without a column named `image`: the pictures are in the batches already.
    parts["train_dataset"] = rows.rename_column("image", "picture")
    parts["data_collator"] = lambda chosen: with_labels(
        components, [{**row, "image": row["picture"]} for row in chosen]
    )
    SFTTrainer(args=arguments, processing_class=components.family.tokenizer, **parts).train()


def child(options: argparse.Namespace) -> None:
    model, name = options.models[0], options.only
    checkpoint = Path(options.checkpoint) if options.checkpoint else None
    steps = options.steps or MODELS[model][1]
    config = configured(model, "ce" if name in PEERS else name, checkpoint, options.workers, steps)
    components = Components.build(config)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        spent = {}
        if name in PEERS:
            run_peer(name, config, components, Path(folder), clock)
        else:
            spent = run_ours(config, components, Path(folder), clock, options.where)
    print(json.dumps({"steps": clock.steps[2:], "gib": peak_memory() / 2**30, "spent": spent}))


def spawned(model: str, name: str, checkpoint: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train_step", "--models", model, "--only", name]
    command += ["--workers", str(options.workers), "--steps", str(options.steps)]
    command += ["--checkpoint", str(checkpoint)] if checkpoint else []
    command += ["--where"] if options.where else []
    # One GPU: with several, Hugging Face's Trainer would cut a batch over them by itself.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{model}, {name}: {done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda s: s.split(","), default=list(USUAL))
    parser.add_argument("--losses", type=lambda s: s.split(","), default=["ce", "ntil", "value_emd"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=0, help="steps of each run; 0: 40 of nano, 5 of paligemma")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--where", action="store_true", help="where the time goes (slows steps a little)")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        child(options)
        return
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            table(model, write_checkpoint(model, Path(folder) / "checkpoint"), options)


def write_checkpoint(model: str, folder: Path) -> Path | None:
    """Write what the model starts from; None where it starts from scratch."""
    if model == "llava_nano":
        return None
    if model == "paligemma":
        mini_paligemma(folder)
    else:
        write_random(compose([f"model={model}"]).model, folder)
    return folder


def table(model: str, checkpoint: Path | None, options: argparse.Namespace) -> None:
    names = [*options.losses, *PEERS]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tqdm(total=options.rounds * len(names), desc=model, unit="run") as bar:
        for _ in range(options.rounds):
            for name in names:
                found[name].append(spawned(model, name, checkpoint, options))
                bar.update()
    seconds = {name: statistics.median(s for run in runs for s in run["steps"]) for name, runs in found.items()}
    ours = seconds[options.losses[0]]
    print(
        f"\n{model}, batch {MODELS[model][0]}, {counted(torch.get_num_threads(), 'thread')}, "
        f"{counted(options.workers, 'data worker')}"
    )
    print("\n| trainer | step s | x of our first | peak GiB |\n| --- | ---: | ---: | ---: |")
    for name, runs in found.items():
        label = name if name in PEERS else f"ours, {name}"
        gib = statistics.median(run["gib"] for run in runs)
        print(f"| {label} | {seconds[name]:.3f} | {seconds[name] / ours:.2f} | {gib:.2f} |")
    if options.where:
        print_where(found[options.losses[0]], options.losses[0])


def print_where(runs: list[dict[str, Any]], loss: str) -> None:
    parts = {name: statistics.median(run["spent"][name] for run in runs) for name in runs[0]["spent"]}
    whole = sum(parts.values())
    print(f"\nwhere our {loss} step goes (share of the measured parts)\n\n| part | ms | share |\n| --- | ---: | ---: |")
    for name, seconds in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"| {name} | {1000 * seconds:.1f} | {seconds / whole:.1%} |")


if __name__ == "__main__":
    main()
