"""Components of a run, built from its configuration: family, task, vocabulary, loss, collator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
from datasets import Dataset
from torch.nn.utils.rnn import pad_sequence

from data.common.counts import counted
from data.common.rows import image_columns
from ntil.collator import Collator
from ntil.config.build import build, locate
from ntil.config.errors import ConfigError
from ntil.config.schema import RunConfig
from ntil.losses import NumberLoss
from ntil.losses.base import IGNORE
from ntil.models.base import Family
from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import NumberVocab
from tasks.answers.coordinates import Frame, Size, coordinate_format
from tasks.base import Row, Task

LONGEST = 4  # rows of a split that are encoded to check `max_length`


@dataclass(frozen=True)
class Components:
    """All components of a run except the weights of its model."""

    family: Family
    task: Task
    vocab: NumberVocab
    loss: NumberLoss
    collator: Collator

    @classmethod
    def build(cls, config: RunConfig) -> Components:
        """Build all components of a run.

        Raises:
            UserError: what the config describes can't be built; the message names the key.
        """
        family: Family = build("model", config.model)
        task = build_task(config, family)
        vocab = family.number_vocab(task.coordinates)
        loss: NumberLoss = build("loss", config.loss, vocab=vocab)
        return cls(family, task, vocab, loss, Collator(family, task, vocab, loss.number_style, config.max_length))

    def coverage(self, rows: list[Row]) -> float:
        """Share of the supervised tokens that the loss sees as digits.

        Raises:
            ConfigError: none is, and the loss needs numbers: it would silently be plain cross-entropy.
        """
        answers = [torch.tensor(self._answer_ids(row)) for row in rows]
        labels = pad_sequence(answers, batch_first=True, padding_value=IGNORE)
        spans = NumberSpans.find(labels, self.vocab, self.loss.number_style).select((labels != IGNORE).reshape(-1))
        share = spans.is_digit.float().mean().item()
        if share == 0 and self.loss.needs_numbers:
            answer = self.task.answer(rows[0])
            raise ConfigError(
                f"the loss sees no number in the answers of {counted(len(rows), 'row')} (first: {answer!r} as tokens "
                f"{self.family.tokenizer.convert_ids_to_tokens(answers[0][:12].tolist())})"
            )
        return share

    def check_longest(self, rows: Dataset) -> None:
        """Check the `LONGEST` rows with the longest texts against `max_length`, before all others are encoded.

        Raises:
            ConfigError: one is longer.
        """
        texts = rows.remove_columns(image_columns(rows))
        lengths = [len(self.task.prompt(row)) + len(self.task.answer(row)) for row in texts]
        for index in sorted(range(len(rows)), key=lengths.__getitem__)[-LONGEST:]:
            self.collator.encode(rows[index], self.task.answer(rows[index]))

    def check_lengths(self, split: str, rows: list[Row], remedy: str = "set task.max_new_tokens") -> None:
        """Check that generation can write the answers that are taught and scored.

        Raises:
            ConfigError: an answer is longer than `max_new_tokens`, so no model could give it; names the longest one.
        """
        longest, row = max(((len(self._answer_ids(row)), row) for row in rows), key=lambda pair: pair[0])
        if longest > self.task.max_new_tokens:
            raise ConfigError(
                f"{split}, row {row['id']}: the answer has {counted(longest, 'token')} with its end and "
                f"generation stops after {self.task.max_new_tokens}, so no model could give it; "
                f"{remedy}={longest} or more (this is the longest of {counted(len(rows), 'row')} looked at)"
            )

    def _answer_ids(self, row: Row) -> list[int]:
        prompt, answer = self.task.prompt(row), self.task.answer(row)
        try:
            return self.family.answer_ids(prompt, answer, row.get("image") is not None)
        except ValueError as error:
            raise ConfigError(f"row {row['id']}: {error}") from error


def build_task(config: RunConfig, family: Family | None = None) -> Task:
    """Build the task alone, with the coordinate format and the image frame of its model family.

    Args:
        family: the built family; None takes both from its class and config, without reading a checkpoint.

    Raises:
        UserError: see `Components.build`.
    """
    name, frame = (family.coords, family.frame) if family else _written_by(config)
    task: Task = build("task", config.task, coords=coordinate_format(name).within(frame))
    return task


def _written_by(config: RunConfig) -> tuple[str, Callable[[Size], Frame]]:
    """Coordinate format and frame of the config's family, from its class and options; no checkpoint is read."""
    kind: type[Family] = locate(config.model.target, "model")
    default = inspect.signature(kind).parameters.get("coords")
    name = config.model.options.get("coords") or (default.default if default else kind.coords)
    return name, kind.frame
