"""Nano twins of the text architectures: real classes, small, and able to learn an answer and where it ends."""

import pytest
import torch

from ntil.components import Components
from ntil.evaluation.generate import generate
from ntil.models.head import SupervisedHead
from ntil.preflight import compose_checked

CLASSES = {
    "qwen25_nano": "Qwen2ForCausalLM",
    "qwen3_nano": "Qwen3ForCausalLM",
    "gemma3_text_nano": "Gemma3ForCausalLM",
    "llama3_nano": "LlamaForCausalLM",
    "baichuan2_nano": "Baichuan2ForCausalLM",
    "minicpm3_nano": "MiniCPM3ForCausalLM",
}


@pytest.fixture(scope="module", params=CLASSES)
def parts(request, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    words = [
        f"model={request.param}",
        "task=arithmetic",
        "loss=ntil",
        "task.source.rows={train:16,validation:4,test:8}",
    ]
    components = Components.build(compose_checked(words))
    torch.manual_seed(0)
    yield request.param, components, components.family.load()
    patch.undo()


def inputs_of(batch):
    return {k: batch[k] for k in ("input_ids", "attention_mask")}


def test_the_real_class_below_two_million_parameters(parts):
    name, _, model = parts
    assert type(model).__name__ == CLASSES[name]
    assert sum(p.numel() for p in model.parameters()) < 2_000_000


def test_saved_is_loaded(parts, tmp_path):
    _, components, model = parts
    batch = inputs_of(components.collator([components.task.rows("train")[i] for i in range(4)]))
    with torch.no_grad():
        before = model.eval()(**batch).logits
        model.save_pretrained(tmp_path / "way")  # as Trainer does
        components.family.save(model, tmp_path / "model")
        torch.testing.assert_close(
            components.family.load(tmp_path / "model")(**batch).logits, before, atol=1e-5, rtol=0
        )
        torch.testing.assert_close(components.family.load(tmp_path / "way")(**batch).logits, before, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_it_learns_answers_and_stops_at_their_end(parts):
    _, components, model = parts
    rows = [components.task.rows("train")[i] for i in range(4)]
    batch = components.collator(rows)
    head, optimizer = SupervisedHead(model), torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for _ in range(120):
        logits = head.logits(model, inputs_of(batch), batch["positions"])
        loss = components.loss(logits, batch["targets"], batch["spans"]).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    assert [text.strip() for text in generate(model, components.collator, rows)] == [
        components.task.answer(r) for r in rows
    ]
    prompts = components.collator.prompts(rows[:1])
    end = components.family.end_id
    output = model.generate(**prompts, max_new_tokens=30, do_sample=False, eos_token_id=end, pad_token_id=0)
    written = output[0, prompts["input_ids"].shape[1] :].tolist()
    assert written == components.collator.encode(rows[0], components.task.answer(rows[0])).answer_ids
