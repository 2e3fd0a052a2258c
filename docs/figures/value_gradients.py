"""How hard the value terms pull on a digit that is wrong with growing confidence.

python docs/figures/value_gradients.py    (writes value_gradients.png beside itself)

The number is one digit, truth 5, and the logit of 9 stands `gap` above all others. Drawn is the length of the gradient
of the term on the ten digit logits.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt
from torch import Tensor

from ntil import NumberSpans, NumberVocab
from ntil.losses.costs import expected_distance
from ntil.losses.values import (
    expected_value_distance,
    magnitude_deviation,
    relative_deviation,
    straight_through_values,
)

TRUE, WRONG = 5, 9


def pulls(gap: float) -> dict[str, float]:
    """The gradient's length of every term at this gap."""
    spans = NumberSpans.find(torch.tensor([[TRUE]]), NumberVocab(range(10)), "decimal")

    def length(term) -> float:
        logits = torch.zeros(1, 10, dtype=torch.float64)
        logits[0, WRONG] = gap
        logits.requires_grad_()
        return torch.autograd.grad(term(logits).sum(), logits)[0].norm().item()

    def released(deviation):
        def term(logits: Tensor) -> Tensor:
            predicted = straight_through_values(logits, spans, temperature=0.1, noise=None)
            return deviation(predicted, spans.value)

        return term

    return {
        "released relative deviation": length(released(relative_deviation)),
        "released magnitude deviation": length(released(magnitude_deviation)),
        "value_emd, E|X-Y|": length(lambda z: expected_value_distance(z, spans)),
        "value_emd, log form": length(lambda z: torch.log1p(expected_value_distance(z, spans))),
        "EMD on the digit": length(lambda z: expected_distance(z, spans.digit)),
    }


def main() -> None:
    gaps = torch.linspace(0, 8, 81).tolist()
    lines = [pulls(gap) for gap in gaps]
    chance = [torch.softmax(torch.tensor([0.0] * 9 + [g], dtype=torch.float64), 0)[-1].item() for g in gaps]
    figure, axis = plt.subplots(figsize=(7.5, 4.5), layout="constrained")
    for name, style in zip(lines[0], ("-", "--", "-", "--", ":"), strict=True):
        axis.semilogy(gaps, [line[name] for line in lines], style, label=name, linewidth=1.8)
    axis.set_xlabel("logit of the wrong digit above all others (top: its probability)")
    axis.set_ylabel("length of the gradient on the digit logits")
    axis.set_ylim(1e-18, 30)
    top = axis.secondary_xaxis("top")
    marks = range(0, 81, 20)
    top.set_xticks([gaps[i] for i in marks], [f"{chance[i]:.3f}" for i in marks])
    axis.legend(frameon=False)
    axis.grid(alpha=0.25)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
    print(f"{'gap':>4} {'p(wrong)':>9}  " + "  ".join(lines[0]))
    for i in marks:
        values = "  ".join(f"{v:{len(k)}.2e}" for k, v in lines[i].items())
        print(f"{gaps[i]:4.1f} {chance[i]:9.4f}  {values}")


if __name__ == "__main__":
    main()
