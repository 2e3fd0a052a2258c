"""The same rows, model and optimizer for `ntil train` and for trainers of others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import Trainer

from benchmarks.train_step import with_labels
from ntil.components import Components
from ntil.config.compose import compose
from ntil.integrations.accelerate_loop import NumberSteps
from ntil.integrations.hf_trainer import use_loss
from ntil.train.arguments import training_arguments
from ntil.train.sampler import CurriculumSampler
from ntil.train.trainer import build_trainer
from tests.support.runs import TINY_RUN

STEPS, BATCH = 3, 8
LOSSES = ("ntil", "value_emd", "ntl_was", "emo")  # rescaled and noisy, per sample, per digit, with embeddings
TINY_TEXT = [
    *("model=qwen25_nano", "model.language.hidden_size=32", "model.language.intermediate_size=64"),
    *("model.language.num_hidden_layers=2", "task=arithmetic", "task.source.rows={train:64}", "optim.lr=0.01"),
    *("optim.min_lr_ratio=1", "optim.warmup=0", "optim.weight_decay=0", "optim.max_grad_norm=1e9"),
]


class Peer:
    """A run as `ntil train` would do it, and its parts for somebody else's trainer."""

    def __init__(self, loss: str, accumulation: int, ranks: int = 1) -> None:
        words = [*TINY_RUN, *TINY_TEXT, f"loss={loss}", "engine=local", "engine.device=cpu", f"optim.steps={STEPS}"]
        self.config = compose([*words, f"optim.batch_size={BATCH}", f"engine.accumulation={accumulation}"])
        self.components = Components.build(self.config)
        self.loss = self.components.loss
        self.rows = self.components.task.rows("train")
        self.accumulation, self.micro = accumulation, BATCH // accumulation // ranks

    def model(self) -> Any:
        torch.manual_seed(0)
        return self.components.family.load()

    def arguments(self, folder: Path) -> Any:
        return training_arguments(self.config, folder)

    def trained(self, folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
        """The log and the weights of our own trainer."""
        trainer = build_trainer(self.config, self.components, self.model(), self.rows, folder)
        trainer.train()
        assert trainer.model is not None
        return [line for line in trainer.state.log_history if "loss" in line], trainer.model.state_dict()

    def ordered(self) -> Any:
        """The rows in the order of our sampler."""
        config = self.config
        sampler = CurriculumSampler(len(self.rows), STEPS, BATCH, config.seed, config.curriculum)
        return self.rows.select(list(sampler))

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return with_labels(self.components, rows)

    def steps(self) -> Iterator[list[dict[str, Any]]]:
        """The micro-batches of each step."""
        rows, size = self.ordered(), self.micro
        for step in range(STEPS):
            starts = range(step * BATCH, (step + 1) * BATCH, size)
            yield [self.collate([rows[i] for i in range(start, start + size)]) for start in starts]


@cache
def peer(loss: str, accumulation: int) -> Peer:
    return Peer(loss, accumulation)


@cache
def ours(loss: str, accumulation: int, folder: Path) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """Log and weights of `ntil train`; once for all peers of a module."""
    return peer(loss, accumulation).trained(folder)


def train_as_rank(rank: int, ranks: int, port: int, loss: str, accumulation: int, folder: Path) -> None:
    """In a process of its own: Hugging Face's Trainer, then accelerate's loop, as one of several ranks."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    p = Peer(loss, accumulation, ranks)
    arguments = p.arguments(folder)
    arguments.train_sampling_strategy = "sequential"
    rows = p.ordered()
    trainer = Trainer(model=p.model(), args=arguments, train_dataset=rows, data_collator=p.collate)
    use_loss(trainer, p.loss)
    trainer.train()
    logged = {"trainer": [line for line in trainer.state.log_history if "loss" in line]}
    accelerator = Accelerator(cpu=True)
    model = p.model()
    loader = DataLoader(rows, batch_size=p.micro, collate_fn=p.collate)
    prepared = accelerator.prepare(model, torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0), loader)
    steps = NumberSteps(accelerator, prepared[0], p.loss)
    logged["loop"] = []
    for micro_batches in steps.batches(prepared[2], accumulation):
        logged["loop"].append({name: value.item() for name, value in steps(micro_batches).items()})
        prepared[1].step()
        prepared[1].zero_grad()
    (folder / f"{loss}-rank{rank}.json").write_text(json.dumps(logged))
    dist.destroy_process_group()
