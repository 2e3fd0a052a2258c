"""Probabilities of what follows beginnings of answers: along an answer, and after others of the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ntil.collator import Collator, pad_id
from ntil.evaluation.number_trees import Next, Tokens
from ntil.evaluation.shared_prompts import Layout, Prompt, read_questions
from ntil.evaluation.sharing import refusal
from ntil.models.base import Encoded
from ntil.models.head import SupervisedHead


class Continuations:
    """What a model says of the next token.

    Args:
        rows: of one forward, at most.
    """

    def __init__(self, model: Any, collator: Collator, rows: int) -> None:
        self._model, self._collator, self._rows = model, collator, rows
        self._head = SupervisedHead(model)
        self._shares = refusal(model, collator.family) is None

    def along(self, answered: Sequence[Encoded]) -> list[list[Next]]:
        """For each row what follows its prompt and every token of its answer but the last: one forward for all rows."""
        layout = self._collator.layout(answered)
        lengths = [len(e.answer_ids) for e in answered]
        before = [end + i for end, n in zip(layout.prompt_ends.tolist(), lengths, strict=True) for i in range(n)]
        following = iter(self._read(layout.inputs, before))
        return [[next(following) for _ in range(n)] for n in lengths]

    def after(self, prompts: Sequence[Encoded], beginnings: Sequence[Sequence[Tokens]]) -> list[list[Next]]:
        """For each prompt what follows each of its beginnings, none of them empty.

        Where the model allows it the prompt is computed once for all of its beginnings.
        """
        single = [(prompt, tokens) for prompt, of_row in zip(prompts, beginnings, strict=True) for tokens in of_row]
        if not single:
            return [[] for _ in prompts]
        following = iter(self._after_shared(prompts, beginnings) if self._shares else self._after_each(single))
        return [[next(following) for _ in of_row] for of_row in beginnings]

    def _after_each(self, single: Sequence[tuple[Encoded, Tokens]]) -> list[Next]:
        following: list[Next] = []
        for start in range(0, len(single), self._rows):
            part = single[start : start + self._rows]
            encoded = [Encoded(prompt.prompt_ids, list(tokens), prompt.features) for prompt, tokens in part]
            layout = self._collator.layout(encoded)
            last = [e + len(tokens) for e, (_, tokens) in zip(layout.prompt_ends.tolist(), part, strict=True)]
            following += self._read(layout.inputs, last)
        return following

    def _after_shared(self, prompts: Sequence[Encoded], beginnings: Sequence[Sequence[Tokens]]) -> list[Next]:
        following: list[Next] = []
        group: list[Prompt] = []
        for prompt, of_row in zip(prompts, beginnings, strict=True):
            if group and sum(len(p.questions) for p in group) + len(of_row) > self._rows:
                following += self._read_lanes(group)
                group = []
            if of_row:
                group.append(self._lanes(prompt, of_row))
        return following + (self._read_lanes(group) if group else [])

    def _lanes(self, prompt: Encoded, beginnings: Sequence[Tokens]) -> Prompt:
        ids = prompt.prompt_ids
        position = int(self._collator.family.position_ids(Encoded(ids, [], prompt.features)).max()) + 1
        return Prompt(ids, [list(tokens) for tokens in beginnings], prompt.features, position)

    @torch.no_grad()
    def _read_lanes(self, group: Sequence[Prompt]) -> list[Next]:
        family, vocab = self._collator.family, self._collator.vocab
        assert vocab is not None
        layout = Layout.of(group, 0, pad_id(family), self._model.device)
        _, logits = read_questions(self._model, family, group, layout)
        return Next.of(logits[layout.used], vocab)

    @torch.no_grad()
    def _read(self, inputs: dict[str, torch.Tensor], positions: Sequence[int]) -> list[Next]:
        vocab, device = self._collator.vocab, self._model.device
        assert vocab is not None
        on_device = {name: value.to(device) for name, value in inputs.items()}
        return Next.of(self._head.logits(self._model, on_device, torch.tensor(positions, device=device)), vocab)
