"""Components of a run, built from its configuration: family, task, vocabulary, loss, collator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import torch
from torch.nn.utils.rnn import pad_sequence

from data.common.counts import counted
from data.common.errors import UserError
from ntil.collator import Collator
from ntil.config.build import build, check_component, locate
from ntil.config.errors import ConfigError
from ntil.config.schema import Component, RunConfig
from ntil.losses import NumberLoss
from ntil.losses.step import IGNORE
from ntil.models.base import Family, OwnPrompt
from ntil.models.quantization import quantization_of
from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import NumberVocab
from ntil.packing.refusals import check_family
from tasks.answers.coordinates import Frame, Size, coordinate_format
from tasks.base import Row, Task


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
        family: Family = build("model", _asked_its_own_way(config))
        family.quantization = quantization_of(config.tuning, family)
        if config.packing.shares_tokens:
            check_family(family)
        task = build_task(config, family)
        vocab = _vocab_of(family, task)
        loss: NumberLoss = build("loss", config.loss, vocab=vocab)
        check_reading(type(loss), task)
        check_answering(type(loss), config)
        reader = loss.read if loss.reads_numbers else None
        parts = (family, task, vocab, loss.number_style, config.max_length)
        collator = Collator(*parts, shapes=loss.needs_shapes, reader=reader)
        return cls(family, task, vocab, loss, collator)

    @cached_property
    def members(self) -> dict[str, Components]:
        """Components for each task of a mixture, by name; of a single task these, under an empty name."""
        if not self.task.members:
            return {"": self}
        return {
            name: replace(self, task=task, collator=self.collator.for_task(task))
            for name, task in self.task.members.items()
        }

    def coverage(self, rows: list[Row]) -> float:
        """Share of the supervised tokens that the loss sees as digits.

        Raises:
            ConfigError: none is, and the loss needs numbers, or it needs boxes and the answers have none: it would
                silently be plain cross-entropy.
        """
        if self.loss.on_shapes_alone and not self._has_shapes(rows):
            raise ConfigError(
                f"the loss is on boxes, and the answers of {counted(len(rows), 'row')} have none (first: "
                f"{self.task.answer(rows[0])!r}); choose a task of boxes, or a loss on numbers"
            )
        answers = [torch.tensor(self._answer_ids(row)) for row in rows]
        labels = pad_sequence(answers, batch_first=True, padding_value=IGNORE)
        keep = (labels != IGNORE).reshape(-1)
        for i, (row, answer_ids) in enumerate(zip(rows, answers, strict=True)):
            labels[i, self.collator.unmeasured(self.task.answer(row), row, answer_ids.tolist())] = IGNORE
        spans = NumberSpans.find(labels, self.vocab, self.loss.number_style).select(keep)
        share = spans.is_digit.float().mean().item()
        if share == 0 and self.loss.needs_numbers:
            answer = self.task.answer(rows[0])
            raise ConfigError(
                f"the loss sees no number in the answers of {counted(len(rows), 'row')} (first: {answer!r} as tokens "
                f"{self.family.tokenizer.convert_ids_to_tokens(answers[0][:12].tolist())})"
            )
        return share

    def remarks(self, rows: list[Row]) -> list[str]:
        """What is worth a warning before a training: parts of the loss that see nothing in these answers."""
        if not self.loss.needs_shapes or self.loss.on_shapes_alone or self._has_shapes(rows):
            return []
        return [
            f"the answers of {counted(len(rows), 'row')} have no boxes (first: {self.task.answer(rows[0])!r}), so the "
            "parts of the loss that are on boxes add nothing"
        ]

    def _has_shapes(self, rows: list[Row]) -> bool:
        return any(self.task.shapes(self.task.answer(row), row) for row in rows)

    def longest_answer(self, rows: Iterable[Row]) -> int:
        """Tokens of the longest answer of the rows, its end included; at most the task's limit, also without rows.

        Raises:
            ConfigError: an answer that the family can't encode.
        """
        lengths = (len(self._answer_ids(row)) for row in rows)
        return min(max(lengths, default=self.task.max_new_tokens), self.task.max_new_tokens)

    def _answer_ids(self, row: Row) -> list[int]:
        prompt, answer = self.task.prompt(row), self.task.answer(row)
        try:
            return self.family.answer_ids(prompt, answer, row.get("image") is not None)
        except ValueError as error:
            raise ConfigError(f"row {row['id']}: {error}") from error


def check_reading(loss: type[NumberLoss], task: Task) -> None:
    """Check that a loss whose answers are read has a task whose answers can be written from numbers.

    Raises:
        ConfigError: the count of its answers' numbers isn't fixed.
    """
    if loss.reads_numbers and task.number_count is None:
        raise ConfigError(
            f"{loss.__name__} reads a fixed count of numbers, and answers of {type(task).__name__} have none; choose a "
            "task such as clock, grounding_nano or arithmetic, or a loss on tokens"
        )


def check_answering(loss: type[NumberLoss], config: RunConfig) -> None:
    """Check that nothing is asked of generation where answers are read.

    Raises:
        ConfigError: settings of generation, decodings, or a server.
    """
    evaluation = config.evaluation
    if loss.reads_numbers and (not evaluation.generation.usual or evaluation.decoding or evaluation.backend):
        raise ConfigError(
            f"loss={config.loss.name}: its answers are read, not generated, so evaluation.generation, "
            "evaluation.decoding and evaluation.backend have no part in them; leave these out"
        )


def build_task(config: RunConfig, family: Family | None = None) -> Task:
    """Build the task alone, with the coordinate format and the image frame of its model family.

    Args:
        family: the built family; None takes both from its class and config, without reading a checkpoint.

    Raises:
        UserError: see `Components.build`.
    """
    if members := config.members:
        check_component("task", config.task)
        tasks = {name: _built_member(name, one, family) for name, one in members.items()}
        return cast(Task, build("task", config.task, tasks=tasks))
    name, frame = (family.coords, family.frame) if family else _written_by(config)
    prompt = _own_prompt(config)
    own_question = prompt.question if prompt else None
    resized = family.resized if family else _ResizedByModel(config.model)
    coords = coordinate_format(name).within(frame, resized)
    task: Task = build("task", config.task, coords=coords, own_question=own_question)
    return task


def _built_member(name: str, config: RunConfig, family: Family | None) -> Task:
    try:
        return build_task(config, family)
    except UserError as error:
        raise ConfigError(f"task.tasks.{name}: {error}") from error


def _vocab_of(family: Family, task: Task) -> NumberVocab:
    """The digits of the task's answers, which those of all tasks of a mixture must share.

    Raises:
        ConfigError: the family writes coordinates with tokens of their own, and only some tasks have coordinates.
    """
    vocab = family.number_vocab(task.coordinates)
    for name, member in task.members.items():
        if family.number_vocab(member.coordinates).digit_ids != vocab.digit_ids:
            raise ConfigError(
                f"task.tasks.{name}: {type(family).__name__} writes coordinates with tokens of their own and other "
                "numbers with digits, and a loss knows one kind; mix tasks of one kind, or take another model"
            )
    return vocab


@dataclass
class _ResizedByModel:
    """The sizes to which a model's processor scales pictures; the processor is read when one is asked for."""

    model: Component
    family: Family | None = None

    def __call__(self, size: Size) -> Size:
        if self.family is None:
            self.family = build("model", self.model)
        assert self.family is not None
        return self.family.resized(size)


def _own_prompt(config: RunConfig) -> OwnPrompt | None:
    """How the config's family was taught to be asked for what the task is about."""
    family, subject = locate(config.model.target, "model"), getattr(locate(config.task.target, "task"), "subject", None)
    return family.own_prompts.get(subject) if subject else None


def _asked_its_own_way(config: RunConfig) -> Component:
    """The model, with the options that its own prompt needs where the task takes that one."""
    options = config.model.options
    for one in config.members.values() or [config]:
        prompt = _own_prompt(one)
        if prompt is not None and one.task.options.get("question_style") == "family":
            options = {**options, **prompt.options}
    return replace(config.model, options=options)


def _written_by(config: RunConfig) -> tuple[str, Callable[[Size], Frame]]:
    """Coordinate format and frame of the config's family, from its class and options; no checkpoint is read."""
    kind: type[Family] = locate(config.model.target, "model")
    default = inspect.signature(kind).parameters.get("coords")
    name = config.model.options.get("coords") or (default.default if default else kind.coords)
    return name, kind.frame
