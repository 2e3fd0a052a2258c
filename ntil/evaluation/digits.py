"""Teacher-forced statistics of the digits of the true answers, comparable over losses.

Everything is teacher-forced (the true tokens before each digit are given) and summed: shards and batches add up.

* `digit_nll`: mean negative log-likelihood of a digit under the softmax over the whole vocabulary.
* `digit_mass`: mean probability that this softmax gives to digits of any value, where a digit stands.
* `digit_accuracy`: the most likely digit (among digits) is the true one.
* `expected_error`: mean of E|X-Y| over numbers, exact (`expected_value_distance`), in the numbers' own unit.
* `expected_bias`: mean of E[X] - Y over numbers; signed, so systematic over- or underestimation shows.

Besides these means, `digits.json` holds counts by place from the left and by how many digits a number has, the
confusion matrix (true digit, most likely digit; alphabets of more than 32 digits in 32 equal groups), and the
calibration of the confidence in the most likely digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ntil.losses.step import IGNORE
from ntil.losses.values import expected_value_distance
from ntil.numbers.spans import NumberSpans
from ntil.numbers.vocab import NumberVocab

BINS = 10
GROUPS = 32  # of an alphabet with more digits than that
PLACES = 12  # places and lengths beyond are counted with the last


class DigitTally:
    """Sums over batches of supervised logits, float64 on the device."""

    def __init__(self, vocab: NumberVocab, device: torch.device | str = "cpu") -> None:
        base = vocab.base
        self.vocab, self.digit_ids = vocab, torch.tensor(vocab.digit_ids, device=device)
        self.groups = min(base, GROUPS)
        shapes = {
            "totals": (6,),  # digits, nll, mass, numbers, expected error, expected bias
            "confusion": (self.groups, self.groups),
            "place": (PLACES, 3),  # count, right, nll
            "length": (PLACES, 3),
            "calibration": (BINS, 3),  # count, right, confidence
        }
        self._sums = {k: torch.zeros(s, dtype=torch.float64, device=device) for k, s in shapes.items()}

    @torch.no_grad()
    def add(self, logits: Tensor, labels: Tensor, unmeasured: Sequence[int] = ()) -> None:
        """Add logits [N, V] at the supervised positions, and labels [N]: answers with their end tokens in sequence.

        Numbers are read as `decimal`, whatever the loss in training reads; `unmeasured` positions hold none.
        """
        numbers_in = labels.cpu().clone()
        numbers_in[list(unmeasured)] = IGNORE
        spans = NumberSpans.find(numbers_in, self.vocab).to(labels.device)
        at_digit = spans.is_digit
        weight = at_digit.double()
        log_p = torch.log_softmax(logits.float(), -1)
        nll = -log_p.gather(-1, labels[:, None])[:, 0].double()
        mass = log_p.index_select(-1, self.digit_ids).logsumexp(-1).exp().double()
        digit_logits = torch.where(at_digit[:, None], logits.index_select(-1, self.digit_ids).float(), 0.0)
        p = torch.softmax(digit_logits, -1)
        confidence, best = p.max(-1)
        true = spans.digit.clamp(min=0)
        right = (best == true).double()
        values = torch.arange(p.shape[-1], device=p.device, dtype=torch.float64)
        place = spans.scale * spans.sign[spans.number]
        off = torch.where(at_digit, ((p.double() * values).sum(-1) - true) * place, 0.0).sum()
        error = expected_value_distance(digit_logits, spans)[spans.is_number].sum()
        numbers = spans.is_number.sum().double()
        self._sums["totals"] += torch.stack(
            [weight.sum(), (nll * weight).sum(), (mass * weight).sum(), numbers, error, off]
        )
        row, column = (digit * self.groups // p.shape[-1] for digit in (true, best))
        self._sums["confusion"].view(-1).index_add_(0, row * self.groups + column, weight)
        table = torch.stack([weight, right * weight, nll * weight], -1)
        self._sums["place"].index_add_(0, spans.place.clamp(max=PLACES - 1), table)
        self._sums["length"].index_add_(0, (spans.length - 1).clamp(0, PLACES - 1), table)
        bins = (confidence * BINS).long().clamp(max=BINS - 1)
        bins_table = torch.stack([weight, right * weight, confidence.double() * weight], -1)
        self._sums["calibration"].index_add_(0, bins, bins_table)

    def sums(self) -> dict[str, Any]:
        """The sums as plain lists, which `add_sums` adds over ranks."""
        return {name: value.tolist() for name, value in self._sums.items()}


def add_sums(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add the sums of several ranks."""
    names = parts[0]
    return {
        n: torch.stack([torch.tensor(part[n], dtype=torch.float64) for part in parts]).sum(0).tolist() for n in names
    }


def means(sums: dict[str, Any]) -> dict[str, float]:
    """Headline figures of the sums; empty without any digit."""
    if not sums:
        return {}
    digits, nll, mass, numbers, error, bias = sums["totals"]
    if not digits:
        return {}
    right = sum(row[1] for row in sums["place"])
    return {
        "digit_nll": nll / digits,
        "digit_mass": mass / digits,
        "digit_accuracy": right / digits,
        "expected_error": error / numbers,
        "expected_bias": bias / numbers,
    }
