"""What is taught is what is read: an answer's ids give the answer back, or it is refused, with every real tokenizer."""

import unicodedata

import pytest

from benchmarks import text_checkpoints, vision_checkpoints
from ntil.config.build import build
from ntil.config.compose import compose
from tests.support.chosen import slow_but

KEPT = [
    *("12:34", "-0.05", "1 000 000", "[0.1, 0.2]", "a  b", "a\tb", "one\ntwo\n\n#### 42", "caf\u00e9", "\ufb01ne"),
    *("\u4f60\u597d", "\U0001f600", "\uac00", "a \u00bd", "don't", "1 , 2 .", "\\frac{1}{2}", "a\r\nb", "<b>"),
]
MODULES = {name: module for module in (text_checkpoints, vision_checkpoints) for name in module.NAMES}
# Config -> the text that ends its answers.
ENDS = {
    "llava15_7b": "</s>",
    "yi_vl_6b": "###",
    "paligemma_3b": "<eos>",
    "paligemma2_3b": "<eos>",
    "qwen2_vl_2b": "<|im_end|>",
    "qwen2_5_vl_3b": "<|im_end|>",
    "qwen3_vl_2b": "<|im_end|>",
    "internvl3_1b": "<|im_end|>",
    "internvl3_5_1b": "<|im_end|>",
    "smolvlm2_256m": "<end_of_utterance>",
    "llava_ov_0_5b": "<|im_end|>",
    "qwen25_7b": "<|im_end|>",
    "qwen3_0_6b": "<|im_end|>",
    "smollm2_135m": "<|im_end|>",
    "llama3_2_1b": "<|eot_id|>",
    "gemma3_270m": "<end_of_turn>",
    "gemma3_4b": "<end_of_turn>",
    "llama3_8b": "<|end_of_text|>",
    "yi_6b": "<|endoftext|>",
    "minicpm3_4b": "<|im_end|>",
    "baichuan2_7b": "</s>",
}


# Of tokenizers that others here have too, and large ones.
SLOW = (
    *("paligemma2_3b", "smollm2_135m", "llama3_2_1b", "gemma3_270m", "gemma3_4b"),
    *("qwen2_5_vl_3b", "qwen3_vl_2b", "internvl3_1b", "internvl3_5_1b", "llava_ov_0_5b", "qwen25_7b"),
)
CASES = slow_but(set(ENDS).difference(SLOW), ENDS)


@pytest.fixture(scope="module", params=CASES)
def family(request, shared, tmp_path_factory):
    folder = MODULES[request.param].write(request.param, shared, tmp_path_factory.mktemp(request.param))
    words = [f"model={request.param}", f"model.checkpoint={folder}", "model.dtype=float32"]
    built = build("model", compose(words).model)
    return request.param, built


def test_answers_come_back_or_are_refused(family):
    name, family = family
    for answer in KEPT:
        ids = family.encode_text("What?", answer, False).answer_ids
        assert family.decode(ids).strip() == answer, (name, answer)
    with pytest.raises(ValueError, match="ends an answer of this model; write it without"):
        family.encode_text("What?", f"a{ENDS[name]}b", False)


@pytest.mark.parametrize("text", ["e\u0301", "\u1112\u1161\u11ab"])
def test_decomposed_text_comes_back_or_is_refused_with_the_remedy(family, text):
    name, family = family
    if name.startswith(("qwen", "internvl", "llava_ov")):
        with pytest.raises(ValueError, match="store the answer in Unicode's form NFC") as refused:
            family.encode_text("What?", text, False)
        assert ascii(text) in str(refused.value)
        text = unicodedata.normalize("NFC", text)
    assert family.decode(family.encode_text("What?", text, False).answer_ids).strip() == text


def test_characters_of_its_own_that_a_tokenizer_replaces_are_refused(family):
    name, family = family
    replaced = {"llava15_7b": "a<unk>b", "yi_vl_6b": "a\u2581b", "yi_6b": "a\u2581b", "paligemma_3b": "a\u2581b"}
    replaced["paligemma2_3b"] = replaced["paligemma_3b"]
    if name in replaced:
        with pytest.raises(ValueError, match="doesn't keep this text; write it otherwise, or take another model"):
            family.encode_text("What?", replaced[name], False)
