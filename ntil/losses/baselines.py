"""Number-aware losses of other papers, each as its authors define it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Literal, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from ntil.losses import costs
from ntil.losses.base import NumberLoss, Reduction, check_weights
from ntil.losses.mass import MassOptions, MassUse
from ntil.losses.step import LossInputs, StepInfo, Term
from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import NumberVocab


class SMMD(NumberLoss):
    """Smooth maximum mean discrepancy (ICML 2026, arXiv 2606.27731): CE + lam * mean over digits of r'(K + a(D-K))r.

    r = p - onehot(y), K_ij = exp(-(i-j)^2 / (2 bandwidth^2)), D the row sums of K on a diagonal, a = 1 / (2 * mean row
    sum) = 0.118199 for ten digits. lam is chosen here (the authors' weight is not known to us). The graph term makes
    values at the ends cheaper: guessing 9 costs less than 8 when the truth is 0.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    any_style: ClassVar[bool] = True
    matrix: Tensor

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 0.3,
        bandwidth: float = 2.0,
        reduction: Reduction = "batch",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, reduction=reduction, **mass)
        if bandwidth <= 0:
            raise ValueError(f"bandwidth must be > 0, got {bandwidth}")
        self.register_buffer("matrix", costs.smmd_matrix(vocab.base, bandwidth), persistent=False)

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        cost = costs.kernel_quadratic(inputs.digit_logits, inputs.spans.digit, self.matrix)
        return {"digit": Term(cost, "digit", largest=costs.largest_quadratic(self.matrix))}


class DIST2(NumberLoss):
    """Discretized distance loss (ICLR 2026, arXiv 2503.02379): CE + lam * mean over digits of KL(q, p).

    q_k is proportional to exp(-(k-y)^2 / width), the width in squared digits. Of 1,024 location bins width 1 is a
    thousandth of the picture and q nearly one-hot: `scale_width` is ours. KL has no largest value, so
    `mass` may be `gate` alone.

    Args:
        vocab: the digits.
        lam: weight of the divergence.
        width: of q.
        scale_width: true measures distances in tenths of the alphabet, so that a width is as large a share of 1,024
            bins as of ten digits. Null or false: in steps, as the authors do.
        reduction, mass, mass_weight: see `NumberLoss`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    any_style: ClassVar[bool] = True
    mass_uses: ClassVar[tuple[MassUse, ...]] = ("gate",)

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 0.1,
        width: float = 1.0,
        scale_width: bool | None = None,
        reduction: Reduction = "batch",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, reduction=reduction, **mass)
        if width <= 0:
            raise ValueError(f"width must be > 0, got {width}")
        self.width, self.scale_width = width, bool(scale_width)

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        width = self.width * costs.alphabet_scale(inputs.spans.base, self.scale_width) ** 2
        cost = costs.soft_target_divergence(inputs.digit_logits, inputs.spans.digit, width)
        return {"digit": Term(cost, "digit")}


class SoftLabel(NumberLoss):
    """Soft labels on digits (ICCV 2025, poster 1447): cross-entropy against (1-eta) onehot + eta psi(k-y) on digits.

    Over the whole vocabulary, so it favours digits over other tokens as cross-entropy does, and needs no `mass`. The
    change against plain cross-entropy is the component `digit`: total = CE + digit, both over the count of supervised
    tokens. psi is normalised over the digits; its width is chosen here (the authors' is not known to us), in steps or,
    with `scale_width`, in tenths of the alphabet, see `DIST2`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    any_style: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        eta: float = 0.08,
        shape: Literal["gaussian", "triangular"] = "gaussian",
        width: float = 1.0,
        scale_width: bool | None = None,
    ) -> None:
        super().__init__(vocab, lam=1.0, reduction="token")
        if shape not in ("gaussian", "triangular"):
            raise ValueError(f"shape must be 'gaussian' or 'triangular', got {shape!r}")
        if not 0 <= eta <= 1 or width <= 0:
            raise ValueError(f"need 0 <= eta <= 1 and width > 0; got eta={eta}, width={width}")
        self.eta, self.shape, self.width, self.scale_width = eta, shape, width, bool(scale_width)
        self.steps = width * costs.alphabet_scale(vocab.base, self.scale_width)
        if shape == "triangular" and self.steps <= 1:
            raise ValueError(
                f"a triangular label {self.steps:g} steps wide is the digit alone: nothing is softened; use 2"
            )

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        gap = costs.soft_label_gap(inputs.digit_logits, inputs.spans.digit, self.eta, self.shape, self.steps)
        return {"digit": Term(gap, "digit")}


class DEL(NumberLoss):
    """Digit entropy loss (arXiv 2605.20369): CE + lam * mean over digits of weight * mean_k BCE(z_k, onehot_k) p_k.

    Not ordered: all wrong digits cost the same. It has no largest value, so `mass` may be `gate` alone.

    `places="released"` has the weights of the released code (github.com/PolyU-VCLab/DEL at 68c3d4d, `generate_place` of
    train-qwen-deepseek.py): 2 (k + 1) for a digit worth 10^k, k >= 0, and 1.02^(-k - 1) for one worth 10^-k: 12.34 has
    4, 2, 1.02^-2, 1.02^-3. Its lam is 0.01, its mean over all digits. Deviations: the code's numbers are runs of digits
    and points, so of `1.2.3` and `.5`, which are several numbers or none of this kind here, it weighs the parts
    otherwise; its mean is that of a micro-batch, ours that of the step.

    Args:
        vocab: the digits.
        lam: weight of the term.
        sigma: of NTIL's place weight (1+sigma)^(n-i-1), chosen here before the code was public; null: 0.2.
        places: `released`, see above; null: by sigma.
        reduction, mass, mass_weight: see `NumberLoss`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    weighs_places: ClassVar[bool] = True
    mass_uses: ClassVar[tuple[MassUse, ...]] = ("gate",)

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 0.01,
        sigma: float | None = None,
        places: Literal["released"] | None = None,
        reduction: Reduction = "batch",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, reduction=reduction, **mass)
        if places not in (None, "released"):
            raise ValueError(f"places must be 'released' or null, got {places!r}")
        if sigma is not None and (sigma <= -1 or places is not None):
            raise ValueError(f"sigma must be > -1, and null beside places=released, got {sigma}")
        self.sigma, self.places = 0.2 if sigma is None else sigma, places

    def position_weight(self, spans: NumberSpans) -> Tensor:
        if self.places == "released":
            power = spans.power.float()
            return torch.where(power >= 0, 2 * (power + 1), torch.pow(1.02, (power - 1).clamp(max=0)))
        return costs.place_weight(spans, self.sigma)

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        cost = costs.digit_entropy(inputs.digit_logits, inputs.spans.digit)
        return {"digit": Term(self.position_weight(inputs.spans) * cost, "digit")}


class EMO(NumberLoss):
    """Earth mover distance optimisation (ICLR 2024, arXiv 2310.04691), on every supervised token, not on numbers.

    total = 0.5 * (CE + (CE / emo).detach() * emo), emo = mean over tokens of 1 - cos(e_y, sum_v q_v e_v) with
    normalised output embeddings e. It costs one product with the output matrix in addition to cross-entropy's three.

    Args:
        vocab: not used by the term; needed only where `spans` are not given, to find the samples.
        embeddings: output embeddings [V, H] (`model.get_output_embeddings().weight`), or a function that returns them,
            where `StepInfo.output_embeddings` has none; `ntil train` gives them there. No gradient flows into them
            here. The authors keep the pre-trained ones; the live ones are used when the model's own tensor is given.
        lam, ce_weight: 0.5 each, as above.
    """

    has_terms: ClassVar[bool] = True
    uses_embeddings: ClassVar[bool] = True
    any_style: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab | None = None,
        *,
        embeddings: Tensor | Callable[[], Tensor] | None = None,
        lam: float = 0.5,
        ce_weight: float = 0.5,
    ) -> None:
        super().__init__(vocab, lam=lam, rescale=True, reduction="batch", ce_weight=ce_weight)
        check_weights(lam=lam, ce_weight=ce_weight)
        self.embeddings = embeddings

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        similarity = self._similarity(self._table(inputs.info), inputs.labels.clamp(min=0), inputs.logits)
        return {"emo": Term(1 - (torch.softmax(inputs.logits, -1) * similarity).sum(-1), "token")}

    def _table(self, info: StepInfo) -> Tensor:
        if info.output_embeddings is not None:
            return info.output_embeddings
        if self.embeddings is None:
            raise ValueError(
                "EMO needs the model's output embeddings: EMO(embeddings=model.get_output_embeddings().weight)"
            )
        return self.embeddings if isinstance(self.embeddings, Tensor) else self.embeddings()

    @staticmethod
    @torch.no_grad()
    def _similarity(table: Tensor, labels: Tensor, logits: Tensor) -> Tensor:
        """Cosines cos(e_y, e_v), [N, V]. Their mean under q is 1 - emo, since e_y . sum_v q_v e_v is linear in q.

        They have the table's precision, but for cos(e_y, e_y) = 1.
        """
        if table.dim() != 2 or table.shape[0] != logits.shape[-1]:
            raise ValueError(f"embeddings {tuple(table.shape)} do not fit logits of {logits.shape[-1]} tokens")
        table = table.detach()
        norms = torch.linalg.vector_norm(table, dim=-1, dtype=logits.dtype).clamp(min=1e-12)
        true = F.normalize(table[labels].to(logits.dtype), dim=-1).to(table.dtype)
        cosines = (true @ table.T).to(logits.dtype) / norms
        if table.dtype == logits.dtype:
            return cosines
        # In half precision it is off by up to 1/256, and of sure tokens emo would be that alone.
        return cosines.scatter_(-1, labels[:, None], 1.0)
