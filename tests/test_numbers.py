import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntil import NumberSpans, NumberVocab

VOCAB = NumberVocab([7, 3, 5, 11, 2, 13, 17, 19, 23, 29], point_ids=[4], minus_ids=[6])
PATTERN = re.compile(r"(?:(?<![0-9])-)?[0-9]+(?:\.[0-9]+)?")


def encode(text):
    return [{".": 4, "-": 6}.get(c, VOCAB.digit_ids[int(c)] if c.isdigit() else 0) for c in text]


def values(text, style="decimal"):
    spans = NumberSpans.find(torch.tensor(encode(text), dtype=torch.long), VOCAB, style)
    return spans.value[spans.is_number].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3.015", [3.015]),
        ("[103, 877]", [103, 877]),
        ("12:45", [12, 45]),
        ("-5 and 3-4", [-5, 3, 4]),
        ("007", [7]),
        ("1.2.3.4", [1.2, 3.4]),
        (".5", [5]),
        ("5.", [5]),
        ("-0.05", [-0.05]),
        ("--7", [-7]),
        ("none", []),
        ("16777217", [16777217]),
    ],
)
def test_values(text, expected):
    assert values(text) == pytest.approx(expected, rel=1e-15)


def test_released_style_splits_at_the_point():
    assert values("3.015", "released") == [3, 15]
    assert values("-0.5", "released") == [0, 5]


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="0123456789.-, :[]a", max_size=40))
def test_values_equal_pythons_own_reading(text):
    assert values(text) == pytest.approx([float(m) for m in PATTERN.findall(text)], rel=1e-12)


def test_places_and_lengths():
    spans = NumberSpans.find(torch.tensor(encode("a12.5 -7")), VOCAB)
    keep = spans.is_digit
    assert spans.power[keep].tolist() == [1, 0, -1, 0]
    assert spans.place[keep].tolist() == [0, 1, 2, 0]
    assert spans.length[keep].tolist() == [3, 3, 3, 1]
    assert spans.digit[keep].tolist() == [1, 2, 5, 7]


def test_numbers_do_not_run_across_samples_or_ignored_labels():
    one, two = VOCAB.digit_ids[1], VOCAB.digit_ids[2]
    spans = NumberSpans.find(torch.tensor([[0, one], [two, -100], [one, two]]), VOCAB)
    assert spans.value[spans.is_number].tolist() == [1, 2, 12]
    assert spans.number_sample[spans.is_number].tolist() == [0, 1, 2]


def test_vocab_from_tokenizer_reads_text_not_id_order():
    class Shuffled:
        def get_vocab(self):
            return {d: 100 - 7 * i for i, d in enumerate("0123456789")} | {
                ".": 1,
                "-": 2,
            }

    assert NumberVocab.from_tokenizer(Shuffled()).digit_ids[3] == 79


def test_vocab_refuses_an_id_with_two_meanings():
    with pytest.raises(ValueError, match="two meanings"):
        NumberVocab(range(10), point_ids=[3])
