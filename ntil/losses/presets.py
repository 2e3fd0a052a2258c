"""The losses of the comparison, each a composition of the parts in `costs` and `values`."""

from __future__ import annotations

import torch
from torch import Tensor

from ntil.losses.base import LossOutput, NumberLoss, mean_per_sample
from ntil.losses.costs import expected_distance
from ntil.losses.values import magnitude_deviation, relative_deviation, straight_through_values
from ntil.numbers import NumberSpans, NumberStyle, NumberVocab


class CE(NumberLoss):
    """Plain cross-entropy, mean over the supervised tokens."""

    def __init__(self, vocab: NumberVocab | None = None) -> None:
        super().__init__(vocab)


class NTIL(NumberLoss):
    """Numerical Token Integrity Loss (ACL 2025, arXiv 2505.13077) as the released code computes it.

    total = CE + lam * (CE / aux).detach() * aux, with aux = mean over samples of
    digit_weight * mean over digits of (1+sigma)^(n-i-1) * EMD
    + alpha * mean over numbers of |X-Y| / (max+1) + beta * mean over numbers of log((max+1) / (min+1)).

    Deviations from the released code: values are float64; Gumbel noise has its own generator; decimals are one number
    unless `number_style="released"`. The total equals (1 + lam) * CE whenever there is a number: read the components.

    Args:
        vocab: the digits.
        lam: weight of the number terms relative to cross-entropy.
        alpha, beta: weights of the relative and the magnitude deviation; 0 switches a term off.
        sigma: position weight, a digit counts (1+sigma)^(n-i-1); 0 switches it off.
        temperature, noise: of the straight-through Gumbel argmax.
        exp, rel, mag: the switches of the ablation table; false is the same as sigma, alpha or beta 0.
        rescale: multiply lam with (CE / aux).detach(), as released.
        seed: of the Gumbel noise.
    """

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 0.3,
        alpha: float = 0.2,
        beta: float = 0.2,
        sigma: float = 0.2,
        temperature: float = 0.1,
        noise: float = 0.01,
        exp: bool = True,
        rel: bool = True,
        mag: bool = True,
        rescale: bool = True,
        digit_weight: float = 1.0,
        number_style: NumberStyle = "released",
        seed: int = 0,
    ) -> None:
        super().__init__(vocab, number_style)
        if temperature <= 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        if lam < 0 or sigma <= -1 or noise < 0:
            raise ValueError(f"need lam >= 0, sigma > -1, noise >= 0; got lam={lam}, sigma={sigma}, noise={noise}")
        self.lam, self.digit_weight, self.rescale = lam, digit_weight, rescale
        self.alpha, self.beta = (alpha if rel else 0.0), (beta if mag else 0.0)
        self.sigma = sigma if exp else 0.0
        self.temperature, self.noise, self.seed = temperature, noise, seed
        self._generator: torch.Generator | None = None

    def join(self, ce: Tensor, digit_logits: Tensor, spans: NumberSpans, samples: Tensor | float) -> LossOutput:
        terms = self.terms(digit_logits, spans)
        weights = {"digit": self.digit_weight, "relative": self.alpha, "magnitude": self.beta}
        per_term = {name: per_sample.sum() / samples for name, per_sample in terms.items()}
        aux = sum((weights[name] * term for name, term in per_term.items()), torch.zeros_like(ce))
        factor = self.lam * (ce / (aux + 1e-10)).detach() if self.rescale else torch.full_like(ce, self.lam)
        factor = torch.where(aux.detach() > 0, factor, torch.zeros_like(factor))
        components = {"ce": ce, **per_term, "aux": aux, "factor": factor}
        return LossOutput(ce + factor * aux, {k: v.detach() for k, v in components.items()})

    def terms(self, digit_logits: Tensor, spans: NumberSpans) -> dict[str, Tensor]:
        """Per-sample means [samples], float32, of every term, the switched-off ones too (they cost little)."""
        position = (1.0 + self.sigma) ** (spans.length - spans.place - 1).clamp(0, 100).float()
        digit = position * expected_distance(digit_logits, spans.digit)
        out = {"digit": mean_per_sample(digit, spans.is_digit, spans.sample, spans.samples)}
        predicted = straight_through_values(
            digit_logits, spans, self.temperature, self.noise, self._noise_generator(digit_logits.device)
        )
        for name, deviation in (("relative", relative_deviation), ("magnitude", magnitude_deviation)):
            value = deviation(predicted, spans.value.abs()).float()
            out[name] = mean_per_sample(value, spans.is_number, spans.number_sample, spans.samples)
        return out

    def _noise_generator(self, device: torch.device) -> torch.Generator | None:
        if self.noise == 0:
            return None
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device).manual_seed(self.seed)
        return self._generator


class EMD(NTIL):
    """The EMD variant: NTIL without position weights and value terms (sigma = alpha = beta = 0)."""

    def __init__(
        self,
        vocab: NumberVocab,
        *,
        lam: float = 0.3,
        rescale: bool = True,
        number_style: NumberStyle = "released",
    ) -> None:
        super().__init__(vocab, lam=lam, alpha=0, beta=0, sigma=0, noise=0, rescale=rescale, number_style=number_style)

    def terms(self, digit_logits: Tensor, spans: NumberSpans) -> dict[str, Tensor]:
        digit = expected_distance(digit_logits, spans.digit)
        return {"digit": mean_per_sample(digit, spans.is_digit, spans.sample, spans.samples)}
