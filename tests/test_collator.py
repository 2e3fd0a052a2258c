"""Batches: labels are the answer, supervised logits are the full logits, batched generation is single generation."""

import pytest
import torch

from ntil.components import Components
from ntil.config.compose import compose
from ntil.config.errors import ConfigError
from ntil.config.identity import config_hash
from ntil.config.schema import RunConfig
from ntil.evaluation.generate import generate, predict, teacher_forced
from ntil.models.head import SupervisedHead

WORDS = ["model=llava_nano", "task=clock", "loss=ntil", "task.source.rows={train:12,validation:4,test:10}"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.setenv("NTIL_CACHE", str(tmp_path_factory.mktemp("cache")))
    torch.manual_seed(0)
    components = Components.build(compose(WORDS))
    model = components.family.load().eval()
    yield components, model, components.task.rows("train"), components.task.rows("test")
    patch.undo()


def test_labels_are_the_answer_and_its_end(parts):
    components, _, rows, _ = parts
    batch = components.collator([rows[i] for i in range(12)])
    tokenizer = components.family.tokenizer
    texts = tokenizer.decode(batch["targets"]).split(tokenizer.eos_token)
    assert [t.strip() for t in texts[:-1]] == [components.task.answer(rows[i]) for i in range(12)]
    assert texts[-1] == ""
    # The token after each supervised position is its target.
    assert torch.equal(batch["input_ids"].reshape(-1)[batch["positions"] + 1], batch["targets"])
    assert batch["samples"] == 12
    assert batch["spans"].is_digit.sum() == batch["digits"] == 12 * 4
    assert batch["numbers"] == 12 * 2


def test_supervised_logits_are_the_full_logits_there(parts):
    components, model, rows, _ = parts
    batch = components.collator([rows[i] for i in range(5)])
    inputs = {k: v for k, v in batch.items() if isinstance(v, torch.Tensor)}
    positions, _ = inputs.pop("positions"), inputs.pop("targets")
    head = SupervisedHead(model)
    with torch.no_grad():
        full = model(**inputs).logits
        picked = head.logits(model, inputs, positions)
    assert picked.shape == (len(positions), full.shape[-1])
    torch.testing.assert_close(picked, full.reshape(-1, full.shape[-1])[positions], atol=1e-5, rtol=0)


def test_batched_generation_is_single_generation(parts):
    components, model, _, rows = parts
    batch = [rows[i] for i in range(10)]
    assert generate(model, components.collator, batch) == [generate(model, components.collator, [r])[0] for r in batch]


def test_records_do_not_depend_on_the_batch_size(parts):
    components, model, _, rows = parts
    whole = list(predict(model, components.collator, rows, 10))
    assert whole == list(predict(model, components.collator, rows, 3))
    assert [r["id"] for r in whole] == rows["id"]


def test_teacher_forced_cross_entropy_is_the_full_one(parts):
    components, model, _, rows = parts
    found = teacher_forced(SupervisedHead(model), model, components.collator, rows, 4)[0]["ce"]
    batch = components.collator([rows[i] for i in range(10)])
    labels = torch.full_like(batch["input_ids"], -100)
    labels.view(-1)[batch["positions"] + 1] = batch["targets"]
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        assert found == pytest.approx(model(**inputs, labels=labels).loss.item(), abs=1e-5)


def test_a_row_that_does_not_fit_is_named(parts):
    components, _, rows, _ = parts
    from ntil.collator import Collator

    short = Collator(components.family, components.task, components.vocab, "decimal", max_length=10)
    said = rf"row {rows[0]['id']}: \d+ tokens, more than max_length=10; set max_length=\d+ or more"
    with pytest.raises(ValueError, match=said):
        short([rows[0]])


def test_max_length_is_a_key_of_the_run_and_none_of_its_identity(parts):
    _, _, rows, _ = parts
    components = Components.build(compose([*WORDS, "max_length=10"]))
    with pytest.raises(ValueError, match=r"more than max_length=10; set max_length="):
        components.collator([rows[0]])
    old = RunConfig.from_dict({k: v for k, v in compose(WORDS).to_dict().items() if k != "max_length"})
    assert Components.build(old).collator.max_length == 4096
    assert config_hash(old) == config_hash(compose(WORDS)) == config_hash(compose([*WORDS, "max_length=10"]))
    with pytest.raises(ConfigError, match="max_length must be at least 1"):
        compose([*WORDS, "max_length=0"])
