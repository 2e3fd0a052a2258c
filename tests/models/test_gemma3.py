"""Gemma 3 with a vision tower: ids and inputs of its own processor, and who looks at whom."""

import pytest
import torch
from transformers import AutoTokenizer, Gemma3ImageProcessorPil, Gemma3Processor

from ntil.collator import Collator
from ntil.components import Components
from ntil.config.compose import compose
from ntil.preflight import compose_checked
from tests.support.tiny_checkpoints import Ask, ask, words, written

SMALL = ["tracker=none", "engine=local", "task=clock", "loss=ntil", "task.source.rows={train:6}", "curriculum=none"]
ANSWERS = ["12:45", "7", "1024.5 and -3", "none", "[12, 345, 678, 9]"]


@pytest.mark.slow
@pytest.mark.parametrize("system", ["", "Be brief."])
def test_gemma3_is_its_own_processor(shared, tmp_path_factory, system):
    checkpoint = written("gemma3_4b", shared, tmp_path_factory)
    family = Components.build(compose_checked(words(checkpoint, f"model.system={system!r}", *SMALL))).family
    images = Gemma3ImageProcessorPil.from_pretrained(checkpoint.folder)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    processor = Gemma3Processor(images, tokenizer, tokenizer.chat_template, image_seq_length=4)
    for row in ask(ANSWERS, (90, 50)):
        batch = Collator(family, Ask(), None, "decimal")([row])
        asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": row["prompt"]}]}]
        first = [{"role": "system", "content": system}] if system else []
        answered = [{"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]}]
        text = processor.apply_chat_template([*first, *asked, *answered]).removeprefix("<bos>").removesuffix("\n")
        theirs = processor(images=row["image"], text=text, return_tensors="pt")
        for name in ("input_ids", "token_type_ids", "pixel_values"):
            assert torch.equal(batch[name].double(), theirs[name].double()), name
    assert family.end_id == 106
    assert tokenizer.convert_ids_to_tokens(262144) == family.image_token


@pytest.fixture(scope="module")
def nano():
    components = Components.build(compose_checked(["model=gemma3_nano", *SMALL]))
    torch.manual_seed(0)
    return components, components.family.load().eval()


def logits_with(nano, changed, types=None):
    """Logits of a row; `changed` adds to the features of that token of its picture."""
    components, model = nano
    batch = components.collator([components.task.rows("train")[0]])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values", "token_type_ids")}

    def add(module, arguments, features):
        noise = torch.zeros_like(features)
        if changed is not None:
            noise[:, changed] = torch.randn(features.shape[-1], generator=torch.Generator().manual_seed(0))
        return features + noise

    hook = model.model.multi_modal_projector.register_forward_hook(add)
    with torch.no_grad():
        logits = model(**{**inputs, "token_type_ids": inputs["token_type_ids"] * (types is None)}).logits[0]
    hook.remove()
    return logits, inputs["token_type_ids"][0].nonzero().flatten()


def test_a_pictures_tokens_look_both_ways_and_nothing_before_does(nano):
    """The last token of the picture changes the first one's state, and nothing before the picture."""
    before, picture = logits_with(nano, None)
    after, _ = logits_with(nano, 15)
    assert len(picture) == 16
    differs = (before - after).abs().amax(-1)
    assert differs[: picture[0]].max() == 0
    assert differs[picture].min() > 1e-4
    assert differs[-1] > 1e-5
    # Without the types it would be causal, and the first token blind to the last.
    blind, _ = logits_with(nano, None, types=False)
    other, _ = logits_with(nano, 15, types=False)
    assert (blind - other).abs().amax(-1)[picture[:-1]].max() == 0
    assert (blind - before).abs().max() > 1e-3


def test_a_question_is_read_from_left_to_right(nano):
    components, model = nano
    row = dict(components.task.rows("train")[0])
    batch = components.collator([row])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values", "token_type_ids")}
    end = int(batch["positions"][0])
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, end] = components.vocab.digit_ids[3]
    with torch.no_grad():
        one, two = model(**inputs).logits[0], model(**changed).logits[0]
    assert (one - two)[:end].abs().max() == 0
    assert (one - two)[end].abs().max() > 1e-3


@pytest.mark.parametrize("option", ["image_size=50", "mm_tokens_per_image=15", "mm_tokens_per_image=9"])
def test_sizes_that_do_not_pool_are_refused(option):
    with pytest.raises(ValueError, match=r"model\.image_size .* must be a multiple of model\.patch_size 6"):
        Components.build(compose(["model=gemma3_nano", f"model.{option}"]))
