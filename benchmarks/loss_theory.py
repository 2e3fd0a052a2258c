"""What each loss is by theory, found by brute force on small alphabets; docs/theory.md has the table.

    python -m benchmarks.loss_theory        prints the table

All figures are of float64 logits at one number (or box), without noise. p is what the model predicts, q what is true.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ntil import NumberLoss, NumberSpans, NumberVocab, StepInfo
from ntil.config.build import build, locate
from ntil.config.compose import choices, compose
from ntil.config.schema import Component
from ntil.losses.mass import digit_log_mass
from ntil.losses.step import LossInputs
from ntil.losses.sum import Sum

# The grid of predictions: all p over four values in steps of 1/STEPS. TRUTH is one of them; its median is the third
# value, its mode the fourth, its mean lies between the second and the third.
STEPS = 20
TRUTH = (0.2, 0.1, 0.3, 0.4)
BINS, FIRST = 6, 1  # a coordinate's alphabet, and the first of the four values
SIZE, VOCABULARY = 20, 4096
NONE = 1e-26  # the least probability
GAPS = torch.arange(0.0, 41.0, 2.0, dtype=torch.float64)
LEFT = 1e-3  # of the largest gradient: below it, at the last gap, the gradient has vanished
COLUMNS = ("loss", "proper term", "total's minimiser", "confident errors", "unit", "mass", "memory")


@dataclass(frozen=True)
class Case:
    """Predictions of one number each, or of one coordinate of a box each.

    Attributes:
        vocab: the alphabet. before, after: labels around the number, the other coordinates of a box. values: the four
            that a prediction is over, as labels.
    """

    vocab: NumberVocab
    before: tuple[int, ...]
    after: tuple[int, ...]
    values: tuple[int, ...]

    @classmethod
    def of(cls, loss: NumberLoss) -> Case:
        """Boxes x1 = y1 = 0, y2 = 3 whose x2 is predicted, for losses on boxes; else digits of base four."""
        if loss.needs_shapes:
            return cls(NumberVocab(range(BINS), one_place=True), (0, 0), (3,), tuple(range(FIRST, FIRST + 4)))
        return cls(NumberVocab(range(4)), (), (), tuple(range(4)))

    @property
    def width(self) -> int:
        return len(self.before) + 1 + len(self.after)

    def labels(self, values: Tensor) -> Tensor:
        """Labels [N, width] of the true values [N]."""
        sides = [torch.tensor(side, dtype=torch.long).expand(len(values), -1) for side in (self.before, self.after)]
        return torch.cat([sides[0], values[:, None], sides[1]], 1)

    def logits(self, predicted: Tensor, labels: Tensor) -> Tensor:
        """Logits [N, width, SIZE]: `predicted` [N, SIZE] at the number, the others right for certain."""
        certain = 40.0 * F.one_hot(labels, SIZE).double()
        at = len(self.before)
        return torch.cat([certain[:, :at], predicted[:, None], certain[:, at + 1 :]], 1)

    def spans(self, labels: Tensor, style: str) -> NumberSpans:
        """Spans of the labels, every row a box where there are others around the number."""
        spans = NumberSpans.find(labels, self.vocab, style)
        if self.width == 1:
            return spans
        shape = torch.arange(labels.numel()).reshape(-1, self.width)
        return replace(spans, shape=shape, extent=torch.full((len(labels), 2), BINS - 1.0, dtype=torch.float64))


@cache
def specs() -> dict[str, Component]:
    """All configs of losses on tokens that train, without noise."""
    components = {name: compose([f"loss={name}"]).loss for name in choices("loss")}
    kinds = {name: locate(c.target, "loss") for name, c in components.items()}
    trained = {n: c for n, c in components.items() if kinds[n].trains and not kinds[n].reads_numbers}
    return {
        n: replace(c, options={**c.options, **({"noise": 0.0} if "noise" in c.options else {})})
        for n, c in trained.items()
    }


@cache
def kind_of(name: str) -> NumberLoss:
    """The loss for its case's alphabet, with fixed random output embeddings."""
    spec = specs()[name]
    digits = build("loss", spec, vocab=NumberVocab(range(4)), embeddings=_embeddings())
    assert isinstance(digits, NumberLoss)
    bins: NumberLoss = build("loss", spec, vocab=Case.of(digits).vocab, embeddings=_embeddings())
    return bins


def _embeddings(size: int = SIZE) -> Tensor:
    return torch.randn(size, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def members(loss: NumberLoss) -> list[tuple[float, NumberLoss]]:
    """The weighted parts of a sum, or the loss itself; none of a loss without terms."""
    if not loss.has_terms:
        return []
    return [(loss.weights[n], part) for n, part in loss.part_of.items()] if isinstance(loss, Sum) else [(1.0, loss)]


def aux_of_each(loss: NumberLoss, logits: Tensor, labels: Tensor, spans: NumberSpans) -> list[Tensor]:
    """The aux of every row by itself, [N], of every member; logits [N, width, SIZE], labels [N, width]."""
    flat, targets = logits.flatten(0, 1), labels.flatten()
    digit_logits = flat[:, list(loss.vocab.digit_ids)] if loss.vocab else flat
    costs = F.cross_entropy(flat, targets, reduction="none")
    inputs = LossInputs(flat, targets, digit_logits, spans, StepInfo(), digit_log_mass(costs, digit_logits, spans))
    rows = []
    for _, part in members(loss):
        aux = torch.zeros(len(labels), dtype=torch.float64)
        for term in part.costs(inputs).values():
            used = {"token": targets >= 0, "digit": spans.is_digit, "number": spans.is_number}
            row = {"token": spans.sample, "digit": spans.sample, "number": spans.number_sample}
            present = used[term.per] if term.per != "shape" else spans.shape[:, 0] >= 0
            sample = row[term.per] if term.per != "shape" else spans.shape_sample
            each = 1 if term.per in ("number", "shape") and loss.needs_shapes else labels.shape[1]
            cost = torch.where(present, term.cost.double(), 0.0) * term.weight / each
            aux = aux.index_add(0, sample, cost)
        rows.append(aux)
    return rows


@cache
def grid() -> Tensor:
    """All predictions over four values in steps, [G, 4]."""
    counts = [c for c in itertools.product(range(STEPS + 1), repeat=4) if sum(c) == STEPS]
    return torch.tensor(counts, dtype=torch.float64) / STEPS


def near(p: Tensor, step: float, reach: int) -> Tensor:
    """Predictions around one, [K, 4]: `reach` steps to each side in the first three values, the fourth fills up."""
    offsets = torch.tensor(list(itertools.product(range(-reach, reach + 1), repeat=3)), dtype=torch.float64) * step
    offsets = torch.cat([offsets, -offsets.sum(1, keepdim=True)], 1)
    around = p + offsets
    return around[(around >= -1e-12).all(1)].clamp(min=0)


def expected(name: str, p: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Expected cross-entropy on the number and expected aux of each member for predictions [G, 4], each [G]."""
    loss, q = kind_of(name), truth()
    case = Case.of(loss)
    predicted = torch.full((len(p), SIZE), -60.0, dtype=torch.float64)
    predicted[:, list(case.values)] = p.clamp(min=NONE).log()
    labels = case.labels(torch.tensor(case.values).repeat(len(p)))
    logits = case.logits(predicted.repeat_interleave(4, 0), labels)
    aux = aux_of_each(loss, logits, labels, case.spans(labels, loss.number_style)) if loss.has_terms else []
    # Smoothing is over the whole vocabulary; the other tokens, without mass here, add a constant.
    target = (1 - loss.smoothing) * q + loss.smoothing / SIZE
    ce = -(target * p.clamp(min=NONE).log()).sum(-1)
    return (torch.zeros_like(ce) if loss.replace_ce else ce), [(a.reshape(-1, 4) * q).sum(-1) for a in aux]


@cache
def expected_on_grid(name: str) -> tuple[Tensor, list[Tensor]]:
    """`expected` at every p of the grid."""
    return expected(name, grid())


def summed(name: str, each: list[Tensor]) -> Tensor:
    """The weighted sum of the members' aux."""
    total = sum((w * a for (w, _), a in zip(members(kind_of(name)), each, strict=True)), torch.zeros(()))
    assert isinstance(total, Tensor)
    return total


def proper(name: str) -> str:
    """Whether expected aux is least at p = q: `strictly`, `weakly` (elsewhere too), or else a p where it is least."""
    if not kind_of(name).has_terms:
        return ""
    aux = summed(name, expected_on_grid(name)[1])
    if aux.min() < -1e-6:
        return "unbounded"  # no cost, but a change of cross-entropy, which falls without end
    tolerance = 1e-9 * aux.abs().max().item()
    around = summed(name, expected(name, torch.cat([truth()[None], near(truth(), 1e-4, 1)]))[1])
    least = aux <= aux.min() + tolerance
    if not least[_at_truth()] or (around < around[0] - 1e-9 * around[0]).any():
        return f"no: {_written(grid()[least][0])}"
    return "strictly" if least.sum() == 1 else "weakly"


def minimiser(name: str) -> Tensor | None:
    """The p where the expected total is least, [4], to 0.002; None where it is least at several.

    Of a rescaled loss with the factor that it has there: to the gradient a factor is constant, so that training ends
    where the total with that factor is least. It is computed from the minimiser until that stays.
    """
    ce, each = expected_on_grid(name)
    best = truth()
    for _ in range(8):
        factors = factors_at(name, best)
        total = _total(name, ce, each, factors)
        if (total <= total.min() + 1e-9).sum() > 1:
            return None
        p = grid()[total.argmin()]
        for step in (0.018, 0.006, 0.002):
            around = near(p, step, 3)
            p = around[_total(name, *expected(name, around), factors).argmin()]
        if (p - best).abs().max() < 1e-9:
            break
        best = p
    return best


def factors_at(name: str, p: Tensor) -> list[Tensor]:
    """The factor of each member in an expectation with prediction p."""
    ce, each = expected(name, p[None])
    return [part.factor(ce[0], aux[0]) for (_, part), aux in zip(members(kind_of(name)), each, strict=True)]


def _total(name: str, ce: Tensor, each: list[Tensor], factors: list[Tensor]) -> Tensor:
    return kind_of(name).ce_weight * ce + summed(name, [f * a for f, a in zip(factors, each, strict=True)])


def truth() -> Tensor:
    """The true distribution q, [4]."""
    return torch.tensor(TRUTH, dtype=torch.float64)


def _at_truth() -> Tensor:
    return (grid() - truth()).abs().sum(-1).argmin()


def _written(p: Tensor) -> str:
    return " ".join(f"{100 * v:.0f}" for v in p.tolist())


def distance(name: str) -> str:
    """The total's minimiser in per cent, and its total variation from the truth."""
    p = minimiser(name)
    return "many" if p is None else f"{_written(p)} ({0.5 * (p - truth()).abs().sum().item():.3f})"


def pull(name: str, move: Callable[[Tensor], Tensor], whole: bool) -> Tensor:
    """Gradient on the logits [SIZE] that `move` makes of zeros, of the total (`whole`) or of its terms.

    The truth is the second of the four values. Rescaling is left out: its factor is one number for all logits.
    """
    loss = kind_of(name)
    case = Case.of(loss)
    labels = case.labels(torch.tensor([case.values[1]]))
    z = move(torch.zeros(SIZE, dtype=torch.float64)).requires_grad_()
    logits = case.logits(z[None], labels)
    spans = case.spans(labels, loss.number_style)
    parts = loss.parts(logits, labels, spans)
    terms = sum((weight * mean for mean, weight in parts.terms.values()), torch.zeros((), dtype=torch.float64))
    value = (0 if loss.replace_ce else parts.ce) + terms if whole else terms
    if not isinstance(value, Tensor) or not value.requires_grad:
        return torch.zeros_like(z)
    return torch.autograd.grad(value, z)[0]


def vanishes(name: str, whole: bool) -> bool:
    """Whether the gradient is gone where the model is sure of a wrong value: its logit far above all others."""
    wrong = Case.of(kind_of(name)).values[3]

    def at(gap: Tensor) -> float:
        def move(z: Tensor) -> Tensor:
            return z.index_fill(0, torch.tensor([wrong]), gap.item())

        return pull(name, move, whole).norm().item()

    lengths = [at(gap) for gap in GAPS]
    return lengths[-1] < LEFT * max(lengths)


def mass(name: str) -> str:
    """What the terms do to the mass of all number tokens together, at fixed p: `pulls`, `none`, or by the prediction.

    The sign of the derivative by a shift of the number tokens' logits, at 24 random predictions.
    """
    ids = list(kind_of(name).vocab.digit_ids) if kind_of(name).vocab else list(range(4))
    signs = set()
    for seed in range(24):
        random = torch.randn(SIZE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        gradient = pull(name, lambda z, random=random: z + 2 * random, False)  # type: ignore[misc]
        along = gradient[ids].sum().item()
        signs.add(0 if abs(along) < 1e-9 * gradient.norm().clamp(min=1e-12).item() else 1 if along > 0 else -1)
    return {0: "none", -1: "pulls", 1: "pushes off"}[signs.pop()] if len(signs) == 1 else "either way"


def unit_free(name: str) -> bool:
    """Whether the gradient stays when the same digits are a number in another unit: 1.2 for 12, 0.1 for 1.

    A rescaled loss is taken with its factor, which makes up for the unit.
    """
    loss = kind_of(name)
    case = Case.of(loss)
    values = torch.tensor([case.values[1]])
    labels = case.labels(values) if loss.needs_shapes else torch.tensor([[1, 2]])
    spans = case.spans(labels, loss.number_style)
    tenths = replace(
        spans,
        scale=spans.scale / 10,
        value=spans.value / 10,
        unit=spans.unit / 10,
        power=torch.where(spans.is_digit, spans.power - 1, 0),
        extent=spans.extent / 10,
    )
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(*labels.shape, SIZE, generator=generator, dtype=torch.float64).requires_grad_()
    one, other = (torch.autograd.grad(loss(logits, labels, s).total, logits)[0] for s in (spans, tenths))
    return bool(torch.allclose(one, other, rtol=1e-6, atol=1e-9))


class Allocations(TorchDispatchMode):
    """Counts new tensors that are at least as large as the logits."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        inputs = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, Tensor) and tensor.numel() >= self.size:
                self.count += tensor.untyped_storage().data_ptr() not in inputs
        return out


def allocations(name: str) -> int:
    """New tensors of the logits' size, 8 positions by `VOCABULARY`, in a forward and a backward through the loss."""
    case = Case.of(kind_of(name))
    table = _embeddings(VOCABULARY).float()
    loss: NumberLoss = build("loss", specs()[name], vocab=case.vocab, embeddings=table)
    labels = case.labels(torch.tensor(case.values).repeat(8 // len(case.values) // case.width or 1))[: 8 // case.width]
    spans = case.spans(labels, loss.number_style)
    logits = torch.randn(*labels.shape, VOCABULARY, generator=torch.Generator().manual_seed(0)).requires_grad_()
    with Allocations(logits.numel()) as seen:
        loss(logits, labels, spans).total.backward()
    return seen.count


def rows(names: Iterable[str]) -> list[list[str]]:
    """The table, a line a config."""
    plain = allocations("ce")
    table = []
    for name in names:
        term = {True: "fades", False: "stays"}[vanishes(name, False)] if kind_of(name).has_terms else ""
        total = {True: "fades", False: "stays"}[vanishes(name, True)]
        table.append(
            [
                f"`{name}`",
                proper(name),
                distance(name),
                f"{term}, {total}" if term else total,
                "free" if unit_free(name) else "depends",
                mass(name) if kind_of(name).has_terms else "",
                f"+{allocations(name) - plain}",
            ]
        )
    return table


def markdown(names: Iterable[str] | None = None) -> str:
    """The table as Markdown, of all losses where none are named."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(specs() if names is None else names)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |").replace("|  |", "| |") for line in lines)


if __name__ == "__main__":
    print(markdown())
