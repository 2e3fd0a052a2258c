import math
import pickle
import re
from dataclasses import fields
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ntil import NumberSpans, NumberVocab

VOCAB = NumberVocab([7, 3, 5, 11, 2, 13, 17, 19, 23, 29], point_ids=[4], minus_ids=[6])
PATTERN = re.compile(r"(?:(?<![0-9])-)?[0-9]+(?:\.[0-9]+)?")


def encode(text):
    """`?` stands for an ignored label."""
    return [{".": 4, "-": 6, "?": -100}.get(c, VOCAB.digit_ids[int(c)] if c.isdigit() else 0) for c in text]


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
@given(st.text(alphabet="0123456789.-, :[]a?", max_size=60))
def test_values_equal_pythons_own_reading(text):
    assert values(text) == pytest.approx([float(m) for m in PATTERN.findall(text)], rel=1e-14)
    assert values(text, "released") == pytest.approx([float(m) for m in re.findall("[0-9]+", text)], rel=1e-14)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**330), st.integers(0, 8))
def test_any_length_is_finite_and_right(number, zeros):
    """Python's float ends at 1e308; longer ones saturate there without an infinity or a NaN."""
    text = "0" * zeros + str(number)
    (found,) = values(text)
    assert math.isfinite(found)
    if number < 10**300:
        assert found == pytest.approx(float(number), rel=1e-14)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text(alphabet="0123456789.-,:?", max_size=12), min_size=1, max_size=5))
def test_samples_side_by_side_do_not_touch(texts):
    """Rows of different length, ignored labels around and within them."""
    width = max(map(len, texts)) + 1
    labels = torch.tensor([encode(t.ljust(width, "?")) for t in texts])
    spans = NumberSpans.find(labels, VOCAB)
    for row, text in enumerate(texts):
        own = spans.is_number & (spans.number_sample == row)
        assert spans.value[own].tolist() == pytest.approx([float(m) for m in PATTERN.findall(text)], rel=1e-14)
    assert spans.samples == len(texts)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.-,:?", max_size=30))
def test_digits_times_their_scale_are_the_value(text):
    """What the losses use (digit, scale, power, place, length, sign) tells the same number as `value`."""
    spans = NumberSpans.find(torch.tensor(encode(text), dtype=torch.long), VOCAB)
    again = torch.zeros_like(spans.value)
    again.index_add_(0, spans.number, torch.where(spans.is_digit, spans.digit, 0).double() * spans.scale)
    torch.testing.assert_close(again * spans.sign, spans.value, rtol=1e-14, atol=0)
    keep = spans.is_digit
    assert spans.scale[keep].tolist() == pytest.approx([10.0**p for p in spans.power[keep].tolist()], rel=1e-15)
    assert torch.equal(spans.length[keep], spans.count[spans.number[keep]])
    assert spans.place[keep].tolist() == [i for m in PATTERN.findall(text) for i in range(sum(map(str.isdigit, m)))]


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


def test_a_single_id_or_none_stands_for_a_sequence():
    vocab = NumberVocab(range(10), point_ids=10, minus_ids=None, comma_ids=(11,))
    assert (vocab.point_ids, vocab.minus_ids, vocab.comma_ids) == ((10,), (), (11,))


def test_merged_tokens_among_labels_are_an_error():
    vocab = NumberVocab(range(10), merged_ids=[12])
    labels = torch.tensor([[1, 2, 10], [12, 1, -100]])
    with pytest.raises(ValueError, match="digit_by_digit"):
        NumberSpans.find(labels, vocab)
    with pytest.raises(ValueError, match="1 token with several digits"):
        vocab.check(labels)
    vocab.check(labels[:1])


def test_merged_tokens_are_an_error_in_a_graph_too():
    """As on a GPU: an assertion on the device, since asking would make the host wait."""
    vocab = NumberVocab(range(10), merged_ids=[12])
    find = torch.compile(lambda labels: NumberSpans.find(labels, vocab).value, backend="eager", fullgraph=True)
    assert find(torch.tensor([[1, 2]]))[0] == 12
    with pytest.raises(RuntimeError, match="several digits"):
        find(torch.tensor([[1, 12]]))


def test_spans_come_back_from_another_process_by_value():
    spans = NumberSpans.find(torch.tensor(encode("-3.015 and 16777217"), dtype=torch.long), VOCAB)
    sent = ForkingPickler.dumps(spans)
    assert b"storage" not in bytes(sent)  # no tensor goes by a file handle
    again = pickle.loads(sent)
    for field in fields(spans):
        one, two = getattr(spans, field.name), getattr(again, field.name)
        assert torch.equal(one, two) and one.dtype == two.dtype if torch.is_tensor(one) else one == two
