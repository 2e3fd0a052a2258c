"""Losses on boxes: the overlap of the box that four numbers spell with the true one.

Under teacher forcing a model gives one distribution for each coordinate, given the true tokens before it; they are
taken to be independent. Their corners' order, and everything that is no digit, is left to cross-entropy.
"""

from __future__ import annotations

import math
from typing import ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from ntil.losses.base import NumberLoss, Reduction, check_weights
from ntil.losses.mass import MassOptions
from ntil.losses.overlap import expected_overlap, overlap_table
from ntil.losses.step import LossInputs, Term
from ntil.losses.values import expected_values
from ntil.numbers.vocab import NumberVocab


class CoordExp(NumberLoss):
    """CE + lam * mean over boxes of l1_weight * SmoothL1 + ciou_weight * (1 - CIoU), between expected and true box.

    The geometry of github.com/Pein2017/CoordExp (`expectation_decode_coords`, `bbox_smoothl1_ciou_loss`): coordinates
    are means of the softmax over number tokens, in parts of the picture; SmoothL1 with beta 1 is a mean over the four;
    for CIoU the corners are put in order and clipped to the picture, and its trade-off alpha has a gradient. The
    weights are the repository's defaults of its stage 2. With `mass=gate` it has the repository's gate too. On location
    tokens it is exact. Deviations: cross-entropy stays on coordinates (the repository has soft labels and a W1 there);
    on digits the mean is `expected_values`, whose lower digits are those after the true higher ones: it is biased where
    a higher digit is in doubt.

    Args:
        vocab: the digits.
        lam: weight of the terms.
        l1_weight, ciou_weight: of SmoothL1 and of 1 - CIoU.
        rescale, reduction, mass, mass_weight: see `NumberLoss`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    needs_shapes: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 1.0,
        l1_weight: float = 2.0,
        ciou_weight: float = 0.5,
        rescale: bool = False,
        reduction: Reduction = "batch",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, rescale=rescale, reduction=reduction, **mass)
        check_weights(l1_weight=l1_weight, ciou_weight=ciou_weight)
        self.l1_weight, self.ciou_weight = l1_weight, ciou_weight

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        spans = inputs.spans
        across = spans.extent.repeat(1, 2)
        predicted = expected_values(inputs.digit_logits, spans)[spans.shape] / across
        true = spans.value[spans.shape] / across
        smooth_l1 = F.smooth_l1_loss(predicted, true, reduction="none").mean(-1)
        return {
            "smooth_l1": Term(smooth_l1, "shape", self.l1_weight, 0.5),
            "ciou": Term(1 - complete_iou(predicted, true), "shape", self.ciou_weight, LARGEST_CIOU),
        }


class ExpectedIoU(NumberLoss):
    """CE + lam * mean over boxes of E[1 - IoU], the boxes drawn coordinate by coordinate; this project's own loss.

    Unlike the IoU of the expected box it sees the spread: two boxes left and right of the truth with probability 1/2
    each have the true box as their mean, and hardly overlap it. It is in no unit, and its gradient reaches every value
    that would change the overlap. `expected_overlap` says how it is computed: a quadrature over the four marginals
    without sampling, at the default `nodes` within 0.001 of the sum over all boxes where coordinates are spread. Of
    sharp wrong boxes it is off by 0.0005 on average, 3 to 8 % of them by more than 0.001, at most by 0.02; with
    `nodes=32` by 0.00007 and at most 0.008 (tests/losses/test_boxes.py). It is least at the true box all the same.
    Corners out of order are no box and overlap nothing, as in the strict reading of answers.

    Args:
        vocab: the digits.
        lam: weight of the term.
        nodes: of the quadrature, on either side of a true coordinate.
        rescale, reduction, mass, mass_weight: see `NumberLoss`; with `mass=largest` an unreadable box overlaps nothing.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    needs_shapes: ClassVar[bool] = True
    table: Tensor

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 1.0,
        nodes: int = 12,
        rescale: bool = False,
        reduction: Reduction = "batch",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, rescale=rescale, reduction=reduction, **mass)
        if not 2 <= nodes <= 32:
            raise ValueError(f"nodes must be 2 to 32, got {nodes}")
        self.nodes = nodes
        self.register_buffer("table", overlap_table(nodes), persistent=False)

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        overlap = expected_overlap(inputs.digit_logits, inputs.spans, self.table)
        return {"iou": Term(1 - overlap, "shape", largest=1.0)}


LARGEST_CIOU = 2.5  # of 1 - CIoU: no overlap 1, centres as far apart as can be 1, alpha v at most 1/2


def complete_iou(predicted: Tensor, true: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU (arXiv 1911.08287) of boxes [S, 4] x1, y1, x2, y2 in parts of the picture, [S].

    IoU - d^2 / c^2 - alpha v: d the distance of the centres, c the diagonal of the box around both, v =
    (4 / pi^2) (atan(w/h) - atan(w'/h'))^2, alpha = v / (1 - IoU + v). Corners are put in order and clipped first.
    """
    (low, high), (true_low, true_high) = (_corners(box) for box in (predicted, true))
    size, true_size = high - low, true_high - true_low
    shared = (torch.minimum(high, true_high) - torch.maximum(low, true_low)).clamp(min=0).prod(-1)
    iou = shared / (size.prod(-1) + true_size.prod(-1) - shared).clamp(min=eps)
    distance = ((low + high - true_low - true_high) / 2).square().sum(-1)
    around = torch.maximum(high, true_high) - torch.minimum(low, true_low)
    (w, h), (true_w, true_h) = (s.clamp(min=eps).unbind(-1) for s in (size, true_size))
    v = (4 / math.pi**2) * (torch.atan(true_w / true_h) - torch.atan(w / h)).square()
    alpha = v / (1 - iou + v + eps)
    return iou - distance / around.square().sum(-1).clamp(min=eps) - alpha * v


def _corners(box: Tensor) -> tuple[Tensor, Tensor]:
    first, second = box[:, :2], box[:, 2:]
    return torch.minimum(first, second).clamp(0, 1), torch.maximum(first, second).clamp(0, 1)
