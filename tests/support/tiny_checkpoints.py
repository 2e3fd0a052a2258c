"""Tiny checkpoints, one of each family and session, and a task of any prompt and answer."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from benchmarks import vision_checkpoints
from tasks.base import ParseFailure, Task


class Ask(Task):
    """Rows say their own prompt and answer."""

    metric = "exact"

    def rows(self, split):
        raise NotImplementedError

    def prompt(self, row):
        return row["prompt"]

    def answer(self, row):
        return row["answer"]

    def parse(self, text, row):
        return text or ParseFailure("nothing")

    def score(self, prediction, row):
        return {"exact": float(prediction == row["answer"])}


def ask(answers, size=(56, 56)):
    """One row per answer, prompts of different lengths, pictures of different colours."""
    return [
        {
            "id": i,
            "prompt": f"Which number is {'really ' * i}meant here?",
            "answer": answer,
            "image": Image.new("RGB", size, (40 * i % 256, 255 - 50 * i % 256, 90)),
        }
        for i, answer in enumerate(answers)
    ]


class Checkpoint(NamedTuple):
    config: str
    folder: Path


_WRITTEN: dict[str, Checkpoint] = {}


def written(config: str, shared: Path, tmp_path_factory) -> Checkpoint:
    if config not in _WRITTEN:
        folder = vision_checkpoints.write(config, shared, tmp_path_factory.mktemp(config))
        _WRITTEN[config] = Checkpoint(config, folder)
    return _WRITTEN[config]


def words(checkpoint: Checkpoint, *more: str) -> list[str]:
    return [f"model={checkpoint.config}", f"model.checkpoint={checkpoint.folder}", "model.dtype=float32", *more]
