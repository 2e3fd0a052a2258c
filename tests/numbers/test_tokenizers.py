"""Numbers on real tokenizers: text -> ids -> spans -> values is Python's own reading of the text."""

import re
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from ntil import NumberSpans, NumberVocab, digit_by_digit
from ntil.numbers.tokenizers import keeps_digits_apart, merged_digit_ids

NAMES = ["baichuan2", "llama2", "llama3", "llava15", "minicpm3", "paligemma", "qwen2_5", "qwen2_vl", "yi"]
DECIMAL = re.compile(r"(?:(?<![0-9])-)?[0-9]+(?:\.[0-9]+)?")
THOUSANDS = re.compile(r"(?:(?<![0-9])-)?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?")

# The digit 0 and its successors as the models' authors published them; shuffled in Gemma, Llama-2, Baichuan2, MiniCPM3.
PUBLISHED_DIGITS = {
    "paligemma": [235276, 235274, 235284, 235304, 235310, 235308, 235318, 235324, 235321, 235315],
    "llama2": [29900, 29896, 29906, 29941, 29946, 29945, 29953, 29955, 29947, 29929],
    "qwen2_5": list(range(15, 25)),
    "llama3": list(range(15, 25)),
}


@pytest.fixture(scope="session", params=NAMES)
def loaded(request, shared):
    return request.param, *_load(shared / "assets" / "tokenizers", request.param)


@cache
def _load(folder, name):
    """The tokenizer as shipped, the one that keeps digits apart, and the vocabulary of its digits."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / name / "tokenizer.json"))
    return tokenizer, digit_by_digit(tokenizer), NumberVocab.from_tokenizer(tokenizer)


@cache
def _load_bins(folder):
    tokenizer, _, _ = _load(folder, "paligemma")
    return tokenizer, NumberVocab.from_loc(tokenizer)


def encode(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def values(ids, vocab, style="decimal"):
    spans = NumberSpans.find(torch.tensor(ids, dtype=torch.long), vocab, style)
    return spans.value[spans.is_number].tolist()


def test_digits_are_the_published_ids(loaded):
    name, tokenizer, _, vocab = loaded
    assert tokenizer.convert_ids_to_tokens(list(vocab.digit_ids)) == list("0123456789")
    assert list(vocab.digit_ids) == PUBLISHED_DIGITS.get(name, list(vocab.digit_ids))


def test_only_llama3_merges_digits(loaded):
    name, tokenizer, apart, vocab = loaded
    assert keeps_digits_apart(tokenizer) == (name != "llama3")
    assert (apart is tokenizer) == (name != "llama3")
    if name == "llama3":
        assert len(merged_digit_ids(tokenizer)) == 1100  # 00 .. 99 and 000 .. 999
        with pytest.raises(ValueError, match="digit_by_digit"):
            values(encode(tokenizer, "[103, 877]"), vocab)


def test_splitting_changes_digits_only(loaded):
    _, tokenizer, apart, _ = loaded
    text = " Well,  the  café's (x=-1)\n\n\tα½ １２ has «no» digits),(  \r\n"
    plain = re.sub("[0-9]", "", text)
    assert encode(apart, plain) == encode(tokenizer, plain)
    assert apart.decode(encode(apart, "at 12:45, 1,024.5")) == tokenizer.decode(encode(tokenizer, "at 12:45, 1,024.5"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12:45", [12, 45]),
        ("[103, 877]", [103, 877]),
        ("(103,877),(5,6)", [103, 877, 5, 6]),
        ("<|box_start|>(103,877),(205,999)<|box_end|>", [103, 877, 205, 999]),
        ("x=-0.05", [-0.05]),
        ("-5 and 3-4", [-5, 3, 4]),
        ("3 -4, --5, (-6)", [3, -4, -5, -6]),
        ("3.015", [3.015]),
        ("007 ...5 3...5 0.5.", [7, 5, 3, 5, 0.5]),
        ("1,234", [1, 234]),
        ("１２ ² ½ Ⅻ 七", []),
        ("100% $5", [100, 5]),
        ("9" * 45, [float("9" * 45)]),
    ],
)
def test_values(loaded, text, expected):
    _, _, apart, vocab = loaded
    assert values(encode(apart, text), vocab) == pytest.approx(expected, rel=1e-14)


def test_thousands(loaded):
    _, _, apart, vocab = loaded
    text = "1,234 and 1,234,567.25; 1234,567; 12,34,567; 1,2345; 0.123,456; 1,234,5678"
    expected = [float(m.replace(",", "")) for m in THOUSANDS.findall(text)]
    assert expected[:2] == [1234, 1234567.25]
    assert values(encode(apart, text), vocab, "thousands") == expected


PIECES = st.sampled_from(
    [
        *"0123456789.-,:;()[]=+*/%$ \n\tax１²é",
        "),(",
        "), (",
        "--",
        "...",
        " -",
        "=-",
        "the ",
        "<box>",
        "0.",
        "000",
        "1,234",
        "12,345",
        ".-",
        "9" * 41,
        "-0.",
    ]
)


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(PIECES, max_size=25))
def test_values_equal_pythons_own_reading(loaded, pieces):
    name, _, apart, vocab = loaded
    text = "".join(pieces)
    ids = encode(apart, text)
    assert values(ids, vocab) == pytest.approx([float(m) for m in DECIMAL.findall(text)], rel=1e-14), (name, text)
    thousands = [float(m.replace(",", "")) for m in THOUSANDS.findall(text)]
    assert values(ids, vocab, "thousands") == pytest.approx(thousands, rel=1e-14), (name, text)
    released = [float(m) for m in re.findall("[0-9]+", text)]
    assert values(ids, vocab, "released") == pytest.approx(released, rel=1e-14), (name, text)


@settings(max_examples=40, deadline=None)
@given(numbers=st.lists(st.decimals(-(10**12), 10**12, places=3, allow_nan=False), min_size=1, max_size=6))
def test_lists_of_decimals_come_back_exactly(loaded, numbers):
    _, _, apart, vocab = loaded
    text = "[" + ", ".join(f"{n:f}" for n in numbers) + "]"
    assert values(encode(apart, text), vocab) == [float(n) for n in numbers]


@settings(max_examples=25, deadline=None)
@given(texts=st.lists(st.lists(PIECES, max_size=8).map("".join), min_size=1, max_size=4), prompt=st.integers(0, 3))
def test_answers_of_a_batch_between_ignored_labels(loaded, texts, prompt):
    name, _, apart, vocab = loaded
    answers = [encode(apart, text) for text in texts]
    width = max(map(len, answers)) + prompt + 1
    labels = torch.full((len(texts), width), -100)
    for row, ids in zip(labels, answers, strict=True):
        row[prompt : prompt + len(ids)] = torch.tensor(ids, dtype=torch.long)
    spans = NumberSpans.find(labels, vocab)
    for row, text in enumerate(texts):
        own = spans.value[spans.is_number & (spans.number_sample == row)].tolist()
        assert own == pytest.approx([float(m) for m in DECIMAL.findall(text)], rel=1e-14), (name, text)


GOLDEN = {"llama2": "llama-spm", "llama3": "llama-bpe", "qwen2_5": "qwen2"}


@pytest.mark.parametrize("name", GOLDEN)
def test_ids_and_values_on_golden_strings(shared, name):
    """The published ids of llama.cpp's test strings: our copy gives the same, and numbers are read from them."""
    folder = shared / "assets" / "tokenizer_golden" / "llama_cpp_vocab_tests"
    texts = (folder / f"ggml-vocab-{GOLDEN[name]}.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    lines = (folder / f"ggml-vocab-{GOLDEN[name]}.gguf.out").read_text().split("\n")
    tokenizer, apart, vocab = _load(shared / "assets" / "tokenizers", name)
    checked = 0
    for text, line in zip(texts, lines, strict=False):
        golden = [int(i) for i in line.split()]
        assert encode(tokenizer, text) == golden, text
        if re.search("[0-9]", text):
            ids = encode(apart, text) if name == "llama3" else golden
            assert values(ids, vocab) == pytest.approx([float(m) for m in DECIMAL.findall(text)], rel=1e-14), text
            checked += 1
    assert len(lines) > 40
    assert checked >= 10


def test_location_bins_are_one_place_numbers(shared):
    tokenizer, _, _ = _load(shared / "assets" / "tokenizers", "paligemma")
    vocab = NumberVocab.from_loc(tokenizer)
    assert vocab.base == 1024
    ids = encode(tokenizer, "<loc0012><loc1023><loc0000><loc0513> cat 12")
    spans = NumberSpans.find(torch.tensor(ids), vocab)
    assert spans.value[spans.is_number].tolist() == [12, 1023, 0, 513]
    assert spans.length[spans.is_digit].tolist() == [1, 1, 1, 1]


@settings(max_examples=50, deadline=None)
@given(bins=st.lists(st.integers(0, 1023), max_size=12))
def test_any_location_bins_come_back(shared, bins):
    tokenizer, vocab = _load_bins(shared / "assets" / "tokenizers")
    text = "".join(f"<loc{k:04d}>" + (" cat ; " if i % 4 == 3 else "") for i, k in enumerate(bins))
    assert values(encode(tokenizer, text), vocab) == bins


def test_a_tokenizer_without_location_bins_says_so(shared):
    tokenizer, _, _ = _load(shared / "assets" / "tokenizers", "llama2")
    with pytest.raises(ValueError, match="lacks 1024 of 1024 location tokens"):
        NumberVocab.from_loc(tokenizer)
