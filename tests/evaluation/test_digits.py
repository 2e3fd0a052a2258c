"""Digit diagnostics against plain loops, and sums that add up over batches."""

import itertools

import pytest
import torch

from ntil.evaluation.digits import DigitTally, add_sums, means
from ntil.numbers.vocab import NumberVocab

VOCAB = NumberVocab([7, 3, 5, 11, 2, 13, 17, 19, 23, 29], minus_ids=[6], point_ids=[4])
IDS = torch.tensor(VOCAB.digit_ids)
TEXTS = ["12;7;", "0.5;", "300;", "-2.5;", ";;"]
TOKENS = {**{str(d): i for d, i in enumerate(VOCAB.digit_ids)}, ".": 4, "-": 6, ";": 1}


def batch(seed=0):
    width = max(map(len, TEXTS))
    labels = torch.tensor([[TOKENS[c] for c in text.ljust(width, ";")] for text in TEXTS])
    logits = 2 * torch.randn(*labels.shape, 32, generator=torch.Generator().manual_seed(seed))
    return logits, labels


def digit_sums(logits, labels):
    found = DigitTally(VOCAB)
    found.add(logits.reshape(-1, 32), labels.reshape(-1))
    return found.sums()


def test_means_equal_plain_loops():
    logits, labels = batch()
    nll: list[float] = []
    mass: list[float] = []
    right: list[float] = []
    errors: list[float] = []
    biases: list[float] = []
    for row, text in enumerate(TEXTS):
        for start, sign, number in _numbers(text):
            digits = [(start + k, c) for k, c in enumerate(number) if c.isdigit()]
            for at, c in digits:
                p = torch.softmax(logits[row, at].double(), -1)
                nll.append(-p[TOKENS[c]].log().item())
                mass.append(p[IDS].sum().item())
                right.append(float(p[IDS].argmax().item() == int(c)))
            ps = [torch.softmax(logits[row, at, IDS].double(), -1) for at, _ in digits]
            unit = 10.0 ** -len(number.partition(".")[2])
            every = [
                (
                    int("".join(map(str, ds))) * unit,
                    torch.stack([p[d] for p, d in zip(ps, ds, strict=True)]).prod().item(),
                )
                for ds in itertools.product(range(10), repeat=len(digits))
            ]
            errors.append(sum(p * abs(x - float(number)) for x, p in every))
            biases.append(sign * sum(p * (x - float(number)) for x, p in every))
    found = means(digit_sums(logits, labels))
    for name, values in zip(found, (nll, mass, right, errors, biases), strict=True):
        assert found[name] == pytest.approx(sum(values) / len(values), rel=1e-5), name


def _numbers(text):
    start = 0
    for part in text.split(";"):
        if part:
            number = part.removeprefix("-")
            signed = len(part) > len(number)
            yield start + signed, -1 if signed else 1, number
        start += len(part) + 1


def test_tables_hold_every_digit_once_and_add_up_over_batches():
    logits, labels = batch()
    whole = digit_sums(logits, labels)
    digits = sum(c.isdigit() for text in TEXTS for c in text)
    assert sum(map(sum, whole["confusion"])) == digits
    for name in ("place", "length", "calibration"):
        assert sum(row[0] for row in whole[name]) == digits
    assert [row[0] for row in whole["place"]][:4] == [5, 4, 1, 0]
    assert [row[0] for row in whole["length"]][:4] == [1, 6, 3, 0]
    halves = add_sums([digit_sums(logits[k : k + 2], labels[k : k + 2]) for k in (0, 2)])
    for name, value in whole.items():
        torch.testing.assert_close(torch.tensor(halves[name]), torch.tensor(value))


def test_no_digit_is_no_figure():
    logits, labels = batch()
    assert means(digit_sums(logits, torch.full_like(labels, 1))) == {}


def test_large_alphabets_are_grouped():
    vocab = NumberVocab(range(1024), one_place=True)
    labels = torch.tensor([[0, 31, 32, 1023]])
    found = DigitTally(vocab)
    found.add(torch.nn.functional.one_hot(labels[0], 1030).float() * 50, labels[0])
    confusion = torch.tensor(found.sums()["confusion"])
    assert confusion.shape == (32, 32)
    assert confusion.diag().tolist()[:2] == [2, 1]
    assert confusion[31, 31] == 1
