"""Greedy answers to prompts that begin alike, with the beginning computed once.

A beginning's keys and values are one row of a key-value cache. Its questions stand side by side in that row, each in a
lane of its own, and a mask lets a token see the beginning and its own lane. Nothing is copied for each question, and
the answers are those of the rows one by one, up to the order in which floats are added:

    row of the cache    beginning | question 1 | question 2 | answers' 1st tokens | 2nd tokens | ...
    seen by question 2  xxxxxxxxx |            | xxxx       |  x                  |  x

Where the questions are long beside the beginning, a lane would look through too many tokens of others: then they
are spread over several rows, each with a copy of the beginning, down to one lane a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from data.common.rows import Row
from ntil.collator import Collator, SharedPictureCollator, common_beginning, pad_id, right_padded
from ntil.distributed.zero3 import any_partitioned
from ntil.models.base import Encoded, Family, unwrapped
from ntil.packing.masks import added_mask

LANES = 16  # ours, at most


@dataclass(frozen=True)
class Prompt:
    """A beginning and the questions that follow it.

    Attributes:
        beginning: ids that all have in common, picture included; at least one more follows in every question.
        features: inputs of its picture; empty without one.
        position: of every question's first token.
    """

    beginning: list[int]
    questions: list[list[int]]
    features: dict[str, Tensor]
    position: int

    @classmethod
    def of(cls, collator: Collator, rows: Sequence[Row]) -> Prompt:
        encoded = SharedPictureCollator(collator).encode_all(rows, [None] * len(rows))
        prompts, features = [e.prompt_ids for e in encoded], encoded[0].features
        length = min(len(common_beginning(prompts)), min(map(len, prompts)) - 1)
        beginning = prompts[0][:length]
        position = int(collator.family.position_ids(Encoded(beginning, [], features)).max()) + 1
        return cls(beginning, [ids[length:] for ids in prompts], features, position)

    def spread(self, answer_tokens: int) -> list[range]:
        """Which questions share a row of the cache: lanes together are about as long as the beginning, or one."""
        longest = max(map(len, self.questions)) + answer_tokens
        count = len(self.questions)
        lanes = max(1, min(LANES, count, -(-len(self.beginning) // longest)))
        rows = -(-count // lanes)
        return [range(count * i // rows, count * (i + 1) // rows) for i in range(rows)]


@dataclass(frozen=True)
class Layout:
    """Where questions stand. N rows of the cache with L lanes of Q tokens each, questions at the end of their lanes.

    Attributes:
        prompt: which prompt's beginning a row has [N].
        ids, positions: of the questions [N, L * Q].
        visible: what their tokens see, of the beginning and the questions [N, L * Q, B + L * Q].
        used: which lanes hold a question [N, L].
        last: index of each lane's last token [L].
    """

    prompt: Tensor
    ids: Tensor
    positions: Tensor
    visible: Tensor
    used: Tensor
    last: Tensor

    @classmethod
    def of(cls, prompts: Sequence[Prompt], answer_tokens: int, pad: int, device: torch.device) -> Layout:
        rows = [(p, span) for p, prompt in enumerate(prompts) for span in prompt.spread(answer_tokens)]
        lanes = max(len(span) for _, span in rows)
        width = max(len(question) for prompt in prompts for question in prompt.questions)
        ids = torch.full((len(rows), lanes, width), pad)
        real = torch.zeros_like(ids, dtype=torch.bool)
        for n, (p, span) in enumerate(rows):
            for lane, question in enumerate(prompts[p].questions[span.start : span.stop]):
                ids[n, lane, width - len(question) :] = torch.tensor(question)
                real[n, lane, width - len(question) :] = True
        prompt = torch.tensor([p for p, _ in rows])
        starts = torch.tensor([p.position for p in prompts])[prompt]
        positions = starts[:, None, None] + (real.cumsum(-1) - 1).clamp(min=0)
        visible = _visible(torch.tensor([len(p.beginning) for p in prompts])[prompt], real)
        last = torch.arange(1, lanes + 1) * width - 1
        tensors = prompt, ids.flatten(1), positions.flatten(1), visible, real[..., -1], last
        return cls(*(tensor.to(device) for tensor in tensors))


def _visible(beginnings: Tensor, real: Tensor) -> Tensor:
    """What questions see: their beginning [N] and, in their lane, what is no padding (`real` [N, L, Q]) and not later.

    Padding sees the beginning as well: where a token sees nothing, softmax gives NaN.
    """
    rows, lanes, width = real.shape
    of_beginning = torch.arange(int(beginnings.max())) < beginnings[:, None]
    earlier = torch.ones(width, width, dtype=torch.bool).tril()
    own_lane = torch.eye(lanes, dtype=torch.bool)
    of_lane = own_lane[:, None, :, None] & earlier[None, :, None, :] & real[:, None, None]
    size = lanes * width
    return torch.cat([of_beginning[:, None].expand(rows, size, -1), of_lane.reshape(rows, size, size)], -1)


@torch.no_grad()
def generate_shared(
    model: Any, collator: Collator, groups: Sequence[Sequence[Row]], max_new_tokens: int | None = None
) -> list[str]:
    """Greedy answers of rows, in the order of groups whose prompts begin alike; as `ntil.evaluation.generate.generate`.

    `max_new_tokens`: where an answer without an end is cut; None: the task's.
    """
    family = collator.family
    prompts = [Prompt.of(collator, rows) for rows in groups]
    most = max_new_tokens or collator.task.max_new_tokens
    return [family.decode(ids) for ids in answers(model, family, prompts, most)]


@torch.no_grad()
def answers(model: Any, family: Family, prompts: Sequence[Prompt], max_new_tokens: int) -> list[list[int]]:
    """Ids of the answers to all questions, in order, perhaps with others after the end token."""
    layout = Layout.of(prompts, max_new_tokens, pad_id(family), model.device)
    cache, logits = read_questions(model, family, prompts, layout, max_new_tokens)
    lanes = layout.used.shape[1]
    itself = torch.eye(lanes, dtype=torch.bool, device=model.device).expand(len(layout.ids), -1, -1)
    visible, positions = layout.visible[:, layout.last], layout.positions[:, layout.last]
    finished = ~layout.used
    written: list[Tensor] = []
    together, least = any_partitioned(model), unwrapped(model).generation_config.min_new_tokens or 0
    while True:
        scores = logits.float()
        if len(written) < least:  # a rehearsal's answers are as long as they may be
            scores[..., family.end_id] = -torch.inf
        token = scores.argmax(-1).masked_fill(finished, pad_id(family))
        written.append(token)
        finished = finished | (token == family.end_id)
        if len(written) == max_new_tokens or not _any_goes_on(finished, together):
            break
        visible, positions = torch.cat([visible, itself], -1), positions + 1
        logits = _forward(model, token, positions, visible, cache).logits
    return torch.stack(written, -1)[layout.used].tolist()


def read_questions(
    model: Any, family: Family, prompts: Sequence[Prompt], layout: Layout, max_new_tokens: int = 1
) -> tuple[DynamicCache, Tensor]:
    """The cache of beginnings and questions, and the logits [N, L, V] that follow each lane's question.

    Args:
        max_new_tokens: for which the cache has room.
    """
    beginnings = right_padded(family, [Encoded(p.beginning, [], p.features) for p in prompts])
    inputs = {name: value.to(model.device) for name, value in beginnings.inputs.items()}
    width = inputs["input_ids"].shape[1]
    cache = unwrapped(model)(**inputs, use_cache=True, logits_to_keep=1).past_key_values
    # A lane's tokens, and its answer's but the last, which nothing follows.
    room = layout.ids.shape[1] + layout.used.shape[1] * (max_new_tokens - 1)
    for i, layer in enumerate(cache.layers):  # one after the other, so that only one is there twice
        cache.layers[i] = _Reserved(layer, layout.prompt, width + room)
    output = _forward(model, layout.ids, layout.positions, layout.visible, cache, logits_to_keep=layout.last)
    return cache, output.logits


class _Reserved(DynamicLayer):
    """Layer of a cache with room for all that comes: a token is written beside the others, which aren't copied for it.

    Args:
        layer: a batch's keys and values, of which `rows` are taken.
        length: tokens, those of the layer included.
    """

    def __init__(self, layer: Any, rows: Tensor, length: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = layer.dtype, layer.device, True
        self._held = [self._with_room(states, rows, length) for states in (layer.keys, layer.values)]
        self._show(layer.keys.shape[-2])

    @staticmethod
    def _with_room(states: Tensor, rows: Tensor, length: int) -> Tensor:
        _, heads, tokens, width = states.shape
        held = states.new_empty(len(rows), heads, length, width)
        held[:, :, :tokens] = states[rows]
        return held

    def _show(self, tokens: int) -> tuple[Tensor, Tensor]:
        keys, values = (held[:, :, :tokens] for held in self._held)
        self.keys, self.values = keys, values
        return keys, values

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        for held, states in zip(self._held, (key_states, value_states), strict=True):
            held[:, :, start:end] = states
        return self._show(end)


def _forward(model: Any, ids: Tensor, positions: Tensor, visible: Tensor, cache: DynamicCache, **how: Any) -> Any:
    mask = visible[:, None]
    if attention_of(model) == "eager":  # it adds its mask to the scores
        mask = added_mask(mask, model.dtype)
    inputs = {"input_ids": ids, "position_ids": positions, "attention_mask": mask}
    return unwrapped(model)(**inputs, past_key_values=cache, use_cache=True, **how)


def attention_of(model: Any) -> str:
    """Name of the attention of the model's language part."""
    return str(model.config.get_text_config()._attn_implementation)


def _any_goes_on(finished: Tensor, together: bool) -> bool:
    """Whether an answer isn't finished; of all ranks, where they run the forwards of a partitioned model together."""
    if not together:
        return not bool(finished.all())
    going_on = (~finished.all()).float()
    torch.distributed.all_reduce(going_on, torch.distributed.ReduceOp.MAX)
    return bool(going_on.item())
