"""From rows of a task to a padded batch: the only place that knows both a task and a model family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntil.config import RunConfig
from ntil.losses.base import IGNORE
from ntil.models.base import Encoded, Family
from ntil.numbers import NumberSpans, NumberStyle, NumberVocab
from tasks.base import Row, Task


class Collator:
    """Rows to a training batch: right padding, supervised positions, targets and number spans.

    The batch holds the model's inputs, and beside them `positions` [N] (indices into the flattened [B * T] hidden
    states whose next token is supervised), `targets` [N], `spans` (of these positions), `samples` (how many rows),
    `tokens` (how many, without padding) and `ids` (of the rows).

    Args:
        max_length: longest prompt with answer, in tokens; a longer one is an error, never cut.
    """

    def __init__(
        self,
        family: Family,
        task: Task,
        vocab: NumberVocab | None,
        style: NumberStyle,
        max_length: int = RunConfig.max_length,
    ) -> None:
        self.family, self.task, self.vocab, self.style, self.max_length = family, task, vocab, style, max_length

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        encoded = [self.encode(row, self.task.answer(row)) for row in rows]
        lengths = [len(e.prompt_ids) + len(e.answer_ids) for e in encoded]
        width = max(lengths)
        input_ids = torch.full((len(rows), width), _pad(self.family), dtype=torch.long)
        attention = torch.zeros_like(input_ids)
        answers = torch.full((len(rows), max(len(e.answer_ids) for e in encoded)), IGNORE, dtype=torch.long)
        for i, e in enumerate(encoded):
            input_ids[i, : lengths[i]] = torch.tensor(e.prompt_ids + e.answer_ids)
            attention[i, : lengths[i]] = 1
            answers[i, : len(e.answer_ids)] = torch.tensor(e.answer_ids)
        starts = torch.tensor([len(e.prompt_ids) for e in encoded])
        keep = answers != IGNORE
        # The hidden state one before a token predicts it.
        before = torch.arange(len(rows))[:, None] * width + starts[:, None] + torch.arange(answers.shape[1]) - 1
        spans = None
        if self.vocab is not None:
            spans = NumberSpans.find(answers, self.vocab, self.style).select(keep.reshape(-1))
        return {
            "input_ids": input_ids,
            "attention_mask": attention,
            **self._features(encoded),
            **self.family.extra_inputs(input_ids, attention, starts),
            "positions": before[keep],
            "targets": answers[keep],
            "spans": spans,
            "samples": len(rows),
            "tokens": sum(lengths),
            "ids": [str(row["id"]) for row in rows],
        }

    def prompts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Left-padded inputs for generation."""
        encoded = [self.encode(row, None) for row in rows]
        width = max(len(e.prompt_ids) for e in encoded)
        input_ids = torch.full((len(rows), width), _pad(self.family), dtype=torch.long)
        attention = torch.zeros_like(input_ids)
        for i, e in enumerate(encoded):
            input_ids[i, width - len(e.prompt_ids) :] = torch.tensor(e.prompt_ids)
            attention[i, width - len(e.prompt_ids) :] = 1
        ends = torch.full((len(rows),), width)
        extra = self.family.extra_inputs(input_ids, attention, ends)
        return {"input_ids": input_ids, "attention_mask": attention, **self._features(encoded), **extra}

    def encode(self, row: Row, answer: str | None) -> Encoded:
        try:
            encoded = self.family.encode(self.task.prompt(row), answer, self.task.picture(row))
        except (ValueError, OSError) as error:
            raise ValueError(f"row {row['id']}: {error}") from error
        length = len(encoded.prompt_ids) + len(encoded.answer_ids)
        if length > self.max_length:
            raise ValueError(
                f"row {row['id']}: {length} tokens, more than max_length={self.max_length}; "
                f"set max_length={length} or more"
            )
        return encoded

    def _features(self, encoded: list[Encoded]) -> dict[str, Tensor]:
        names = encoded[0].features
        return {name: torch.cat([e.features[name] for e in encoded]) for name in names}


def _pad(family: Family) -> int:
    pad = family.tokenizer.pad_token_id
    if not isinstance(pad, int):
        raise ValueError(f"{type(family).__name__}: the tokenizer has no pad token")
    return pad
