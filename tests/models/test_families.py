"""Every multimodal family: padding changes no logit, batches generate as single rows do, and stop at the end."""

import pytest
import torch
from PIL import Image

from ntil.collator import Collator
from ntil.components import Components
from ntil.evaluation.generate import generate
from ntil.models.head import SupervisedHead
from ntil.preflight import compose_checked
from tests.support.chosen import slow_but
from tests.support.families import VISION_NANO
from tests.support.tiny_checkpoints import Ask, ask

QUICK = ["llava_nano", "paligemma_nano", "yi_vl_nano", "qwen2_vl_nano"]
ANSWERS = ["7", "12:45", "1024.5", "[12, 345, 678, 9]"]


class Parts:
    """A nano model with weights large enough that every row has an answer of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.components = Components.build(
            compose_checked([f"model={name}", "task=clock", "loss=ntil", "tracker=none"])
        )
        self.family = self.components.family
        self.collator = Collator(self.family, Ask(), self.components.vocab, "decimal")
        self.rows = ask(ANSWERS, (60, 48))
        torch.manual_seed(0)
        self.model = self.family.load().eval()
        self.head = SupervisedHead(self.model)
        with torch.no_grad():
            for key, weight in self.model.named_parameters():
                if weight.dim() > 1 and "embed" not in key and "lm_head" not in key:
                    weight.mul_(2)
                elif "post_feedforward_layernorm" in key:  # Gemma's, whose layers are as large as their norms
                    weight.add_(10)

    def inputs(self, rows):
        batch = self.collator(rows)
        inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
        return inputs, inputs.pop("positions"), inputs.pop("targets")


@pytest.fixture(scope="module", params=VISION_NANO)
def parts(request):
    return Parts(request.param)


def test_labels_are_the_answer_and_its_end(parts):
    for row in parts.rows:
        encoded = parts.collator.encode(row, row["answer"])
        assert encoded.answer_ids[-1] == parts.family.end_id
        assert parts.family.decode(encoded.answer_ids).strip() == row["answer"]
        assert parts.family.end_id not in encoded.answer_ids[:-1]
        assert encoded.prompt_ids == parts.collator.encode(row, None).prompt_ids


def test_ink_on_a_transparent_picture_is_seen(parts):
    ink = Image.new("RGBA", (60, 48), (0, 0, 0, 0))
    ink.paste((0, 0, 0, 255), (20, 20, 40, 40))
    white = Image.new("RGB", (60, 48), "white")
    white.paste((0, 0, 0), (20, 20, 40, 40))
    seen, expected = (parts.collator.encode({**parts.rows[0], "image": image}, None) for image in (ink, white))
    assert torch.equal(seen.features["pixel_values"], expected.features["pixel_values"])


def test_a_picture_is_expanded_exactly_once(parts):
    token = parts.family.tokenizer.convert_tokens_to_ids(parts.family.image_token)
    inputs, _, _ = parts.inputs(parts.rows)
    with torch.no_grad():
        names = parts.collator.encode(parts.rows[0], None).features
        features = parts.model.get_image_features(**{name: inputs[name] for name in names}).pooler_output
    # One tensor per picture, or all tiles of all pictures in one.
    tokens = [f.reshape(-1, f.shape[-1]).shape[0] for f in features]
    expanded = (inputs["input_ids"] == token).sum(1).tolist()
    assert sum(expanded) == sum(tokens)
    assert sum(expanded) % len(expanded) == 0 if len(tokens) != len(expanded) else expanded == tokens
    with pytest.raises(ValueError, match="row 0: the task's text holds"):
        parts.collator([{**parts.rows[0], "prompt": f"What is {parts.family.image_token}?"}])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_supervised_logits_are_the_full_logits_whatever_the_padding(parts, attention):
    default = parts.family.attention  # sdpa, where each part of the model can do it
    parts.model.set_attn_implementation(default if attention == "sdpa" else attention)
    inputs, positions, targets = parts.inputs(parts.rows)
    assert len({len(parts.collator.encode(r, r["answer"]).answer_ids) for r in parts.rows}) > 1
    with torch.no_grad():
        picked = parts.head.logits(parts.model, inputs, positions)
        full = parts.model(**inputs).logits
        alone, answers = [], []
        for row in parts.rows:
            own, at, wanted = parts.inputs([row])
            alone.append(parts.model(**own).logits[0, at])
            answers.append(wanted)
    parts.model.set_attn_implementation(default)
    torch.testing.assert_close(picked, full.reshape(-1, full.shape[-1])[positions], atol=1e-5, rtol=0)
    torch.testing.assert_close(picked, torch.cat(alone), atol=1e-5, rtol=0)
    assert torch.equal(targets, torch.cat(answers))


def test_answers_do_not_see_what_follows(parts):
    inputs, positions, _ = parts.inputs(parts.rows[3:])
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, positions[4] + 1 :] = parts.components.vocab.digit_ids[3]
    with torch.no_grad():
        before, after = parts.model(**inputs).logits[0], parts.model(**changed).logits[0]
    seen = slice(None, positions[4] + 1)
    torch.testing.assert_close(before[seen], after[seen], atol=1e-5, rtol=0)
    assert (before[positions[5] :] - after[positions[5] :]).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["paligemma_nano", "paligemma2_nano", "llava_nano"])
def test_only_paligemmas_prompt_is_read_both_ways(name):
    parts = Parts(name)
    inputs, positions, _ = parts.inputs(parts.rows[:1])
    changed = {**inputs, "input_ids": inputs["input_ids"].clone()}
    changed["input_ids"][0, positions[0] - 1] = parts.components.vocab.digit_ids[3]
    with torch.no_grad():
        before, after = parts.model(**inputs).logits[0], parts.model(**changed).logits[0]
    first = (before[0] - after[0]).abs().max()
    assert first > 1e-3 if name != "llava_nano" else first == 0
    assert (first == 0) == parts.family.causal


def test_batched_generation_is_single_generation(parts):
    together = generate(parts.model, parts.collator, parts.rows)
    assert together == [generate(parts.model, parts.collator, [row])[0] for row in parts.rows]
    assert len(set(together)) > 1


def test_generation_is_the_best_token_of_full_forwards(parts):
    """No cache, no padding, no generate: the whole sequence anew for every token."""
    row = parts.rows[1]
    encoded = parts.collator.encode(row, None)
    ids: list[int] = []
    for _ in range(6):
        tokens = torch.tensor([encoded.prompt_ids + ids])
        extra = parts.family.extra_inputs(tokens, torch.ones_like(tokens), torch.tensor([len(encoded.prompt_ids)]))
        with torch.no_grad():
            logits = parts.model(input_ids=tokens, **encoded.features, **extra).logits
        ids.append(int(logits[0, -1].argmax()))
    inputs = parts.collator.prompts(parts.rows)
    with torch.no_grad():
        output = parts.model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None)
    assert output[1, inputs["input_ids"].shape[1] :].tolist() == ids


@pytest.mark.parametrize("name", slow_but(QUICK, VISION_NANO))
def test_a_taught_model_writes_its_answers_and_stops(name):
    fresh = Parts(name)
    fresh.model = fresh.family.load().train()
    fresh.head = SupervisedHead(fresh.model)
    inputs, positions, targets = fresh.inputs(fresh.rows)
    optimizer = torch.optim.AdamW(fresh.model.parameters(), lr=3e-3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(fresh.head.logits(fresh.model, inputs, positions), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh.model.eval()
    assert [t.strip() for t in generate(fresh.model, fresh.collator, fresh.rows)] == ANSWERS
    prompts = fresh.collator.prompts(fresh.rows[:1])
    with torch.no_grad():
        output = fresh.model.generate(
            **prompts, max_new_tokens=32, do_sample=False, eos_token_id=fresh.family.end_id, pad_token_id=0
        )
    written = output[0, prompts["input_ids"].shape[1] :].tolist()
    assert written == fresh.collator.encode(fresh.rows[0], "7").answer_ids
