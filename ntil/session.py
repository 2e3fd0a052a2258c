"""The parts of a run, built from its plain config: family, task, vocabulary, loss, collator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from ntil.collate import Collator
from ntil.config import ConfigError, RunConfig, build
from ntil.losses import NumberLoss
from ntil.losses.base import IGNORE
from ntil.models.base import Family
from ntil.numbers import NumberSpans, NumberVocab
from ntil.spread import pictures
from ntil.tuning import is_saved, load_saved
from tasks import coords
from tasks.base import Row, Task

LONGEST = 4  # rows of a split that are encoded to see whether all fit


@dataclass(frozen=True)
class Session:
    family: Family
    task: Task
    vocab: NumberVocab
    loss: NumberLoss
    collator: Collator

    @classmethod
    def build(cls, config: dict[str, Any]) -> Session:
        """
        Raises:
            ConfigError, ValueError: what the config describes can't be built; the message names the key.
        """
        family: Family = build("model", config["model"])
        task = task_of(config, family)
        vocab = family.number_vocab(task.coordinates)
        loss: NumberLoss = build("loss", config["loss"], vocab=vocab)
        longest = config.get("max_length", RunConfig.max_length)  # configs frozen before it was a key lack it
        return cls(family, task, vocab, loss, Collator(family, task, vocab, loss.number_style, longest))

    def coverage(self, rows: list[Row]) -> float:
        """Share of the supervised tokens that the loss sees as digits.

        Raises:
            ConfigError: none at all, with a loss on numbers: it would be plain cross-entropy without saying so.
        """
        answers = [torch.tensor(self._answer_ids(row)) for row in rows]
        labels = pad_sequence(answers, batch_first=True, padding_value=IGNORE)
        spans = NumberSpans.find(labels, self.vocab, self.loss.number_style).select((labels != IGNORE).reshape(-1))
        share = spans.is_digit.float().mean().item()
        if share == 0 and self.loss.on_numbers:
            answer = self.task.answer(rows[0])
            raise ConfigError(
                f"the loss sees no number in the answers of {len(rows)} rows (first: {answer!r} as tokens "
                f"{self.family.tokenizer.convert_ids_to_tokens(answers[0][:12].tolist())})"
            )
        return share

    def check_longest(self, rows: Dataset) -> None:
        """Have the few longest rows, by their text, pass `max_length`: a split is met row by row only in its turn.

        Raises:
            ValueError: one is longer.
        """
        texts = rows.remove_columns(pictures(rows))
        lengths = [len(self.task.prompt(row)) + len(self.task.answer(row)) for row in texts]
        for index in sorted(range(len(rows)), key=lengths.__getitem__)[-LONGEST:]:
            self.collator.encode(rows[index], self.task.answer(rows[index]))

    def check_lengths(self, split: str, rows: list[Row], remedy: str = "set task.max_new_tokens") -> None:
        """See that generation can write the answers that are taught and scored.

        Raises:
            ConfigError: it can't, so the metrics would be the worst whatever is learnt; the message names the longest.
        """
        longest, row = max(((len(self._answer_ids(row)), row) for row in rows), key=lambda found: found[0])
        if longest > self.task.max_new_tokens:
            raise ConfigError(
                f"{split}, row {row['id']}: the answer has {longest} tokens with its end and generation stops after "
                f"{self.task.max_new_tokens}, so no model could give it; {remedy}={longest} or more (this is the "
                f"longest of {len(rows)} rows looked at)"
            )

    def _answer_ids(self, row: Row) -> list[int]:
        prompt, answer = self.task.prompt(row), self.task.answer(row)
        try:
            return self.family.answer_ids(prompt, answer, row.get("image") is not None)
        except ValueError as error:
            raise ValueError(f"row {row['id']}: {error}") from error


def task_of(config: dict[str, Any], family: Family | None = None) -> Task:
    """The task alone; boxes are written as the family was pre-trained to write them, in the frame that it sees.

    Raises:
        ConfigError, ValueError: as `Session.build`.
    """
    family = family or build("model", config["model"])
    return build("task", config["task"], coords=coords.format(family.coords).within(family.frame))


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def saved_model(session: Session, folder: Path) -> Any:
    """
    Raises:
        ConfigError: the run has saved no model.
    """
    if not is_saved(folder):
        raise ConfigError(f"{folder} holds no model; finish the run first")
    return load_saved(session.family, folder)
