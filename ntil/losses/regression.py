"""A reference that is no token loss: numbers read from one hidden state by a linear head."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ntil.losses.base import NumberLoss
from ntil.losses.step import IGNORE, LossInputs, Term
from ntil.numbers.vocab import NumberVocab


class RegressionHead(NumberLoss):
    """L1 of a linear head on the last hidden state: mean over numbers of |scale * w_k . h - Y_k| / scale, no tokens.

    h is the last hidden state of the prompt, which else predicts the first token of the answer; the k-th number of the
    answer has the head w_k. This is the pointwise regression head that NTL (arXiv 2411.02083) and RAFT (arXiv
    2403.04182) compare with; answers are not generated but read (`read`), and written as text by the task, which all
    scores are of.

    The heads are the rows of the output embedding of the first digits: w_k . h is the logit of the digit k. So they are
    saved, resumed and partitioned with the model, and start from pre-trained rows. Deviations: there is no bias; where
    embeddings are tied, w_k is the input embedding of the digit k too; and beside adapters, which leave the output
    embedding as it is, the heads are fixed and the hidden state alone learns.

    Logits have the precision of the model's head. In bfloat16 numbers from 400 to 800 are read in steps of 3.1, those
    up to 1600 in steps of 6.3 (at scale 100), in training as in tests.

    Args:
        vocab: the digits.
        scale: what a logit of 1 is worth, in the unit of the answer's numbers.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    reads_numbers: ClassVar[bool] = True

    def __init__(self, vocab: NumberVocab, *, scale: float = 100.0) -> None:
        super().__init__(vocab, lam=1.0, ce_weight=0.0, reduction="batch")
        if scale <= 0:
            raise ValueError(f"scale must be > 0, got {scale}")
        self.scale = scale

    def read(self, logits: Tensor) -> Tensor:
        """Numbers [B, base] float64, in the answer's order, from the logits [B, V] at the ends of prompts."""
        return self.scale * logits.index_select(-1, self.digit_ids.to(logits.device)).double()

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        spans = inputs.spans
        size = spans.sample.shape[0]
        positions = torch.arange(size, device=spans.sample.device)
        # The first supervised one of a sample follows its prompt.
        supervised = torch.where(inputs.labels != IGNORE, positions, size)
        first = torch.full((max(spans.samples, 1),), size, device=positions.device)
        first = first.scatter_reduce(0, spans.sample, supervised, "amin").clamp(max=max(size - 1, 0))
        slots = torch.arange(spans.count.shape[0], device=positions.device)
        # Unused slots are after all numbers, and count as of sample 0: they must not be its first.
        slot = torch.where(spans.is_number, slots, slots.shape[0])
        first_number = torch.full_like(first, slots.shape[0])
        first_number = first_number.scatter_reduce(0, spans.number_sample, slot, "amin")
        order = (slots - first_number[spans.number_sample]).clamp(0, len(self.digit_ids) - 1)
        logits = inputs.logits if size else inputs.logits.new_zeros(1, inputs.logits.shape[-1])
        read = self.read(logits.index_select(0, first[spans.number_sample]))
        predicted = read.gather(1, order[:, None])[:, 0]
        return {"l1": Term((predicted - spans.value).abs() / self.scale, "number")}
