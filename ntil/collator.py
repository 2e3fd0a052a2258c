"""Collator: rows of a task to padded batches for a model family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from data.common.rows import Row
from ntil.config.errors import ConfigError
from ntil.config.schema import RunSettings
from ntil.losses.step import IGNORE
from ntil.models.base import Encoded, Family
from ntil.numbers.measured import unmeasured
from ntil.numbers.shapes import TokenBox, token_boxes, with_shapes
from ntil.numbers.spans import NumberSpans, NumberStyle
from ntil.numbers.vocab import NumberVocab
from tasks.base import Task

Reader = Callable[[Tensor], Tensor]
BLANK = (56, 56)  # pixels of a picture that shows nothing; no family refuses it


@dataclass(frozen=True)
class Layout:
    """How the examples of a micro-batch lie in the tensors that the model gets.

    Attributes:
        inputs: the model's, by name.
        prompt_ends: [rows] index of the last prompt token of each example in the flattened [B * T] hidden states, which
            predicts the first token of its answer; the states after it predict the others.
        tokens: how many there are, without padding.
    """

    inputs: dict[str, Tensor]
    prompt_ends: Tensor
    tokens: int


class Collator:
    """Rows to a training batch: right padding, supervised positions, targets and number spans.

    The batch holds the model's inputs, and besides them `positions` [N] (indices into the flattened [B * T] hidden
    states whose next token is supervised), `targets` [N], `spans` (of these positions), `samples` (how many rows),
    `tokens` (how many, without padding), `unmeasured` (indices of targets whose digits are no numbers to be measured,
    see `Task.number_ranges`), `digits`, `numbers` and `boxes` (how many in the targets; counted on the CPU, which
    saves a synchronisation with the GPU), `ids` (of the rows), and in a mixture `tasks` (names of the rows' tasks) and
    `task_counts`.

    Args:
        shapes: spans say which numbers form a box (`Task.shapes`).
        reader: reads the numbers of answers from the logits at the ends of prompts, see `NumberLoss.read`; None:
            answers are generated.
        max_length: longest prompt with answer, in tokens; a longer one is an error, never cut.
    """

    def __init__(
        self,
        family: Family,
        task: Task,
        vocab: NumberVocab | None,
        style: NumberStyle,
        max_length: int = RunSettings.max_length,
        *,
        shapes: bool = False,
        reader: Reader | None = None,
    ) -> None:
        self.shapes, self.reader = shapes, reader
        self.family, self.task, self.vocab, self.style, self.max_length = family, task, vocab, style, max_length

    def for_task(self, task: Task) -> Collator:
        """The same for another task."""
        parts = (self.family, task, self.vocab, self.style, self.max_length)
        return Collator(*parts, shapes=self.shapes, reader=self.reader)

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        texts = [self.task.answer(row) for row in rows]
        encoded = self.encode_all(rows, texts)
        answers = torch.full((len(rows), max(len(e.answer_ids) for e in encoded)), IGNORE, dtype=torch.long)
        for i, e in enumerate(encoded):
            answers[i, : len(e.answer_ids)] = torch.tensor(e.answer_ids)
        keep = answers != IGNORE
        layout = self._layout_with_picture(encoded)
        before = layout.prompt_ends[:, None] + torch.arange(answers.shape[1])
        hidden = torch.zeros_like(keep)
        for i, (row, text, e) in enumerate(zip(rows, texts, encoded, strict=True)):
            hidden[i, self.unmeasured(text, row, e.answer_ids)] = True
        spans = None
        if self.vocab is not None:
            labels = answers.masked_fill(hidden, IGNORE)
            spans = NumberSpans.find(labels, self.vocab, self.style).select(keep.reshape(-1))
            spans = with_shapes(spans, self.boxes(rows, texts, encoded)) if self.shapes else spans
        return {
            **layout.inputs,
            "positions": before[keep],
            "targets": answers[keep],
            "spans": spans,
            "unmeasured": hidden[keep].nonzero()[:, 0].tolist(),
            "samples": len(rows),
            "tokens": layout.tokens,
            "digits": 0 if spans is None else int(spans.is_digit.sum()),
            "numbers": 0 if spans is None else int(spans.is_number.sum()),
            "boxes": 0 if spans is None else len(spans.shape),
            "ids": [str(row["id"]) for row in rows],
            **self._of_tasks([self.task.member_of(row) for row in rows], keep, spans),
        }

    def _layout_with_picture(self, encoded: Sequence[Encoded]) -> Layout:
        """The layout of a micro-batch, in a mixture of tasks with and without pictures one that has a picture.

        Ranks wait for each other's gradients of the vision part, so none may be without it: a blank picture is added,
        in whose row nothing is supervised.
        """
        if not self.task.mixes_pictures or self.family.image_token is None or any(e.features for e in encoded):
            return self.layout(encoded)
        blank = self.family.encode("-", None, Image.new("RGB", BLANK))
        layout = self.layout([*encoded, blank])
        return replace(layout, prompt_ends=layout.prompt_ends[:-1])

    def _of_tasks(self, tasks: list[str], keep: Tensor, spans: NumberSpans | None) -> dict[str, Any]:
        """Of a mixture, the rows' tasks and their counts: supervised tokens, rows, digits, numbers, boxes."""
        if not self.task.members or spans is None:
            return {}
        samples = (spans.sample[spans.is_digit], spans.number_sample[spans.is_number], spans.shape_sample)
        columns = [keep.sum(1), torch.ones(len(tasks)), *(s.bincount(minlength=len(tasks)) for s in samples)]
        of_rows = torch.stack([column.long() for column in columns], 1).tolist()
        counts: dict[str, list[int]] = {}
        for task, row in zip(tasks, of_rows, strict=True):
            counts[task] = [a + b for a, b in zip(counts.get(task, [0] * len(row)), row, strict=True)]
        return {"tasks": tasks, "task_counts": counts}

    def encode_row(self, row: Row, answer: str | None) -> Encoded:
        """The row as the family encodes it."""
        return self.family.encode(self.task.prompt(row), answer, self.task.picture(row))

    def encode_all(self, rows: Sequence[Row], answers: Sequence[str | None]) -> list[Encoded]:
        """The rows of a micro-batch with their answers, each as in `encode`."""
        return [self.encode(row, answer) for row, answer in zip(rows, answers, strict=True)]

    def layout(self, encoded: Sequence[Encoded]) -> Layout:
        """The model's inputs: a row of the batch for each example, padded on the right."""
        return right_padded(self.family, encoded)

    def prompts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Left-padded inputs for generation."""
        encoded = [self.encode(row, None) for row in rows]
        width = max(len(e.prompt_ids) for e in encoded)
        input_ids = torch.full((len(rows), width), pad_id(self.family), dtype=torch.long)
        attention = torch.zeros_like(input_ids)
        for i, e in enumerate(encoded):
            input_ids[i, width - len(e.prompt_ids) :] = torch.tensor(e.prompt_ids)
            attention[i, width - len(e.prompt_ids) :] = 1
        ends = torch.full((len(rows),), width)
        extra = self.family.extra_inputs(input_ids, attention, ends)
        return {"input_ids": input_ids, "attention_mask": attention, **features_of(encoded), **extra}

    def unmeasured(self, answer: str, row: Row, answer_ids: Sequence[int]) -> list[int]:
        """Indices into the ids of a row's answer whose digits the task doesn't measure."""
        ranges = self.task.number_ranges(answer, row)
        if ranges is None:
            return []
        text = self.family.answer_text(answer)
        start = text.index(answer)
        tokens = self.family.tokenizer.convert_ids_to_tokens(list(answer_ids))
        return unmeasured(tokens, text, [(start + first, start + end) for first, end in ranges])

    def boxes(self, rows: Sequence[Row], answers: Sequence[str], encoded: Sequence[Encoded]) -> list[TokenBox]:
        """Boxes of the rows' answers, by indices of targets."""
        boxes: list[TokenBox] = []
        offset = 0
        for row, answer, e in zip(rows, answers, encoded, strict=True):
            text = self.family.answer_text(answer)
            start = text.index(answer)
            shapes = [box.moved(start) for box in self.task.shapes(answer, row)]
            tokens = self.family.tokenizer.convert_ids_to_tokens(list(e.answer_ids))
            boxes += token_boxes(tokens, text, shapes, offset)
            offset += len(e.answer_ids)
        return boxes

    def encode(self, row: Row, answer: str | None) -> Encoded:
        """Encode one row with the family; where `answer` is None, the prompt alone.

        Raises:
            ConfigError: the family refuses the row, or it is too long; the message names it.
        """
        try:
            encoded = self.encode_row(row, answer)
        except (ValueError, OSError) as error:
            raise ConfigError(f"row {row['id']}: {error}") from error
        length = len(encoded.prompt_ids) + len(encoded.answer_ids)
        if length > self.max_length:
            raise ConfigError(
                f"row {row['id']}: {length} tokens, more than max_length={self.max_length}; "
                f"set max_length={length} or more"
            )
        return encoded


class SharedPictureCollator(Collator):
    """`Collator` that prepares a picture once for all rows which hold the same decoded object.

    `ntil.packing.rows.SharedPictures` gives rows with one picture the same object.
    """

    def __init__(self, collator: Collator) -> None:
        parts = (collator.family, collator.task, collator.vocab, collator.style, collator.max_length)
        super().__init__(*parts, shapes=collator.shapes, reader=collator.reader)
        self._prepared: dict[int, tuple[dict[str, Tensor], str]] = {}

    def encode_all(self, rows: Sequence[Row], answers: Sequence[str | None]) -> list[Encoded]:
        try:
            return super().encode_all(rows, answers)
        finally:
            self._prepared = {}

    def encode_row(self, row: Row, answer: str | None) -> Encoded:
        stored = row.get("image")
        # A task with pictures of its own making may make several of one stored picture.
        if not self.task.shows_stored(row) or not isinstance(stored, Image.Image):
            return super().encode_row(row, answer)
        if id(stored) not in self._prepared:
            picture = self.task.picture(row)
            assert picture is not None
            self._prepared[id(stored)] = self.family.picture(picture)
        return self.family.encode_prepared(self.task.prompt(row), answer, self._prepared[id(stored)])


def right_padded(family: Family, encoded: Sequence[Encoded]) -> Layout:
    """A row of the batch for each example, padded on the right."""
    lengths = [len(e.prompt_ids) + len(e.answer_ids) for e in encoded]
    width = max(lengths)
    input_ids = torch.full((len(encoded), width), pad_id(family), dtype=torch.long)
    attention = torch.zeros_like(input_ids)
    for i, e in enumerate(encoded):
        input_ids[i, : lengths[i]] = torch.tensor(e.prompt_ids + e.answer_ids)
        attention[i, : lengths[i]] = 1
    starts = torch.tensor([len(e.prompt_ids) for e in encoded])
    inputs = {
        "input_ids": input_ids,
        "attention_mask": attention,
        **features_of(encoded),
        **family.extra_inputs(input_ids, attention, starts),
    }
    return Layout(inputs, torch.arange(len(encoded)) * width + starts - 1, sum(lengths))


def common_beginning(prompts: Sequence[list[int]]) -> list[int]:
    """The ids that all prompts begin with."""
    low, high = min(prompts), max(prompts)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def features_of(encoded: Sequence[Encoded]) -> dict[str, Tensor]:
    """Image inputs of several examples, one below the other; an example without a picture has none."""
    names = dict.fromkeys(name for e in encoded for name in e.features)
    return {name: torch.cat([e.features[name] for e in encoded if name in e.features]) for name in names}


def pad_id(family: Family) -> int:
    """Id of the token that padding is made of.

    Raises:
        ConfigError: the tokenizer has none.
    """
    pad = family.tokenizer.pad_token_id
    if not isinstance(pad, int):
        raise ConfigError(f"{type(family).__name__}: the tokenizer has no pad token")
    return pad
