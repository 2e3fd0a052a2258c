"""Numbers to be measured on every real tokenizer: the four of a box, not the digits of its keys and labels."""

import re
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ntil import NumberSpans, NumberVocab, digit_by_digit
from ntil.numbers.measured import unmeasured
from tasks.answers.coordinates import FORMATS, Item
from tests.support.chosen import slow_but

NAMES = [
    *("baichuan2", "gemma3", "llama2", "llama3", "llava15", "minicpm3", "paligemma", "qwen2_5", "qwen2_vl", "qwen3"),
    *("smollm2", "yi"),
]
SIZE = (1000, 1000)
BOXES = [(156, 250, 469, 750), (7, 0, 23, 999)]
LABELS = ["player 23", "", "7-Eleven, 12:30", "no. 5 \u732b \U0001f600 caf\u00e9", "bbox_2d"]


# Large ones, and such as others here have too.
SLOW = ("gemma3", "paligemma", "qwen2_5", "qwen3")


@pytest.fixture(scope="module", params=slow_but(set(NAMES).difference(SLOW), NAMES))
def loaded(request, shared):
    return _load(shared / "assets" / "tokenizers", request.param)


@cache
def _load(folder, name):
    tokenizer = digit_by_digit(PreTrainedTokenizerFast(tokenizer_file=str(folder / name / "tokenizer.json")))
    return tokenizer, NumberVocab.from_tokenizer(tokenizer)


def values(tokenizer, vocab, text, ranges):
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    labels = torch.tensor(ids)
    labels[unmeasured(tokenizer.convert_ids_to_tokens(ids), text, ranges)] = -100
    spans = NumberSpans.find(labels, vocab)
    return spans.value[spans.is_number].tolist()


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"loc"}))
@pytest.mark.parametrize("label", LABELS)
def test_the_numbers_are_those_of_the_boxes(loaded, name, label):
    tokenizer, vocab = loaded
    coords = FORMATS[name]
    text = coords.items([Item((box[:2], box[2:]), label) for box in BOXES], SIZE, "box")
    ranges = coords.form.number_ranges(text)
    expected = [float(text[a:b]) for a, b in ranges]
    assert len(expected) == 8
    assert values(tokenizer, vocab, text, ranges) == pytest.approx(expected, rel=1e-12)
    # Without ranges the digits of keys and labels would be numbers too.
    every = [(0, len(text))]
    more = len(re.findall(r"[0-9]+", label)) or not coords.form.digits
    assert (values(tokenizer, vocab, text, every) != pytest.approx(expected, rel=1e-12)) == bool(more)


def test_of_location_tokens_those_within_the_ranges_are_measured(shared):
    tokenizer, _ = _load(shared / "assets" / "tokenizers", "paligemma")
    text = FORMATS["loc"].items([Item(((1, 2), (30, 999)), "player 23 <loc".rstrip("<loc"))], SIZE, "box")
    ranges = FORMATS["loc"].number_ranges(text) or FORMATS["loc"].form.number_ranges(text)
    vocab = NumberVocab.from_loc(tokenizer)
    assert values(tokenizer, vocab, text, ranges) == [2, 1, 1022, 31]
    assert values(tokenizer, vocab, text, ranges[:2]) == [2, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["12", " -3.5", "a", "x1", " ", "\u732b", "\U0001f600", ", ", "7"]), max_size=8), st.data()
)
def test_any_choice_of_numbers_is_kept(pieces, data):
    for name in ("llama2", "qwen2_5", "gemma3", "llama3"):
        tokenizer, vocab = _choose(name)
        text = ".".join(pieces)
        every = [m.span() for m in re.finditer(r"[0-9]+", text)]
        kept = data.draw(st.lists(st.sampled_from(every), unique=True)) if every else []
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        hidden = unmeasured(tokenizer.convert_ids_to_tokens(ids), text, kept)
        digits = [i for i, token in enumerate(ids) if 0 <= vocab.meaning(torch.tensor([token])).item() < 10]
        # The digit tokens that are left are the kept digits, in order.
        left = "".join(tokenizer.convert_ids_to_tokens([ids[i] for i in digits if i not in hidden]))
        assert left == "".join(text[a:b] for a, b in sorted(kept))


@cache
def _choose(name):
    from tests.conftest import SHARED

    return _load(SHARED / "assets" / "tokenizers", name)


def test_tokens_of_another_text_are_refused():
    with pytest.raises(ValueError, match="aren't those of its tokens"):
        unmeasured(["1", "2"], "13", [])
