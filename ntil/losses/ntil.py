"""NTIL and its EMD variant (ACL 2025, arXiv 2505.13077), by the released code and by the paper's formula."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple, Unpack

import torch
from torch import Tensor

from ntil.losses.base import NumberLoss, Reduction, check_weights
from ntil.losses.costs import expected_distance, place_weight
from ntil.losses.mass import MassOptions
from ntil.losses.noise import gumbel_like
from ntil.losses.step import LossInputs, Term
from ntil.losses.values import largest_values, magnitude_deviation, relative_deviation, straight_through_values
from ntil.numbers.spans import NumberSpans, NumberStyle
from ntil.numbers.vocab import NumberVocab

USUAL_WEIGHT = 0.2  # sigma, alpha and beta of the released code


class Preset(NamedTuple):
    """Values of the arguments of `NTIL` that are not given."""

    lam: float
    rescale: bool
    replace_ce: bool
    number_style: NumberStyle


PRESETS = {
    "released": Preset(lam=0.3, rescale=True, replace_ce=False, number_style="released"),
    "paper": Preset(lam=1.0, rescale=False, replace_ce=True, number_style="decimal"),
}


class NTIL(NumberLoss):
    """Numerical Token Integrity Loss (ACL 2025, arXiv 2505.13077).

    aux = mean over samples of  digit_weight * mean over digits of (1+sigma)^(n-i-1) * EMD
          + alpha * mean over numbers of |X-Y| / (max(X,Y)+eps) + beta * mean over numbers of log((max+eps) / (min+eps))

    `preset="released"` is what the released code computes: CE on all tokens + lam * (CE / aux).detach() * aux. Its
    total is (1 + lam) * CE whatever the numbers are: read the components. Deviations: values are float64, the noise has
    a separate generator, and shapes and types for which the code silently gives zero are supported.

    `preset="paper"` is the formula: CE on the other tokens + lam * aux with lam 1, a decimal is one number. Chosen
    here, since the paper doesn't say: CE is divided by the count of all supervised tokens, eps is 1 unit of the last
    digit (with a small eps a single zero among the numbers dominates the loss), means as in the released code. A digit
    then competes with other digits only: no term raises its probability against other tokens.

    Args:
        vocab: the digits.
        preset: what `lam`, `rescale`, `replace_ce` and `number_style` are when not given; null: `released`.
        lam: weight of the number terms.
        alpha, beta: weights of the relative and the magnitude deviation; 0 switches a term off, though not all three.
        sigma: position weight, a digit counts (1+sigma)^(n-i-1); 0 switches it off.
        temperature, noise: of the straight-through Gumbel argmax.
        eps: in units of the number's last place.
        exp, rel, mag: the switches of the ablation table; false is the same as sigma, alpha or beta 0, and is an error
            together with a value of it other than 0 and the default.
        digit_weight: weight of the EMD term.
        rescale: multiply lam with (CE / aux).detach().
        replace_ce: leave digits out of cross-entropy.
        number_style, reduction, mass, mass_weight: see `NumberLoss`.
        seed: of the Gumbel noise, which differs for every `StepInfo.draw`.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    weighs_places: ClassVar[bool] = True
    uses_noise: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        preset: Literal["released", "paper"] | None = None,
        lam: float | None = None,
        alpha: float = USUAL_WEIGHT,
        beta: float = USUAL_WEIGHT,
        sigma: float = USUAL_WEIGHT,
        temperature: float = 0.1,
        noise: float = 0.01,
        eps: float = 1.0,
        exp: bool = True,
        rel: bool = True,
        mag: bool = True,
        digit_weight: float = 1.0,
        rescale: bool | None = None,
        replace_ce: bool | None = None,
        number_style: NumberStyle | None = None,
        reduction: Reduction = "sample",
        seed: int = 0,
        **mass: Unpack[MassOptions],
    ) -> None:
        usual = _completed(preset, lam, rescale, replace_ce, number_style)
        super().__init__(
            vocab,
            lam=usual.lam,
            rescale=usual.rescale,
            reduction=reduction,
            number_style=usual.number_style,
            replace_ce=usual.replace_ce,
            **mass,
        )
        if temperature <= 0 or sigma <= -1 or noise < 0 or eps <= 0:
            raise ValueError(
                f"need temperature > 0, sigma > -1, noise >= 0, eps > 0; got {temperature}, {sigma}, {noise}, {eps}"
            )
        if seed and not noise:
            raise ValueError(f"seed={seed} is of the noise, of which noise=0 has none; leave one of them out")
        off = {"sigma": (sigma, exp, "exp"), "alpha": (alpha, rel, "rel"), "beta": (beta, mag, "mag")}
        for name, (weight, on, switch) in off.items():
            if not on and weight not in (0, USUAL_WEIGHT):
                raise ValueError(f"{name}={weight} does nothing beside {switch}=false; leave one of them out")
        self.alpha, self.beta = (alpha if rel else 0.0), (beta if mag else 0.0)
        check_weights(alpha=self.alpha, beta=self.beta, digit_weight=digit_weight)
        self.sigma, self.digit_weight = (sigma if exp else 0.0), digit_weight
        self.temperature, self.noise, self.eps, self.seed = temperature, noise, eps, seed

    def position_weight(self, spans: NumberSpans) -> Tensor:
        return place_weight(spans, self.sigma)

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        spans, info = inputs.spans, inputs.info
        noise = None
        if self.noise > 0:
            place = (info.draw, info.first_token, info.step_tokens)
            noise = self.noise * gumbel_like(inputs.digit_logits.detach(), self.seed, *place)
        predicted = straight_through_values(inputs.digit_logits, spans, self.temperature, noise)
        true, eps = spans.value.abs(), self.eps * spans.unit
        weight, most = self.position_weight(spans), largest_values(spans)
        digit = weight * expected_distance(inputs.digit_logits, spans.digit)
        relative, magnitude = relative_deviation(predicted, true, eps), magnitude_deviation(predicted, true, eps)
        none = torch.zeros_like(most)
        return {
            "digit": Term(digit, "digit", self.digit_weight, weight * (spans.base - 1)),
            "relative": Term(relative, "number", self.alpha, relative_deviation(none, most, eps)),
            "magnitude": Term(magnitude, "number", self.beta, magnitude_deviation(none, most, eps)),
        }


def _completed(
    preset: str | None,
    lam: float | None,
    rescale: bool | None,
    replace_ce: bool | None,
    number_style: NumberStyle | None,
) -> Preset:
    """The values that are given, and the preset's for those that aren't.

    Raises:
        ValueError: there is no such preset, or all values are given and are another one's.
    """
    if preset not in (None, *PRESETS):
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    usual, explicit = PRESETS[preset or "released"], (lam, rescale, replace_ce, number_style)
    for name, values in PRESETS.items():
        if values == explicit and preset not in (None, name):
            raise ValueError(f"preset={preset} does nothing: lam, rescale, replace_ce and number_style are {name}'s")
    return Preset(
        usual.lam if lam is None else lam,
        usual.rescale if rescale is None else rescale,
        usual.replace_ce if replace_ce is None else replace_ce,
        usual.number_style if number_style is None else number_style,
    )


class EMD(NumberLoss):
    """The EMD variant of arXiv 2505.13077: NTIL without position weights and value terms (sigma = alpha = beta = 0).

    total = CE + lam * (CE / aux).detach() * aux, aux = mean over samples of the mean over digits of sum_k p_k |k-y|.
    """

    has_terms: ClassVar[bool] = True
    needs_numbers: ClassVar[bool] = True
    any_style: ClassVar[bool] = True

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 0.3,
        rescale: bool = True,
        number_style: NumberStyle = "released",
        reduction: Reduction = "sample",
        **mass: Unpack[MassOptions],
    ) -> None:
        super().__init__(vocab, lam=lam, rescale=rescale, reduction=reduction, number_style=number_style, **mass)

    def terms(self, inputs: LossInputs) -> dict[str, Term]:
        cost = expected_distance(inputs.digit_logits, inputs.spans.digit)
        return {"digit": Term(cost, "digit", largest=inputs.spans.base - 1)}
