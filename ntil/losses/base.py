"""The one shape that every loss here has: cross-entropy joined with per-digit and per-number terms."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ntil.numbers import NumberSpans, NumberStyle, NumberVocab

IGNORE = -100


class LossOutput(NamedTuple):
    """`total` is the scalar to call backward on; `components` are detached scalars for the log."""

    total: Tensor
    components: dict[str, Tensor]


class NumberLoss(nn.Module):
    """Cross-entropy on every supervised token, plus the number terms of a subclass.

    A subclass overrides `auxiliary`; with none this is plain cross-entropy. Maths is float32, values float64.

    Args:
        vocab: which ids are digits; may be None for cross-entropy.
        number_style: how digits group to numbers, see `NumberSpans.find`.
    """

    digit_ids: Tensor

    def __init__(self, vocab: NumberVocab | None, number_style: NumberStyle = "decimal") -> None:
        super().__init__()
        self.vocab = vocab
        self.number_style: NumberStyle = number_style
        digit_ids = torch.tensor(vocab.digit_ids if vocab else [], dtype=torch.long)
        self.register_buffer("digit_ids", digit_ids, persistent=False)

    def forward(
        self,
        logits: Tensor,
        labels: Tensor,
        spans: NumberSpans | None = None,
        *,
        shift: bool = False,
        num_tokens: Tensor | float | None = None,
        num_samples: Tensor | float | None = None,
    ) -> LossOutput:
        """
        Args:
            logits: [B, T, V], or [N, V] at already selected positions.
            labels: [B, T] or [N], aligned with `logits` (no shift inside); -100 is ignored.
            spans: numbers of the positions; found from `labels` when not given (then [N] is taken as one sample).
            shift: the Hugging Face convention, position t predicts label t + 1; needs [B, T, V].
            num_tokens, num_samples: denominators of the means, when the batch is part of a larger one.

        Raises:
            ValueError: shapes that do not fit.
        """
        if logits.shape[:-1] != labels.shape:
            raise ValueError(f"logits {tuple(logits.shape)} do not fit labels {tuple(labels.shape)}")
        if shift:
            if logits.dim() != 3:
                raise ValueError(f"shift=True needs logits [B, T, V], got {tuple(logits.shape)}")
            logits, labels = logits[:, :-1], labels[:, 1:]
        if spans is None and self.vocab is not None:
            spans = NumberSpans.find(labels, self.vocab, self.number_style)
        logits, labels = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
        if spans is not None and spans.digit.shape != labels.shape:
            raise ValueError(f"spans of {spans.digit.numel()} positions do not fit {labels.numel()} labels")
        tokens = (labels != IGNORE).sum() if num_tokens is None else num_tokens
        summed = self.token_loss(logits, labels)
        ce = summed / (tokens.clamp(min=1) if isinstance(tokens, Tensor) else max(tokens, 1))
        if spans is None:
            return LossOutput(ce, {"ce": ce.detach()})
        samples = spans.samples if num_samples is None else num_samples
        return self.join(ce, logits.index_select(-1, self.digit_ids).float(), spans, samples)

    def token_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed cross-entropy over the supervised positions, float32."""
        return F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")

    def join(self, ce: Tensor, digit_logits: Tensor, spans: NumberSpans, samples: Tensor | float) -> LossOutput:
        return LossOutput(ce, {"ce": ce.detach()})


def mean_per_sample(value: Tensor, present: Tensor, sample: Tensor, samples: int) -> Tensor:
    """Mean of `value` where `present`, within each sample; a sample without any counts as 0 (the released rule)."""
    total = torch.zeros(samples, dtype=value.dtype, device=value.device)
    total = total.index_add(0, sample, torch.where(present, value, 0))
    count = torch.zeros_like(total).index_add(0, sample, present.to(value.dtype))
    return total / count.clamp(min=1)
